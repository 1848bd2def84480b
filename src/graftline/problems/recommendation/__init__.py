"""A history in, the items that come next out."""
