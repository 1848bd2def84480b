"""Measure the ledger: `python -m bench.ledger [--entries 100000] [--folder DIR]`.

Appends so many signed entries to a ledger in a new directory store, one after another as one writer does, then reads
and verifies all of them with and without this machine's cache, proves each hundredth, and deletes everything.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from graftline.ledger.entries import Fact
from graftline.ledger.log import Ledger, read_chain
from graftline.ledger.merkle import Tree, leaf_hash, verify_inclusion
from graftline.store.opening import open_store

Result = TypeVar("Result")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--leaves", type=int, default=1_000_000, help="of the Merkle tree by itself")
    parser.add_argument("--folder", type=Path, help="where to make the store (default: the temporary folder)")
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="graftline-bench-", dir=arguments.folder))
    os.environ |= {"GRAFTLINE_KEYS": str(work / "keys"), "GRAFTLINE_CACHE": str(work / "cache")}
    try:
        print(json.dumps(measure(str(work / "store"), arguments.entries) | measure_tree(arguments.leaves), indent=2))
    finally:
        shutil.rmtree(work)


def measure(url: str, entries: int) -> dict[str, float]:
    """Return what appending, opening, verifying and proving take."""
    store = open_store(url)
    _, seconds = timed(lambda: append(Ledger(store), entries), "append")
    found: dict[str, float] = {"entries": entries, "appends_per_second": round(entries / seconds)}
    chain, seconds = timed(lambda: read_chain(store), "verify")
    found["verified_per_second"] = round(len(chain.entries) / seconds)
    ledger, seconds = timed(lambda: Ledger(store), "open from the cache")
    found["opened_from_cache_per_second"] = round(len(ledger.entries) / seconds)
    _, seconds = timed(lambda: prove(chain.tree, [entry.data for entry in chain.entries[::100]]))
    found["proved_and_checked_per_second"] = round(len(chain.entries) / 100 / seconds)
    return found


def append(ledger: Ledger, entries: int) -> None:
    for number in range(entries):
        fact = Fact("release", "bench", number + 1, "0" * 64, f"release-{number}")
        ledger.append(lambda _, fact=fact: fact)  # type: ignore[misc]  # mypy infers no lambda with a default


def prove(tree: Tree, leaves: list[bytes]) -> None:
    for number, data in enumerate(leaves):
        index = 100 * number
        assert verify_inclusion(leaf_hash(data), index, tree.size, tree.inclusion_proof(index), tree.root())


def measure_tree(leaves: int) -> dict[str, float]:
    """Return what the Merkle tree takes by itself: to grow, and for an inclusion and a consistency proof."""
    tree, seconds = timed(lambda: Tree(b"%d" % number for number in range(leaves)))
    found = {"tree_leaves": leaves, "tree_seconds": round(seconds, 2)}
    places = range(1, leaves, max(1, leaves // 1000))
    _, seconds = timed(lambda: [(tree.inclusion_proof(n), tree.consistency_proof(n)) for n in places])
    return found | {"tree_proof_microseconds": round(seconds / len(places) / 2 * 1e6)}


def timed(act: Callable[[], Result], name: str = "") -> tuple[Result, float]:
    """Return what `act` returns, and its wall seconds; print these and the processor's, which waiting is no part of."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = act()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if name:
        print(f"{name}: {wall:.2f} s, of which this process computed {cpu:.2f} s", file=sys.stderr, flush=True)
    return result, wall


if __name__ == "__main__":
    main()
