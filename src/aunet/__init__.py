"""Autoregressive U-Nets: language models that read raw bytes and build their own units (arXiv 2506.14761)."""

__version__ = "0.1.0"
