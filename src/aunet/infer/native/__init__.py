"""Reading on a CPU by kernels of our own, compiled on first use."""
