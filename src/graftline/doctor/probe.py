"""What `graftline doctor` runs in a pod: does a step reach the store and git, and may it write as a step does?

    python -m graftline.doctor.probe --store s3://BUCKET/PREFIX --repository URL [--out FILE]

It prints one JSON object, and writes it to FILE: "" for what works, one line for what does not. The exit code is 0
either way: the answer is in the object.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from dulwich.porcelain import ls_remote

from graftline.errors import GraftlineError
from graftline.store import MissingError, Store
from graftline.store.opening import open_store
from graftline.task_data import with_token

SECONDS = 45.0
"""How long one answer may take: the store alone tries for half a minute."""
FOLDER = "handover"
"""Below it steps may delete, and the bucket's rules remove what a lost probe left (docs/cluster.md, step 5)."""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m graftline.doctor.probe", description=__doc__.split("\n")[0])
    parser.add_argument("--store", required=True, metavar="s3://BUCKET/PREFIX")
    parser.add_argument("--repository", required=True, metavar="URL")
    parser.add_argument("--out", metavar="FILE", help="besides standard output")
    arguments = parser.parse_args(argv)
    hosts = {
        urlsplit(address).hostname
        for address in (os.environ.get("AWS_ENDPOINT_URL", ""), arguments.repository)
        if "://" in address
    }
    looks: dict[str, Callable[[], str]] = {
        "names": lambda: "; ".join(filter(None, map(unresolved, sorted(filter(None, hosts))))),
        "store": lambda: store_fault(arguments.store),
        "repository": lambda: repository_fault(arguments.repository),
    }
    answer = json.dumps(_all(looks))
    if arguments.out:
        Path(arguments.out).write_text(answer, encoding="utf-8")
    print(answer, flush=True)
    os._exit(0)  # a look that hangs must not hold the pod


def _all(looks: dict[str, Callable[[], str]]) -> dict[str, str]:
    said = dict.fromkeys(looks, f"no answer after {SECONDS:.0f} s")

    def ask(name: str) -> None:
        try:
            said[name] = looks[name]()
        except Exception as error:  # noqa: BLE001  (whatever it is, it is the answer)
            said[name] = " ".join(str(error).split())[:600] or type(error).__name__

    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in looks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    return dict(said)


def unresolved(host: str) -> str:
    """Return "" if a host's name has an address, else why not."""
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        return f"{host}: {error.strerror or error}"
    return ""


def store_fault(url: str) -> str:
    """Return "" if the store does conditional writes, else what it did instead."""
    try:
        store = open_store(url)
        key = f"{FOLDER}/doctor-{uuid.uuid4().hex}"
        try:
            return _conditional(store, key)
        finally:
            store.delete(key)
    except GraftlineError as error:
        return str(error)


def _conditional(store: Store, key: str) -> str:
    if not store.put_if_absent(key, b"1"):
        return f"{store.url}: a new key was said to exist"
    if store.put_if_absent(key, b"2"):
        return f"{store.url}: it does not honour If-None-Match: two runs would both win one claim"
    first = store.get(key).tag
    if not store.replace(key, b"3", first):
        return f"{store.url}: it refuses a write with the right If-Match"
    if store.replace(key, b"4", first):
        return f"{store.url}: it does not honour If-Match: ledger entries would be lost"
    if key not in store.list(f"{FOLDER}/"):
        return f"{store.url}: a key that was written is not listed"
    store.delete(key)
    try:
        store.get(key)
    except MissingError:
        return ""
    return f"{store.url}: a key that was deleted is still there"


def repository_fault(address: str) -> str:
    """Return "" if the repository lists its branches to us as it would to `fetch`, else why not."""
    given = with_token(address)
    try:
        refs = ls_remote(given, quiet=True).refs
    except Exception as error:  # noqa: BLE001  (dulwich raises its own, urllib3's and the system's)
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"{address}: {reason.replace(given, address)[:400]}"
    return "" if refs else f"{address}: no branches"


if __name__ == "__main__":
    main()
