"""`graftline federate TASK`: fine-tune where the data lie, in rounds, and release what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graftline.canonical import read_json
from graftline.cli.shown import plain, terminal
from graftline.cli.stores import STORE, address
from graftline.engines import local
from graftline.environment import ROOT
from graftline.federated.sites import read_sites
from graftline.tasks.documents import task_document


def federate(
    task: Annotated[str, typer.Argument(help="the task: a folder under data/, the coordinator's own")],
    sites: Annotated[Path, typer.Option("--sites", metavar="FILE", help="sites.yaml: who takes part")],
    rounds: Annotated[int | None, typer.Option("--rounds", metavar="N", help="instead of federated.rounds")] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", metavar="N", min=1, help="sites at once; default: CPUs")] = None,
    release: Annotated[bool, typer.Option(help="evaluate the last model, and publish it if the gate says so")] = True,
    store: Annotated[str, STORE] = "",
) -> None:
    """Fine-tune where the data lie: each site for itself, in rounds; average their signed updates, and release.

    Exit codes: 0 done, 2 bad input, 3 a round is below the quorum or the gate refused, 1 anything else.
    """
    from graftline.federated.rounds import Task
    from graftline.federated.rounds import federate as run_rounds

    changes = {} if rounds is None else {"federated.rounds": rounds}
    document, where = task_document(task, changes)
    found = read_sites(sites)
    url = address(store)
    local.pull_raw(task)
    try:
        local.reproduce(task, store_url=url, only=("validate", "pretrain"), on_event=lambda stage, event: None)
    except local.StageError as error:
        raise typer.Exit(error.exit_code) from None  # the component has said what was wrong
    contract, work = ROOT / "data" / task / "expectations.yaml", local.OUTPUTS / task / "federated"
    dataset, trunk = local.output_folder(task, "validate"), local.output_folder(task, "pretrain")
    given = Task(document, where, contract, dataset, trunk, url, work)
    terminal().print(f"{len(found)} sites: {', '.join(site.name for site in found)}")
    run = run_rounds(given, found, say=lambda line: terminal().print(plain(line, 2000)), jobs=jobs, release=release)
    terminal().print(f"model     {run.model(run.params.rounds)}")
    if release:
        receipt = read_json(run.home / "release" / "release.json")
        note = "" if receipt["promoted"] else f", not promoted to {receipt['alias']}"
        terminal().print(f"release   {receipt['task']}@{receipt['version']}{note}")
