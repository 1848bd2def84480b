"""Many processes at one store: imports once, forks, and lets all children go at the same moment.

usage: racers.py put URL PROCESSES KEYS | count URL PROCESSES INCREMENTS | publish URL PROCESSES FOLDER
       | enter URL PROCESSES FACTS
Prints one JSON value a child.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from graftline.errors import GraftlineError
from graftline.ledger.entries import Fact
from graftline.ledger.log import Ledger
from graftline.releases.publishing import Publication, ReleaseDraft, publish
from graftline.store.opening import open_store


def put(url: str, child: int, keys: int) -> object:
    """Return the keys that this child won."""
    store = open_store(url)
    return [key for key in range(keys) if store.put_if_absent(f"race/{key}", f"child {child}".encode() * 1000)]


def count(url: str, child: int, increments: int) -> object:
    """Add one to a shared counter so often; return the numbers that this child stored."""
    store, stored = open_store(url), []
    while len(stored) < increments:
        now = store.get("counter")
        number = json.loads(now.data)["number"] + 1
        if store.replace("counter", json.dumps({"number": number, "by": child}).encode(), now.tag):
            stored.append(number)
    return stored


def release(url: str, child: int, folder: str) -> object:
    """Publish what was compared with no champion; return the version and whether it was promoted."""
    files = {path.name: path for path in Path(folder).iterdir()}
    draft = ReleaseDraft("digits", files, {"model": b'{"child": %d}' % child}, {"accuracy": 0.9})
    receipt = publish(open_store(url), draft, Publication(f"child-{child}", fresh=True))
    return [receipt.release.version, receipt.promoted]


def enter(url: str, child: int, facts: int) -> object:
    """Enter so many facts into the ledger, again while the store fails; return the sequence and id of each."""
    store, entered = open_store(url), []
    for number in range(facts):
        fact = Fact("release", "digits", 1 + number, f"{child:064x}", f"child-{child}-{number}")
        entry = None
        for _ in range(50):
            try:
                entry = Ledger(store).append(lambda _, fact=fact: fact)
                break
            except GraftlineError as error:
                if error.exit_code != 1:
                    raise
        assert entry is not None, "the store never served it"
        entered.append([entry.sequence, entry.id])
    return entered


def race(act: Callable[[int], object], processes: int) -> None:
    gate_read, gate_write = os.pipe()
    children = []
    for child in range(processes):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(gate_write)
            os.read(gate_read, 1)  # until the parent closes the other end
            code = 1
            try:
                os.write(write, json.dumps(act(child)).encode())
                code = 0
            except BaseException:  # noqa: BLE001  (reported; a child must not run on)
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(write)
        children.append((pid, read))
    os.close(gate_write)
    failed = 0
    for pid, read in children:
        with os.fdopen(read) as pipe:
            print(pipe.read())
        failed += os.waitpid(pid, 0)[1] != 0
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    verb, url, processes, last = sys.argv[1:]
    open_store(url)  # loads before the fork what each child would load
    acts: dict[str, Callable[[int], object]] = {
        "put": lambda child: put(url, child, int(last)),
        "count": lambda child: count(url, child, int(last)),
        "publish": lambda child: release(url, child, last),
        "enter": lambda child: enter(url, child, int(last)),
    }
    race(acts[verb], int(processes))
