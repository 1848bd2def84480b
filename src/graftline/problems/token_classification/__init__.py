"""A sentence in, one tag a word out."""
