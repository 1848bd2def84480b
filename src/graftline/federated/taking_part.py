"""A site's part: what an order asks is fine-tuned here, and the signed update appears in the site's own store.

<folder>/raw/                         the data; they leave this folder for no other place
<folder>/expectations.yaml            a contract of the site's own, if the coordinator's does not fit its number of
                                      rows; columns and classes are the coordinator's
<folder>/federated/<run>/dataset      what validate made of them, once a run
<folder>/federated/<run>/<order>/     the round's model, the site's, the update; gone when the update is in the store
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from graftline.component import main
from graftline.digests import RECORD
from graftline.durable import exclusive, output_directory, write_atomic
from graftline.errors import InputError
from graftline.federated.orders import END, Order, fetch_order, fetch_trunk, files_of, newest_orders, prefix, runs_of
from graftline.federated.sites import CONTRACT, RAW
from graftline.federated.updates import write_update
from graftline.signing.keyring import load_keyring
from graftline.store import Store
from graftline.store.bundles import list_bundles, put_bundle
from graftline.store.opening import open_store


class NotAskedError(InputError):
    """An order for other sites than this one."""


@dataclass(frozen=True)
class Here:
    """A site, on its own machine."""

    folder: Path
    store: str
    """Its own, where its updates appear."""
    threads: int = 1
    checkpoint_seconds: float = 60.0


def take_part(here: Here, coordinator: str, task: str, run: str, name: str) -> None:
    """Answer an order, if that is not done: afterwards the update is in the site's store.

    Raises:
        NotAskedError: the order is for other sites.
        InputError: the order is not the coordinator's, or the data do not fit it.
        SystemExit: validate or finetune failed, and has said why.
    """
    ours, theirs = open_store(here.store), open_store(coordinator)
    place = prefix(task, run)
    home = here.folder / "federated" / run
    if name in list_bundles(ours, place):
        shutil.rmtree(home / name, ignore_errors=True)  # of a process that was killed just before it was done
        return
    with exclusive(home, what=f"the site in {here.folder}"):
        work = home / name
        order = fetch_order(theirs, task, run, name, work / "order")
        if (own := load_keyring().signer().keyid) not in order.sites.values():
            shutil.rmtree(work)  # the round's model is not kept for nothing
            raise NotAskedError(
                f"{theirs.url}: order {name}",
                f"this site's key {own} is not among those of {', '.join(order.sites)}",
                expected="a site that the coordinator knows",
                fix="have what `graftline keys export` prints put into its sites.yaml",
            )
        fetch_trunk(theirs, order, home / "trunk")
        write_atomic(home / CONTRACT, order.contract.encode())
        start = work / "order" / "start"
        _fine_tune(here, order, _dataset(here, order, home), home / "trunk", start, work / "model")
        with output_directory(work / "update") as aside:
            write_update(work / "model", start, aside, run=run)
        put_bundle(ours, place, name, files_of(work / "update"))
        shutil.rmtree(work)


def serve_once(here: Here, coordinator: str, task: str) -> bool:
    """Answer the newest orders of the task's runs that are not answered; return whether a run is still going on.

    Raises:
        NotAskedError: all orders are for other sites.
        InputError: both stores are one, in which each order would be taken for its own answer; or as `take_part` says.
    """
    own, theirs = open_store(here.store), open_store(coordinator)
    if own.url == theirs.url:
        raise InputError(
            "--store", own.url, expected="a store of this site's own, not the coordinator's", fix="give another place"
        )
    ours, refused = [], None
    for run in runs_of(theirs, task):
        answered = list_bundles(own, prefix(task, run))
        try:
            for name in newest_orders(theirs, task, run):
                if name not in answered:
                    print(f"round {int(name[:4])} of run {run}", file=sys.stderr)
                    take_part(here, coordinator, task, run, name)
            ours.append(run)
        except NotAskedError as error:  # such as of a run that was given up, and begun again with more sites
            refused = error
    if refused and not ours:
        raise refused
    return bool(ours) or not _has_ended(theirs, task)


def _has_ended(store: Store, task: str) -> bool:
    return any(key.endswith(f"/{END}.json") for key in store.list(f"federated/{task}/"))


def _dataset(here: Here, order: Order, home: Path) -> Path:
    """Return the dataset of this site in this run: its data as they were in its first round."""
    dataset, own = home / "dataset", here.folder / CONTRACT
    if not (dataset / RECORD).is_file():
        if not (here.folder / RAW).is_dir():
            raise InputError(here.folder / RAW, "missing", expected="the site's data")
        inputs = {"raw": here.folder / RAW, "expectations": own if own.is_file() else home / CONTRACT}
        validate = {**order.parameters["validate"], "partial": True}
        run_component(
            "validate", {**order.document, "validate": validate}, here, inputs, {"dataset": dataset}, here.store
        )
    return dataset


def _fine_tune(here: Here, order: Order, dataset: Path, trunk: Path, start: Path, model: Path) -> None:
    if not (model / RECORD).is_file():
        inputs = {"dataset": dataset, "trunk": trunk, "start": start}
        run_component("finetune", order.document, here, inputs, {"model": model})


def run_component(
    name: str,
    document: Mapping[str, object],
    here: Here,
    inputs: Mapping[str, Path],
    output: Mapping[str, Path],
    store: str = "",
) -> None:
    """Run a component's entry point in this process. Raises SystemExit with its exit code unless that is 0."""
    arguments = ["--params", json.dumps(document), "--threads", str(here.threads)]
    for option, paths in (("in", inputs), ("out", output)):
        for part, path in paths.items():
            arguments += [f"--{option}-{part}", str(path)]
    arguments += ["--checkpoint-seconds", str(here.checkpoint_seconds)]
    arguments += ["--store", store] if store else []
    try:
        main(import_module(f"graftline.components.{name}").COMPONENT, arguments)
    except SystemExit as end:
        if end.code:
            raise
