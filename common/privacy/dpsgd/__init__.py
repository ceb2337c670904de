"""Per-sample clipped gradients for DP-SGD."""
