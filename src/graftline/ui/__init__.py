"""Pages over the index, served on this machine or written as a static site."""
