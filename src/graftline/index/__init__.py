"""The index: a SQLite database of a store's records, for questions that no single record answers.

    index = open_index(open_store(url), folders=(Path("outputs"),))
    release = index.release("mnist", 3)
    for record in index.ancestors(release.records.values()): ...

It is made from the records and can be made from them again at any time: it is never the truth. A question follows the
ledger to its end first; records that no ledger entry leads to (and what was removed by hand) are seen by
`graftline index`, which looks at every key. docs/decisions/index.md says why.
"""

from __future__ import annotations

from graftline.index.opening import index_path, open_index
from graftline.index.queries import Index
from graftline.index.rows import (
    AliasChange,
    FileHolder,
    IndexedRecord,
    IndexedRelease,
    Input,
    Match,
    Problem,
    Reached,
)

__all__ = [
    "AliasChange",
    "FileHolder",
    "Index",
    "IndexedRecord",
    "IndexedRelease",
    "Input",
    "Match",
    "Problem",
    "Reached",
    "index_path",
    "open_index",
]
