"""Make a release again from its commit, and say whether it is the same."""
