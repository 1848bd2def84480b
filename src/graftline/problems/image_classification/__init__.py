"""One image in, one class out."""
