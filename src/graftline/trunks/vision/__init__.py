"""transformers' own image models: trained from scratch or continued from a public checkpoint."""
