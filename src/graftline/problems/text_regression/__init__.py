"""One text in, one number or several out."""
