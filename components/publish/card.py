"""The model card: README.md of a release, written from records and measurements only.

It says nothing that differs between two runs with the same result (no version, time or commit): it is part
of the release's content digest. Its head is the metadata block of Hugging Face model cards
(https://huggingface.co/docs/hub/model-cards).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from graftline.privacy.promise import outside, told
from graftline.records.model import Record, flat
from graftline.tasks.publish import PublishParams


def model_card(
    task: str,
    params: PublishParams,
    records: Mapping[str, Record],
    metrics: Mapping[str, Any],
    plots: list[str],
    promise: Mapping[str, Any] | None = None,
) -> str:
    """Return the card as Markdown; `promise` is what a private model says of itself."""
    contents = sorted((name, f"`{record.content}`") for name, record in records.items())
    return "\n".join(
        [
            "---", f"license: {json.dumps(params.licence)}", "tags: [graftline]", "---", "",
            f"# {task}", "", params.intended_use.strip(), "",
            f"Licence: {params.licence}. What the data is and where it is from: `data/{task}/README.md`.", "",
            *(_promised(promise) if promise else ()),
            "## Measured", "",
            *_table(("metric", "value"), sorted(_scalars(metrics))), "",
            *(line for name in plots for line in (f"![{name.removesuffix('.png')}]({name})", "")),
            "## Data", "",
            *_table(("count", "value"), sorted(_scalars(records["dataset"].metrics))), "",
            "## Parameters", "",
            *_table(("parameter", "value"), sorted(_parameters(records))), "",
            "## Made from", "",
            *_table(("part", "sha256 of its content"), contents), "",
            "Each part's record, in `records/`, names the inputs, code and environment that made it.", "",
        ]
    )  # fmt: skip


def _promised(promise: Mapping[str, Any]) -> list[str]:
    lines = [*told(promise), "It says nothing about:"]
    paragraphs = [text for line in lines for text in (line, "")]
    return ["## What it promises", "", *paragraphs, *(f"- {line}" for line in outside(promise)), ""]


def _table(head: tuple[str, str], rows: list[tuple[str, Any]]) -> list[str]:
    return [f"| {head[0]} | {head[1]} |", "| --- | --- |", *(f"| {name} | {_cell(value)} |" for name, value in rows)]


def _cell(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _scalars(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in values.items() if isinstance(value, int | float | str)]


def _parameters(records: Mapping[str, Record]) -> list[tuple[str, Any]]:
    """Return each parameter that made the trunk and the model, by dotted name."""
    merged = records["trunk"].parameters | records["model"].parameters
    return list(flat(merged).items())
