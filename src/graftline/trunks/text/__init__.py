"""Transformers, for text: trained from scratch or continued from a public checkpoint."""
