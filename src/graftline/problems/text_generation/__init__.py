"""The beginning of a text in, the rest of it out."""
