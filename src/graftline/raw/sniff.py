"""How a table of text is written, guessed from its beginning: for `look` alone, never while data is read."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import re
from collections import Counter
from collections.abc import Sequence

import charset_normalizer
import pyarrow as pa
import pyarrow.compute as pc

from graftline.raw.reader import Source

_ROWS = 200
_DELIMITERS = (",", ";", "\t", "|")
_QUOTES = ('"', "'")
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_ENCODINGS = (
    *("cp1252", "cp1254", "cp1250", "cp1251", "cp1253", "cp1255", "cp1256", "cp1257", "cp1258", "koi8_r"),
    *("shift_jis", "euc_jp", "gb18030", "big5", "euc_kr", "cp874"),
)
"""What tables of text are found in that are not in UTF-8; of equally likely ones the first."""
_INTEGER = "^[+-]?(0|[1-9][0-9]{0,17})$"
_FLOAT = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_LEADING_ZERO = "^[+-]?0[0-9]"
_BOOLEANS = ("true", "false")


def guess(head: bytes, size: int) -> Source:
    """Return the encoding, separator, quote and header of a table of `size` bytes that begins with `head`."""
    encoding = guess_encoding(head)
    text = head.decode(encoding, "replace").removeprefix("\ufeff")
    if len(head) < size:
        text = text[: text.rfind("\n") + 1]  # the last line is cut
    ways = [(delimiter, quote) for delimiter in _DELIMITERS for quote in _QUOTES]
    tables = {way: divide(text, *way)[:_ROWS] for way in ways}
    delimiter, quote = max(ways, key=lambda way: _likeness(tables[way]))
    rows = tables[delimiter, quote]
    if _likeness(rows) == (0, 0):
        return Source(encoding=encoding)
    header = tuple(f"column_{number}" for number in range(1, len(rows[0]) + 1)) if _names_nothing(rows) else None
    return Source(encoding=encoding, delimiter=delimiter, quote=quote, header=header)


def divide(text: str, delimiter: str, quote: str) -> list[list[str]]:
    """Return the rows of a text that are not empty, up to the first that is none."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote, strict=True)
    rows: list[list[str]] = []
    with contextlib.suppress(csv.Error):
        rows.extend(row for row in reader if row)
    return rows


def guess_encoding(head: bytes) -> str:
    """Return the name of the encoding that a file seems to have which begins with these bytes."""
    if marked := next((name for mark, name in _MARKS if head.startswith(mark)), None):
        return marked
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # not final: the last character may be cut
    except UnicodeDecodeError:
        matches = list(charset_normalizer.from_bytes(head, cp_isolation=list(_ENCODINGS)))
        if not matches:
            return "latin-1"
        least = min((match.chaos, -match.coherence) for match in matches)
        equal = [match for match in matches if (match.chaos, -match.coherence) == least]
        names = {str(name) for match in equal for name in match.could_be_from_charset}
        return min(names, key=lambda name: _ENCODINGS.index(name) if name in _ENCODINGS else len(_ENCODINGS))
    return "utf-8"


def guess_type(values: pa.Array) -> pa.DataType:
    """Return the Arrow type that strings seem to spell. `007` and `NA` are words, and so is what some of them are.

    Beside text there may be values of a type of their own, such as pictures.
    """
    given = pc.drop_null(values)
    if not pa.types.is_string(values.type):
        return values.type
    if not len(given):
        return pa.null()
    if not pc.any(pc.match_substring_regex(given, _LEADING_ZERO)).as_py():
        if pc.all(pc.match_substring_regex(given, _INTEGER)).as_py():
            return pa.int64()
        if pc.all(pc.match_substring_regex(given, _FLOAT)).as_py():
            return pa.float64()
    if pc.all(pc.is_in(pc.utf8_lower(given), pa.array(_BOOLEANS))).as_py():
        return pa.bool_()
    return pa.string()


def _likeness(rows: Sequence[Sequence[str]]) -> tuple[float, int]:
    """Return how alike the rows are, and the width that most have; (0, 0) where nothing is divided."""
    if not rows:
        return 0, 0
    width, count = Counter(map(len, rows)).most_common(1)[0]
    return (count / len(rows), width) if width > 1 else (0, 0)


def _names_nothing(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the first row is one of values: it has a number, or two cells are equal, or one stands below."""
    first, below = rows[0], rows[1:]
    numbers = any(re.match(_FLOAT, cell) for cell in first)
    repeated = len(set(first)) < len(first)
    again = any(row[place] == cell for place, cell in enumerate(first) if cell for row in below if len(row) > place)
    return numbers or repeated or again
