"""What rounds over ten sites bring on real digits: `python -m bench.federated`, at most 5 minutes on one CPU.

Of the 5,000 digits of mnist, 1,500 are the coordinator's: half of them test, on the others without labels the trunk is
pretrained. 2,000 more lie at the sites: of each class, shares by Dirichlet(0.3) (Hsu et al., arXiv:1909.06335), so
that no site has all classes in fair numbers. Seeds and settings stand here and were chosen before the test rows were
looked at.

Printed are, from the trunk and from scratch, the accuracy on the coordinator's test rows by round, the bytes that
travelled until 0.95, and beside them the same fine-tuning at each site alone and on all sites' rows in one place.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from graftline.component import main as run_component
from graftline.dataset import read_schema
from graftline.digests import RECORD
from graftline.environment import ROOT
from graftline.federated.orders import prefix
from graftline.federated.rounds import Federation, Task, federate
from graftline.federated.sites import Site, read_sites
from graftline.problems.fit import Data, fit
from graftline.problems.model import load_model
from graftline.problems.reading import read_examples
from graftline.problems.registry import make_problem
from graftline.problems.weighing import answer
from graftline.store.opening import open_store
from graftline.tasks.finetune import FinetuneParams

GOAL = 0.95
SITES, ALPHA, SEED, OF_COORDINATOR, OF_SITES = 10, 0.3, 0, 1500, 2000
CONTRACT = """\
columns:
  image: {type: image, shape: [28, 28], min: 0, max: 255}
  label: {type: integer, role: label, classes: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}
"""
AT_A_SITE = {"test_fraction": 0.05, "val_fraction": 0.05}
FINETUNE = {"batch": 32, "warmup_steps": 0, "learning_rate": 0.003}
PRETRAIN = {"epochs": 60, "trunk": {"name": "conv", "channels": [8, 16, 32], "width": 64}}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.federated", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="(default: %(default)s)")
    parser.add_argument("--local-epochs", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument(
        "--folder", type=Path, help="to work in, and to go on in after a kill (default: a temporary one)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="graftline-bench-") as temporary:
        home = Path(arguments.folder or temporary)
        os.environ |= {"GRAFTLINE_KEYS": f"{home}/keys", "GRAFTLINE_CACHE": f"{home}/cache"}
        measure(home, arguments.rounds, arguments.local_epochs)
    print(f"\n{time.monotonic() - began:.0f} s")


def measure(home: Path, rounds: int, local_epochs: int) -> None:
    """Print the tables."""
    table = pq.read_table(ROOT / "data" / "mnist" / "raw" / "images.parquet")
    order = np.random.default_rng(SEED).permutation(len(table))
    own, others = (
        table.take(pa.array(np.sort(part))) for part in np.split(order, [OF_COORDINATOR, OF_COORDINATOR + OF_SITES])[:2]
    )
    dataset, trunk = coordinator(home, own)
    sites = lay_out(home, others)
    task = Task(
        {"task": "digits", "validate": AT_A_SITE, "finetune": FINETUNE}, "bench", home / "expectations.yaml",
        dataset, trunk, str(home / "store"), home / "runs",
    )  # fmt: skip
    runs = {}
    for start in ("trunk", "scratch"):
        section = {"rounds": rounds, "local_epochs": local_epochs, "start": start}
        given = replace(task, document={**task.document, "federated": section})
        runs[start] = federate(given, sites, say=lambda line: print(line, file=sys.stderr, flush=True))
    params = FinetuneParams.model_validate({**FINETUNE, "epochs": rounds * local_epochs, "min_steps": 1})
    shown = {start: show_rounds(run, accuracies(run), start) for start, run in runs.items()}
    print("\n| fine-tuned | from the trunk | from scratch |\n| --- | --- | --- |")
    print(f"| federated, after {rounds} rounds of {local_epochs} epochs | {shown['trunk']} | {shown['scratch']} |")
    everything = home / "central"
    write(everything, others)
    validate(everything, everything / "dataset", AT_A_SITE | {"partial": True})
    alone = [site.folder / "federated" / runs["trunk"].order.run / "dataset" for site in sites if site.folder]
    for name, places in (("all rows in one place", [everything / "dataset"]), ("each site alone", alone)):
        cells = []
        for scratch in (False, True):
            found = [trained(place, trunk, dataset, params, scratch=scratch) for place in places]
            spread = f" (mean; {min(found):.3f} to {max(found):.3f})" if len(found) > 1 else ""
            cells.append(f"{statistics.fmean(found):.3f}{spread}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def write(folder: Path, table: pa.Table) -> None:
    (folder / "raw").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "raw" / "rows.parquet")
    (folder / "expectations.yaml").write_text(CONTRACT, encoding="utf-8")


def validate(folder: Path, out: Path, params: dict[str, Any]) -> None:
    component("validate", {"validate": params}, in_raw=folder / "raw", in_expectations=folder / "expectations.yaml",
              out_dataset=out, store=folder / "store")  # fmt: skip


def component(name: str, document: dict[str, Any], **paths: Path) -> None:
    """Run a component here, if its output is not there; it must succeed."""
    if any((path / RECORD).is_file() for option, path in paths.items() if option.startswith("out")):
        return
    arguments = ["--params", json.dumps({"task": "digits", **document}), "--threads", "1"]
    for option, path in paths.items():
        arguments += [f"--{option.replace('_', '-')}", str(path)]
    run_component(import_module(f"graftline.components.{name}").COMPONENT, arguments)


def coordinator(home: Path, table: pa.Table) -> tuple[Path, Path]:
    """Return the coordinator's dataset, and the trunk that it pretrains on the pictures of it that are no test rows."""
    write(home, table)
    validate(home, home / "dataset", {"test_fraction": 0.5, "val_fraction": 0.05})
    component("pretrain", {"pretrain": PRETRAIN}, in_dataset=home / "dataset", out_trunk=home / "trunk")
    return home / "dataset", home / "trunk"


