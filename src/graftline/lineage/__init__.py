"""Where a model came from, what an input reached, and what is different between two models."""
