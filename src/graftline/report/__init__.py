"""The report of a run: one self-contained page with the data, the training, the evaluation and the lineage."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from graftline.canonical import read_json
from graftline.durable import write_atomic
from graftline.lift_names import lift_counts
from graftline.plan import compare
from graftline.records.folder import read_execution, read_record
from graftline.records.model import Record
from graftline.releases.catalogue import list_releases
from graftline.report.lineage import lay_out
from graftline.score import primary_name, told_primary, told_scores

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
    code: str


def write_report(outputs: Path, store: Store, out: Path) -> Path:
    """Write the page for a task's outputs and return its path.

    Args:
        outputs: the folder that holds dataset, trunk, model, evaluation and, if it was published, release.
        store: of releases, for the list of this task's versions.
        out: the page to write.

    Raises:
        InputError: an output has no record.
    """
    names = [name for name in OUTPUTS if (outputs / name).is_dir()]
    records = {name: read_record(outputs / name) for name in names}
    page = _template().render(
        **_facts(outputs, records, store),
        picture=lambda name: _picture(outputs / name),
        has=lambda name: (outputs / name).is_file(),
    )
    write_atomic(out, page.encode())
    return out


@cache
def _template() -> Template:
    """Return the page's template, compiled once a process."""
    environment = Environment(
        loader=PackageLoader("graftline.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


def _facts(outputs: Path, records: dict[str, Record], store: Store) -> dict[str, Any]:
    task = next(iter(records.values())).task
    metrics = read_json(outputs / "evaluation/metrics.json")
    lift = _optional(outputs / "evaluation/lift.json") or {}
    return {
        "task": task,
        "stages": [_stage(outputs / name, record) for name, record in records.items()],
        "scores": told_scores(metrics),
        "primary": told_primary(metrics),
        "primary_name": primary_name(metrics),
        "unseen": _unseen(metrics, _optional(outputs / "model/metrics.json") or {}),
        "lift": _lift_rows(metrics),
        "amount": lift.get("amount", "labels a class"),
        "probed": lift.get("probed", []),
        "classes": _optional(outputs / "evaluation/classes.json") or [],
        "mistakes": _optional(outputs / "evaluation/mistakes.json"),
        "samples": _optional(outputs / "evaluation/samples.json"),
        "sections": _optional(outputs / "evaluation/sections.json") or [],
        "n_test_rows": metrics.get("n_test_rows", 0),
        "decision": read_json(outputs / "evaluation/decision.json"),
        "receipt": _receipt(outputs / "release", records),
        "data_report": _embedded((outputs / "dataset/report.html").read_text(encoding="utf-8")),
        "drift": read_execution(outputs / "dataset").get("drift"),
        "lineage": lay_out(records),
        "plan": compare(outputs),
        "releases": list(reversed(list_releases(store, task)))[:10],
    }


def _unseen(measured: Mapping[str, float], trained: Mapping[str, float]) -> list[str]:
    """Return what to say of inputs that the model does not see whole, or cannot tell from others."""
    found = []
    for split, metrics in (("training", trained), ("test", measured)):
        name = "train" if split == "training" else "test"
        if metrics.get(f"{name}_cut"):
            rows, share = metrics[f"{name}_cut"], metrics[f"{name}_tokens_cut"]
            found.append(
                f"{rows:,} {split} rows are longer than the model reads: {share:.1%} of all {split} tokens are cut off."
            )
    for metrics, name, what in (
        (trained, "train_alike", "training rows are equal to an earlier one"),
        (measured, "test_seen", "test rows are equal to a training row"),
    ):
        if metrics.get(name):
            conflicts = metrics.get(f"{name}_conflicts")
            end = f"; {conflicts:,} of them have a label that the others have not." if conflicts else "."
            found.append(f"To the model, which sees tokens, {metrics[name]:,} {what}{end}")
    return found


def _optional(path: Path) -> Any:
    """Return what a JSON file says, or None where the head has no such thing."""
    return read_json(path) if path.is_file() else None


def _receipt(folder: Path, records: dict[str, Record]) -> Any:
    """Return publish's receipt, or None if there is none or it is about an earlier evaluation."""
    if "release" not in records:
        return None
    current = records["evaluation"].sha256 in [given.record for given in records["release"].inputs]
    return read_json(folder / "release.json") if current else None


def _embedded(page: str) -> Markup:
    """Return the data report to stand in a shadow root: its styles reach nothing outside of it, nor ours it.

    validate made it with every value escaped, and its digest is in the dataset's record.
    """
    style = page[page.index("<style>") : page.index("</style>") + len("</style>")].replace(":root", ":host")
    body = page[page.index("<main>") : page.index("</main>") + len("</main>")]
    return Markup(style + body)  # noqa: S704  (escaped by validate)


def _stage(folder: Path, record: Record) -> Stage:
    seconds = read_execution(folder).get("seconds")
    return Stage(record.component, record.name, record.content, record.sha256, seconds, _code(record))


def _lift_rows(metrics: Mapping[str, float]) -> list[dict[str, Any]]:
    return [
        {
            "labels": count,
            "trunk": metrics[f"trunk_{count}"],
            "scratch": metrics[f"scratch_{count}"],
            "lift": metrics[f"lift_{count}"],
            "low": metrics[f"lift_{count}_low"],
            "high": metrics[f"lift_{count}_high"],
        }
        for count in lift_counts(metrics)
    ]


def _code(record: Record) -> str:
    """Return the commit that made an output, and whether the work tree differed from it."""
    return record.commit[:12] + (" with changes" if record.dirty else "") if record.commit else ""


def _picture(path: Path) -> str:
    """Return a PNG as a data address."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
