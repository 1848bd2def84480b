"""One text or clip in, one class out."""
