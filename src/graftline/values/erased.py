"""Rows that were erased and must not come back, and the subjects of rows: keyed hashes in place of persons' ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from graftline.rows.blocklist import Blocklist, check_key, read_blocklist
from graftline.rows.subjects import HASH_BYTES, hash_subject, load_key
from graftline.values.contract import Contract
from graftline.values.facts import ColumnBatch

if TYPE_CHECKING:
    from graftline.component import Context

ERASED = "erased"
"""The rule that the quarantine names for such rows; their values are not in it."""


@dataclass(frozen=True)
class Erasures:
    """What to keep out, and how to tell."""

    subject: str | None
    """The column with persons' ids, if the contract names one."""
    key: bytes
    """Of the keyed hash; empty without such a column."""
    rows: frozenset[bytes]
    """Digests of rows, 32 bytes each."""
    subjects: frozenset[bytes]
    """Keyed hashes, 16 bytes each."""

    def hashes(self, columns: dict[str, ColumnBatch], count: int) -> pa.Array | None:
        """Return the keyed hash of the subject of every row of a batch, bad rows too; null where it has none."""
        if self.subject is None or not self.subjects:
            return None
        return self.hashes_of(columns[self.subject].take(np.ones(count, bool)))

    def hashes_of(self, ids: pa.Array) -> pa.Array:
        """Return the keyed hash of each id, binary(16); null for null."""
        encoded = ids.dictionary_encode()
        known = [hash_subject(str(value), self.key) for value in encoded.dictionary.to_pylist()]
        return pa.array(known, pa.binary(HASH_BYTES)).take(encoded.indices)

    def of_subjects(self, hashes: pa.Array | None, count: int) -> np.ndarray:
        """Return (n,) bool: which rows are of a person whose rows were erased."""
        if hashes is None:
            return np.zeros(count, bool)
        return np.array([value in self.subjects for value in hashes.to_pylist()], bool)

    def of_rows(self, digests: np.ndarray) -> np.ndarray:
        """Return (n,) bool: which of the (n, 32) digests are of rows that were erased."""
        return np.array([digest.tobytes() in self.rows for digest in digests], bool)


def withheld(rows: np.ndarray) -> list[tuple[int, str, str]]:
    """Return the lines of the quarantine for erased rows."""
    return [(int(row), ERASED, "") for row in rows]


def subjects_key(contract: Contract, blocked: Blocklist) -> bytes:
    """Return the key of a task with a subject; make one, unless persons were erased: a new one would let them in.

    Raises:
        InputError: there is none and none can be made, or it is not the one that persons were erased with.
    """
    listed = contract.erased.as_blocklist()
    key = load_key(create=not (listed.subjects or blocked.subjects))
    check_key(listed, key, "the contract's `erased`")
    check_key(blocked, key, "the store's list")
    return key


def load_erasures(context: Context, contract: Contract) -> Erasures:
    """Return what the contract and the store say is to be kept out.

    Raises:
        InputError: the contract names a subject, and there is no key for its hash and none can be made, or it is not
            the one that persons were erased with.
    """
    blocked = read_blocklist(context.store(), context.task)
    key = subjects_key(contract, blocked) if contract.subject is not None else b""
    rows = {bytes.fromhex(digest) for digest in (*contract.erased.rows, *blocked.rows)}
    subjects = {bytes.fromhex(value) for value in (*contract.erased.subjects, *blocked.subjects)}
    return Erasures(contract.subject, key, frozenset(rows), frozenset(subjects))
