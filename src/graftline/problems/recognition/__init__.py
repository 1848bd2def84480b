"""A clip of speech in, what is said out."""
