"""The Merkle tree of RFC 6962 (section 2.1): its root, and proofs that a log holds an entry and only grows.

    tree = Tree([b"first", b"second"])
    verify_inclusion(leaf_hash(b"second"), 1, 2, tree.inclusion_proof(1), tree.root())

Whoever has the root needs about log2(n) hashes, not the log, to check either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()
"""The root of the tree without a leaf."""


def leaf_hash(data: bytes) -> bytes:
    return sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


class Tree:
    """A tree that grows leaf by leaf and answers for each size that it has had.

    It keeps the hash of every complete subtree, 64 bytes a leaf: an append takes 2 hashes on average, a root or a
    proof about log2(n)**2 at most.
    """

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self._levels = [bytearray()]
        """At level h the hashes of the complete subtrees of 2**h leaves, from left to right."""
        for data in leaves:
            self.append(leaf_hash(data))

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return len(self._levels[0]) // HASH_BYTES

    def append(self, leaf: bytes) -> None:
        """Add the leaf of which `leaf` is the hash."""
        level, subtree = 0, leaf
        self._levels[0] += leaf
        while len(self._levels[level]) % (2 * HASH_BYTES) == 0:
            subtree = node_hash(bytes(self._levels[level][-2 * HASH_BYTES : -HASH_BYTES]), subtree)
            level += 1
            if level == len(self._levels):
                self._levels.append(bytearray())
            self._levels[level] += subtree

    def root(self, size: int | None = None) -> bytes:
        """Return the root over the first `size` leaves, or over all. Raises ValueError if there are fewer."""
        size = self._checked(size)
        return self._range(0, size) if size else EMPTY_ROOT

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """Return PATH(index, D[size]) of RFC 6962, 2.1.1: the leaf's siblings, from the lowest.

        Raises:
            ValueError: there is no leaf `index` (from 0) among the first `size`.
        """
        start, end = 0, self._checked(size)
        if not 0 <= index < end:
            raise ValueError(f"leaf {index} of {end}")
        proof = []
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                proof.append(self._range(middle, end))
                end = middle
            else:
                proof.append(self._range(start, middle))
                start = middle
        return proof[::-1]

    def consistency_proof(self, first: int, size: int | None = None) -> list[bytes]:
        """Return PROOF(first, D[size]) of RFC 6962, 2.1.2: that the first `first` leaves are still the same.

        Raises:
            ValueError: `first` is above `size`, or that above the number of leaves.
        """
        start, end = 0, self._checked(size)
        if not 0 <= first <= end:
            raise ValueError(f"{first} leaves of {end}")
        proof = []
        while 0 < first < end:
            middle = start + _split(end - start)
            if first <= middle:
                proof.append(self._range(middle, end))
                end = middle
            else:
                proof.append(self._range(start, middle))
                start = middle
        if start:
            proof.append(self._range(start, end))
        return proof[::-1]

    def _checked(self, size: int | None) -> int:
        if size is None:
            return self.size
        if not 0 <= size <= self.size:
            raise ValueError(f"size {size} of a tree of {self.size} leaves")
        return size

    def _range(self, start: int, end: int) -> bytes:
        """Return the root over the leaves from `start` to before `end`, a subtree that a proof may need."""
        parts = list(self._complete(start, end))
        root = parts.pop()
        while parts:
            root = node_hash(parts.pop(), root)
        return root

    def _complete(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the largest complete subtrees that make up a range, from the left."""
        while start < end:
            level = (end - start).bit_length() - 1
            place = (start >> level) * HASH_BYTES
            yield bytes(self._levels[level][place : place + HASH_BYTES])
            start += 1 << level


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Return whether `proof` shows that `leaf` (a hash) is the leaf `index` (from 0) below `root`.

    RFC 9162, 2.1.3.2.
    """
    if not 0 <= index < size:
        return False
    place, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if place & 1 or place == last:
            found = node_hash(sibling, found)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and found == root


def _split(size: int) -> int:
    """Return the largest power of two below `size` (at least 2): how many leaves stand left of the root."""
    return int(1 << ((size - 1).bit_length() - 1))
