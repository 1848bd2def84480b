"""Sites of the small task of digits and a coordinator over folders, as tests and the runs that are killed make them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import small

from graftline.federated.rounds import Federation, Task, federate
from graftline.federated.sites import Site, read_sites
from graftline.records.folder import verify

DOCUMENT: dict[str, Any] = {
    "task": small.TASK,
    "validate": {"test_fraction": 0.1, "val_fraction": 0.1},
    "finetune": {"batch": 32, "warmup_steps": 0},
    "evaluate": small.PARAMS["evaluate"],
    "federated": {"rounds": 2},
}


def write_site(folder: Path, table: pa.Table) -> None:
    """Write the data of a site into its folder."""
    (folder / "raw").mkdir(parents=True)
    pq.write_table(table, folder / "raw" / "rows.parquet")


def write_sites(folder: Path, tables: dict[str, pa.Table], **more: dict[str, str]) -> list[Site]:
    """Write sites that run here, each with its own folder and store below `folder`; return them.

    `more` are lines for sites.yaml of sites that run elsewhere, by name.
    """
    lines = []
    for name, table in tables.items():
        if not (folder / name).exists():
            write_site(folder / name, table)
        lines.append(f"- {{name: {name}, folder: {name}, store: {name}/store}}")
    lines += [f"- {{name: {name}, store: {of['store']}, key: {of['key']}}}" for name, of in more.items()]
    (folder / "sites.yaml").write_text("\n".join(["sites:", *lines, ""]))
    return read_sites(folder / "sites.yaml")


def coordinator(folder: Path, dataset: Path, trunk: Path, **federated: Any) -> Task:
    """Return what a coordinator has, with its work and its store in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "expectations.yaml").write_text(small.CONTRACT)
    document = DOCUMENT | {"federated": DOCUMENT["federated"] | federated}
    store, work = str(folder / "store"), folder / "runs"
    contract = folder / "expectations.yaml"
    return Task(document, "params.yaml", contract, dataset, trunk, store, work, checkpoint_seconds=0.05)


def thirds(table: pa.Table) -> dict[str, pa.Table]:
    """Return the rows of three sites: unlike in number, and with few of some classes."""
    labels = table["label"].to_numpy()
    where = {
        "east": [n for n in range(len(table)) if labels[n] < 4 and n % 2],
        "north": [n for n in range(len(table)) if labels[n] > 2 and n % 2 == 0],
        "south": [n for n in range(len(table)) if n % 4 == 1],
    }
    return {name: table.take(pa.array(rows)) for name, rows in where.items()}


def quiet(line: str) -> None:
    """Say nothing."""


def die(*given: object) -> None:
    """Be killed."""
    os.kill(os.getpid(), signal.SIGKILL)


def model_digest(run: Federation) -> str:
    """Return the digest of the last model."""
    return verify(run.model(run.params.rounds)).content


__all__ = ["coordinator", "federate", "model_digest", "quiet", "thirds", "write_site", "write_sites"]
