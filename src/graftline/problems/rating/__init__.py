"""A history with its ratings in, ratings of other items out."""
