"""Two texts in, one class of the pair out."""
