"""Differential privacy: accountant, ledger, mechanisms, per-sample gradients."""
