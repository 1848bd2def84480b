"""How much of raw data is in memory at once, and how much is read of what was compressed."""

MAX_ROWS = 50_000
MAX_LINE = 8 << 20
"""Longest line of a CSV or JSON lines file and largest value of a Parquet file, in bytes."""
BATCH_BYTES = 8 << 20
"""Aimed size of a Parquet batch once decoded."""
MAX_BATCH = 512 << 20
"""Largest batch of rows of an Arrow file, decompressed: it is in memory whole."""
MAX_STRINGS = 128 << 20
"""Largest part of a workbook that is in memory whole, such as its strings."""
TEXT_BYTES = 8 << 20
"""Aimed size of a batch of CSV or JSON lines, as text: numbers take several times as much once parsed."""
EXPANSION = 250
"""How many times its size a compressed file may have as content: text rarely has more than 20, a bomb 1,000."""


def expansion(size: int) -> int:
    """Return how many bytes of content a compressed file of `size` bytes may have; small ones may be all alike."""
    return max(256 << 20, EXPANSION * size)
