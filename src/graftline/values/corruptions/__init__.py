"""The ways to spoil pictures, texts and clips; the kinds of columns say which of them apply to their values."""
