"""One image in, one number or several out."""
