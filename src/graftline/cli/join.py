"""`graftline join TASK`: a site's side of federated fine-tuning."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from graftline.environment import cpu_count
from graftline.errors import InputError
from graftline.tasks.parameters import TASK_NAME


def join(
    task: Annotated[str, typer.Argument(help="the task's name, as the coordinator calls it")],
    coordinator: Annotated[
        str, typer.Option("--coordinator", metavar="DIR|s3://BUCKET/PREFIX", help="the coordinator's store, to read")
    ],
    store: Annotated[
        str, typer.Option("--store", metavar="DIR|s3://BUCKET/PREFIX", help="this site's own, where its updates appear")
    ],
    folder: Annotated[Path, typer.Option("--folder", metavar="DIR", help="this site's folder, with its data in raw/")],
    every: Annotated[float, typer.Option("--every", metavar="S", min=0.05, help="seconds between two looks")] = 10.0,
    once: Annotated[bool, typer.Option("--once", help="answer what is asked now, and end")] = False,
    threads: Annotated[int | None, typer.Option("--threads", metavar="N", min=1, help="CPU threads")] = None,
) -> None:
    """Take part in a task's federated rounds with data that stay here: answer each order until the run ends.

    The coordinator's key must be trusted here (`graftline keys trust`), and this site's be in its sites.yaml.
    """
    from graftline.federated.taking_part import Here, serve_once

    if not TASK_NAME.fullmatch(task):
        raise InputError("task", repr(task), expected="a task's name")
    here = Here(folder.absolute(), store, threads or cpu_count())
    while serve_once(here, coordinator, task) and not once:
        time.sleep(every)
