"""How much of raw data is in memory at once."""

MAX_ROWS = 50_000
MAX_LINE = 8 << 20
"""Longest line of a CSV or JSON lines file and largest value of a Parquet file, in bytes."""
BATCH_BYTES = 8 << 20
"""Aimed size of a Parquet batch once decoded."""
TEXT_BYTES = 8 << 20
"""Aimed size of a batch of CSV or JSON lines, as text: numbers take several times as much once parsed."""
