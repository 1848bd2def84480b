"""The Merkle tree: what Certificate Transparency's own tests expect, and RFC 6962's definition, word for word."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftline.audit.evidence.verifier import _grew as verify_consistency
from graftline.ledger.merkle import EMPTY_ROOT, Tree, leaf_hash, node_hash, verify_inclusion

# The reference tests of Certificate Transparency: eight leaves, the root over the first 1, 2, ... 8 of them.
# https://github.com/google/certificate-transparency/blob/master/python/ct/crypto/merkle_test.py
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def test_the_roots_are_those_of_certificate_transparency() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert [Tree(LEAVES[:size]).root().hex() for size in range(1, 9)] == ROOTS
    tree = Tree(LEAVES)
    assert [tree.root(size).hex() for size in range(1, 9)] == ROOTS
    assert tree.root(0) == Tree().root() == EMPTY_ROOT


def test_the_proofs_are_those_of_certificate_transparency() -> None:
    """Inclusion of leaf 6 of 8, and the proofs of the example in RFC 6962, 2.1.3, for a tree of seven."""
    tree = Tree(LEAVES)
    assert [step.hex() for step in tree.inclusion_proof(5, 8)] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    a, b, c, d, e, f, j = map(leaf_hash, LEAVES[:7])
    g, h, i = node_hash(a, b), node_hash(c, d), node_hash(e, f)
    k, l = node_hash(g, h), node_hash(i, j)  # noqa: E741  (the RFC's names)
    assert tree.inclusion_proof(0, 7) == [b, h, l]
    assert tree.inclusion_proof(3, 7) == [c, g, l]
    assert tree.inclusion_proof(4, 7) == [f, j, k]
    assert tree.inclusion_proof(6, 7) == [i, k]
    assert tree.consistency_proof(3, 7) == [c, d, g, l]
    assert tree.consistency_proof(4, 7) == [l]
    assert tree.consistency_proof(6, 7) == [i, j, k]


def test_what_is_no_part_of_a_tree_is_refused() -> None:
    tree = Tree(LEAVES)
    for act in (
        lambda: tree.root(9),
        lambda: tree.root(-1),
        lambda: tree.inclusion_proof(8),
        lambda: tree.inclusion_proof(3, 3),
        lambda: tree.consistency_proof(5, 4),
        lambda: tree.consistency_proof(1, 9),
    ):
        with pytest.raises(ValueError, match="of"):
            act()


def defined_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1, as it is written there."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\1" + defined_root(leaves[:split]) + defined_root(leaves[split:])).digest()


def named(count: int) -> list[bytes]:
    return [f"entry {number}".encode() for number in range(count)]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 140), st.data())
def test_root_and_proofs_follow_the_definition_and_prove_nothing_else(size: int, data: st.DataObject) -> None:
    leaves = named(size + 5)  # a grown tree answers for each size that it had
    tree = Tree(leaves)
    root = tree.root(size)
    assert root == defined_root(leaves[:size])
    first = data.draw(st.integers(1, size)) if size else 0
    proof = tree.consistency_proof(first, size)
    old = defined_root(leaves[:first])
    assert verify_consistency(first, size, old, root, proof), "by the verifier that evidence carries"
    assert not verify_consistency(first, size, leaf_hash(b"x"), root, proof)
    assert not verify_consistency(size + 1, size, tree.root(size + 1), root, proof)
    if 0 < first < size:
        assert not verify_consistency(first, size, old, leaf_hash(b"x"), proof)
        assert not verify_consistency(first, size, old, root, proof[:-1])
        assert not verify_consistency(first, size, old, root, [*proof, root])
    if size:
        index = data.draw(st.integers(0, size - 1))
        path = tree.inclusion_proof(index, size)
        leaf = leaf_hash(leaves[index])
        assert verify_inclusion(leaf, index, size, path, root)
        assert not verify_inclusion(leaf_hash(b"x"), index, size, path, root)
        assert not verify_inclusion(leaf, size, size, path, root)
        assert not verify_inclusion(leaf, index, size, [*path, root], root)
        if path:
            other = data.draw(st.integers(0, len(path) - 1))
            assert not verify_inclusion(leaf, index ^ 1, size, path, root) or index ^ 1 >= size
            assert not verify_inclusion(leaf, index, size, path[:other] + path[other + 1 :], root)
            changed = [*path[:other], leaf_hash(b"x"), *path[other + 1 :]]
            assert not verify_inclusion(leaf, index, size, changed, root)


def test_each_proof_of_each_small_tree_holds() -> None:
    tree = Tree(named(33))
    for size in range(34):
        root = tree.root(size)
        for index in range(size):
            leaf = leaf_hash(named(33)[index])
            assert verify_inclusion(leaf, index, size, tree.inclusion_proof(index, size), root)
        for first in range(1, size + 1):
            assert verify_consistency(first, size, tree.root(first), root, tree.consistency_proof(first, size))
