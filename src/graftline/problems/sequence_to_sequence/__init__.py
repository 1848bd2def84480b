"""A text in, another text out: a translation, a summary."""
