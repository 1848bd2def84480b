"""Raw data of the task `strengths`: how strongly a package needs others, in the index of Debian 12 (bookworm), main.

As debian.py, which makes `packages`, but with the relations that a package can do without, and each with its grade, as
Debian's policy manual, 7.2, orders them: Suggests 1, Recommends 2, Depends 3, Pre-Depends 4. Of several relations
between the binary packages of two sources the strongest counts.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from graftline.durable import write_atomic
from graftline.importers.debian import ITEMS, catalogue, core, read_index, strengths
from graftline.importers.packages import encode_table

RATINGS = "strengths.parquet"
GRADES = {"Suggests": 1, "Recommends": 2, "Depends": 3, "Pre-Depends": 4}


def write(out: Path, source: Path | None = None) -> Path:
    """Write `out`/strengths.parquet and `out`/items.parquet; return the first. Equal bytes of an equal index.

    Columns: `package` and `dependency`, strings, and `strength`, int64; of items as `debian.write` has them. `source`
    is the index; without it it is that of this machine's apt. Raises as `debian.write` does.
    """
    found = read_index(source)
    graded = strengths(found, GRADES)
    pairs = core(set(graded))
    table = pa.table(
        {
            "package": [user for user, _ in pairs], "dependency": [item for _, item in pairs],
            "strength": pa.array([graded[pair] for pair in pairs], pa.int64()),
        }
    )  # fmt: skip
    path = out / RATINGS
    write_atomic(out / ITEMS, catalogue({item for _, item in pairs}, found))
    write_atomic(path, encode_table(table, ["package", "dependency", "strength"], group_rows=200_000))
    return path
