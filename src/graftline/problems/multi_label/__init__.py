"""One image or one text in, a set of classes out, which may be empty."""
