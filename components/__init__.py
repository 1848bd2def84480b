"""The five components: one folder each, with everything about it."""
