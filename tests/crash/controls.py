"""How the small trainings of images end when nobody kills them; run once a session, for all files that kill them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

import small
from kills import Case, Unbroken, cases, run_unbroken
from session import once


@dataclass(frozen=True)
class Control:
    """A case, and how it ends when nobody kills it."""

    case: Case
    unbroken: Unbroken


def control(home: Path, component: str) -> Control:
    """Return that of a component; `home` is the process's temporary folder."""
    case = cases(small.dataset(home), small.trunk(home), small.PARAMS)[component]
    return Control(case, Unbroken(**json.loads(_unbroken(home, component).read_text())))


@once
def _unbroken(home: Path, component: str) -> Path:
    case = cases(small.dataset(home), small.trunk(home), small.PARAMS)[component]
    path = home / f"unbroken-{component}.json"
    path.write_text(json.dumps(asdict(run_unbroken(case, home / "unbroken" / case.output))))
    return path
