"""Differential privacy for whole clients, in two trust models: `central` (the server adds noise) and `distributed` (devices do).

Arrays in, arrays out; nothing here knows Flower. `docs/client-level-dp.md` says what each model promises, and to whom.
"""
