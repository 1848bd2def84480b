"""What `make gpu-check` prints: lines, which its parts write into a file as they find them."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    what: str
    found: str
    ok: bool = True


def equal(what: str, first: str, second: str) -> Line:
    """Return whether two digests are equal, as a line."""
    same = first == second
    return Line(what, "equal" if same else f"differ: {first[:12]}, {second[:12]}", same)


def tried(what: str, measure: Callable[[], Iterable[Line]]) -> Iterator[Line]:
    """Yield the lines of a measurement; where it fails, a line that says so in place of the rest."""
    try:
        yield from measure()
    except Exception as error:  # noqa: BLE001  (whatever it is, the other lines are wanted)
        traceback.print_exc()
        reason = " ".join(str(error).split())
        yield Line(what, f"failed: {type(error).__name__}: {reason[:150]}", ok=False)


def read_lines(path: Path) -> list[Line]:
    """Return what a part has written; nothing of one that has written nothing."""
    if not path.exists():
        return []
    return [Line(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def write_part(parts: Mapping[str, Callable[[], Iterable[Line]]]) -> None:
    """Do what the command line `PART FILE` says: append each of the part's lines to the file at once."""
    name, path = sys.argv[1:]
    with Path(path).open("a", encoding="utf-8") as file:
        for line in tried(name, parts[name]):
            print(json.dumps(asdict(line)), file=file, flush=True)
