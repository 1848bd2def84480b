"""Measure what signing and recording cost a stage: `python -m bench signing`, or `python bench/signing.py`.

In new processes, imports included: open the keyring, check the signatures of four inputs, find out which code runs (a
call of git), write and sign the record. Hashing is left out: inputs and output hold a few bytes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

INPUTS = ("dataset", "trunk", "model", "evaluation")
RUNS = 9


def measure(work: Path) -> dict[str, float]:
    """Return the median seconds of RUNS stages, and of them what the signatures alone take."""
    environment = os.environ | {"GRAFTLINE_KEYS": str(work / "keys"), "PYTHONDONTWRITEBYTECODE": ""}
    found = []
    for number in range(RUNS + 1):  # the first makes the key and the inputs, and is not counted
        command = [sys.executable, __file__, "--stage", str(work), str(number)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, encoding="utf-8", check=True)
        found.append(json.loads(done.stdout))
    return {name: statistics.median(each[name] for each in found[1:]) for name in found[0]}


def stage(work: Path, number: int) -> dict[str, float]:
    """Do what a stage does beside its work; return the seconds of all, and of signing alone."""
    import graftline.component  # noqa: F401  (loaded by each entry point, signing or not)

    started = time.perf_counter()
    from graftline import records

    imported = time.perf_counter()
    from graftline.signing.keys import load_keyring

    signer = load_keyring().signer()
    if number == 0:
        for name in INPUTS:
            _write(work / name, name)
    for name in INPUTS:
        records.check_signature(work / name)
    ready = time.perf_counter()
    out = work / str(number)
    out.mkdir()
    (out / "content").write_bytes(b"content")
    draft = records.Draft("publish", "bench", "release")
    drafted = time.perf_counter()
    records.write_record(out, draft, signer)
    written = time.perf_counter()
    return {"all": written - started, "signing": (ready - imported) + (written - drafted)}


def _write(folder: Path, name: str) -> None:
    from graftline import records

    folder.mkdir()
    (folder / "content").write_bytes(name.encode())
    records.write_record(folder, records.Draft("validate", "bench", name))


def main() -> None:
    if sys.argv[1:2] == ["--stage"]:
        print(json.dumps(stage(Path(sys.argv[2]), int(sys.argv[3]))))
        return
    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as work:
        print(json.dumps(measure(Path(work)), indent=2))


if __name__ == "__main__":
    main()
