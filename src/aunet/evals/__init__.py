"""Measuring a model: bits per byte, and the compressors beside it."""
