"""Decode a folder of pictures as validate does: `python decoder.py RAW WORK OUT`; print how many rows were known."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from graftline.digests import digest_files, list_files
from graftline.raw import limits
from graftline.raw.files import raw_files, read_batches
from graftline.values import ahead
from graftline.values.category import String
from graftline.values.contract import Contract
from graftline.values.image import Image

SHAPE = (24, 32)


def main(raw: Path, work: Path, out: Path, processes: int) -> None:
    limits.BATCH_BYTES = 20_000  # several batches of a small folder
    ahead.AHEAD_BYTES = 30_000
    if processes:
        ahead.CHUNK, ahead.CHUNK_BYTES = 4, 2_000
    columns = {"image": Image(shape=SHAPE, mode="rgb"), "label": String(role="label", classes=("cat", "dog"))}
    contract = Contract(columns=columns)
    batches = read_batches(raw_files(raw), contract.asked)
    first = next(batches)
    with ahead.Ahead(contract, first, work, digest_files(list_files(raw)), max(1, processes)) as decoder:
        known = [rows for file in decoder._files.values() for _, rows, _ in file.known]
        print(sum(known), flush=True)
        rows = sum(batch.rows for batch in decoder.decoded(itertools.chain([first], batches)))
        decoder.link(out, rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
