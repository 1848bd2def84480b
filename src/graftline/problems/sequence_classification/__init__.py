"""One text in, one class out."""
