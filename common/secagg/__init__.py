"""Secure aggregation as pure state machines: the server learns the sum of a cohort's vectors and no vector of one device.

Double masking after Bonawitz et al. 2017 ("Practical secure aggregation for privacy-preserving machine learning", the variant for
an active adversary, section 6), on the sparse graph of Bell et al. 2020 for large cohorts. `docs/secagg.md` tells the protocol.
"""
