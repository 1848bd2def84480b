"""The ways to spoil pictures and texts; the kinds of columns say which of them apply to their values."""
