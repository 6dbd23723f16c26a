"""Training: the plan of a run, the optimizer, the loop, checkpoints and metrics."""
