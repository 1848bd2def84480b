"""The report of a run: one self-contained page with the data, the training, the evaluation and the lineage."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.canonical import read_json
from graftline.durable import write_atomic
from graftline.params import COMPONENTS
from graftline.records import Record, read_execution, read_record
from graftline.report.lineage import lay_out

if TYPE_CHECKING:
    from graftline.store import Store

OUTPUTS = ("dataset", "trunk", "model", "evaluation", "release")


@dataclass(frozen=True)
class Stage:
    """One component's output as the page shows it."""

    component: str
    output: str
    sha256: str
    record: str
    seconds: float | None
    metrics: Mapping[str, Any]


def write_report(outputs: Path, store: Store, out: Path) -> Path:
    """Write the page for a task's outputs and return its path.

    Args:
        outputs: the folder that holds dataset, trunk, model, evaluation and, if it was published, release.
        store: of releases, for the list of this task's versions.
        out: the page to write.

    Raises:
        InputError: an output has no record.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    names = [name for name in OUTPUTS if (outputs / name).is_dir()]
    records = {name: read_record(outputs / name) for name in names}
    environment = Environment(
        loader=PackageLoader("graftline.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("page.html.j2").render(
        **_facts(outputs, records, store), picture=lambda name: _picture(outputs / name)
    )
    write_atomic(out, page.encode())
    return out


def _facts(outputs: Path, records: dict[str, Record], store: Store) -> dict[str, Any]:
    from graftline.releases.catalogue import list_releases

    task = next(iter(records.values())).task
    decision = read_json(outputs / "evaluation/decision.json")
    receipt = read_json(outputs / "release/release.json") if "release" in records else None
    return {
        "task": task,
        "stages": [_stage(outputs / name, record) for name, record in records.items()],
        "metrics": read_json(outputs / "evaluation/metrics.json"),
        "lift": _lift_rows(read_json(outputs / "evaluation/metrics.json")),
        "decision": decision,
        "receipt": receipt,
        "data": records["dataset"].metrics,
        "lineage": lay_out(records),
        "code": _code(records["evaluation"]),
        "releases": list(reversed(list_releases(store, task)))[:10],
        "components": COMPONENTS,
    }


def _stage(folder: Path, record: Record) -> Stage:
    seconds = read_execution(folder).get("seconds")
    return Stage(record.component, record.name, record.content, record.sha256, seconds, record.metrics)


def lift_counts(metrics: Mapping[str, float]) -> list[str]:
    """Return the label counts at which evaluate measured the lift, ascending, `all` last."""
    counts = [n.removeprefix("lift_") for n in metrics if n.startswith("lift_") and f"{n}_low" in metrics]
    return sorted(counts, key=lambda count: int(count) if count.isdigit() else math.inf)


def _lift_rows(metrics: Mapping[str, float]) -> list[dict[str, Any]]:
    return [
        {
            "labels": count,
            "trunk": metrics[f"trunk_{count}"], "scratch": metrics[f"scratch_{count}"],
            "lift": metrics[f"lift_{count}"],
            "low": metrics[f"lift_{count}_low"], "high": metrics[f"lift_{count}_high"],
        }
        for count in lift_counts(metrics)
    ]  # fmt: skip


def _code(record: Record) -> list[tuple[str, str]]:
    """Return what all outputs share: the commit, a dirty diff, the lock, the image."""
    found = []
    for dependency in record.dependencies:
        if dependency["name"] in ("code", "requirements.lock", "image"):
            found += [(f"{dependency['name']}", value) for value in dependency["digest"].values()]
            dirty = dependency.get("annotations", {}).get("dirty")
            found += [("uncommitted changes", dirty)] if dirty else []
    return found


def _picture(path: Path) -> str:
    """Return a PNG as a data address."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
