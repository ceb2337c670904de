"""Optional kernels in C for the layers that torch is slow at, built on this machine where it has a compiler."""
