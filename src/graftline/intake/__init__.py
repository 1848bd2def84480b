"""A new task from data as people have it: look at some of it, guess, ask what cannot be known, write data/<task>/."""
