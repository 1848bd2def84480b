"""Graftline retrains pretrained models and proves where every model came from."""

__version__ = "0.1.0"
