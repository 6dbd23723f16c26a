"""Scaling laws as a tool: runs that leave records, sweeps over learning rate and batch, fits, figures, a report."""