def split(table: pa.Table, sites: int, alpha: float, seed: int) -> list[pa.Table]:
    """Return the rows of each site: of each class, shares by Dirichlet(alpha)."""
    draw, labels = np.random.default_rng(seed), table["label"].to_numpy()
    chosen: list[list[int]] = [[] for _ in range(sites)]
    for label in np.unique(labels):
        rows = draw.permutation(np.flatnonzero(labels == label))
        ends = np.round(np.cumsum(draw.dirichlet([alpha] * sites)) * len(rows)).astype(int)
        for site, part in enumerate(np.split(rows, ends[:-1])):
            chosen[site] += part.tolist()
    return [table.take(pa.array(sorted(rows))) for rows in chosen]


def lay_out(home: Path, table: pa.Table) -> list[Site]:
    """Return the sites, each with its folder and its store."""
    lines = ["sites:"]
    for number, part in enumerate(split(table, SITES, ALPHA, SEED)):
        write(home / "sites" / f"{number:02d}", part)
        lines.append(f'- {{name: "{number:02d}", folder: sites/{number:02d}, store: sites/{number:02d}/store}}')
        counts = np.bincount(part["label"].to_numpy(), minlength=10)
        print(f"site {number:02d}: {len(part):4} rows, of each class {counts.tolist()}")
    (home / "sites.yaml").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return read_sites(home / "sites.yaml")


def accuracies(run: Federation) -> list[float]:
    """Return the accuracy on the coordinator's test rows of each round's model, the first one's too."""
    return [
        accuracy(load_model(run.model(number)), run.task.dataset, run.task.trunk)
        for number in range(run.params.rounds + 1)
    ]


def accuracy(model: Any, dataset: Path, trunk: Path) -> float:
    schema = read_schema(dataset)
    problem = make_problem(FinetuneParams.model_validate(FINETUNE).head, schema)
    return float(answer(model, read_examples(problem, dataset, "test", trunk)).value)


def show_rounds(run: Federation, found: list[float], start: str) -> str:
    """Print the accuracy by round and what travelled; return the last accuracy, and when the goal was reached."""
    print(f"\nfrom {start}, by round: " + " ".join(f"{value:.3f}" for value in found))
    place = prefix(run.task.name, run.order.run)
    up = sum(bytes_below(site.store, place) for site in run.sites) / run.params.rounds
    down = bytes_below(run.task.store, f"{place}/00") / run.params.rounds * len(run.sites)
    trunk = bytes_below(run.task.store, f"{place}/trunk") * len(run.sites)
    reached = next((number for number, value in enumerate(found) if value >= GOAL), None)
    told = f"a round: {up / 1e6:.2f} MB up, {down / 1e6:.2f} MB down; once, the trunk: {trunk / 1e6:.2f} MB"
    print(told)
    if reached is None:
        return f"{found[-1]:.3f}; {GOAL} not reached"
    return f"{found[-1]:.3f}; {GOAL} after {reached} rounds, {(reached * (up + down) + trunk) / 1e6:.1f} MB"


def bytes_below(url: str, start: str) -> int:
    store = open_store(url)
    return sum(store.stat(key).size for key in store.list(start))


def trained(data: Path, trunk: Path, dataset: Path, params: FinetuneParams, *, scratch: bool) -> float:
    """Return the accuracy on the coordinator's test rows of what is fine-tuned from one dataset's train rows."""
    schema = read_schema(data)
    train = read_examples(make_problem(params.head, schema), data, "train", trunk)
    model = fit(trunk, Data(train, None), params, params.seed, schema, scratch=scratch)
    return accuracy(model, dataset, trunk)


if __name__ == "__main__":
    main()
