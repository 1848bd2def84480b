"""Real English prose that is wherever Python is: the language reference, which `help()` shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from pydoc_data.topics import topics

import pyarrow as pa
import pyarrow.parquet as pq


def paragraphs() -> list[str]:
    """Return about 2,600 paragraphs, 0.46 million characters in all; some are empty."""
    return [text.strip() for topic in topics.values() for text in topic.split("\n\n")]


def write_parquet(path: Path, texts: Sequence[str | None], **options: object) -> Path:
    """Write `texts` as the column `text`, beside a column of numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"number": range(len(texts)), "text": pa.array(texts, pa.string())}), path, **options)
    return path


def jsonl(texts: Sequence[str | None]) -> bytes:
    """Return `texts` as JSONL, not escaped."""
    lines = [json.dumps({"number": n, "text": text}, ensure_ascii=False) for n, text in enumerate(texts)]
    return "".join(f"{line}\n" for line in lines).encode()


def write_corpus(folder: Path, texts: Sequence[str], shards: int) -> Path:
    """Write `texts` as Parquet shards of equal size."""
    size = -(-len(texts) // shards)
    for number in range(shards):
        write_parquet(folder / f"part-{number}.parquet", texts[number * size : (number + 1) * size])
    return folder
