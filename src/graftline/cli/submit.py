"""`graftline submit TASK`: start a run of a task on Kubeflow Pipelines."""

from __future__ import annotations

import getpass
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from graftline.cli.stores import ENDPOINT, STORE_OF_CLUSTER, Task
from graftline.engines.local import task_digest
from graftline.environment import ROOT
from graftline.images import load_images
from graftline.kubeflow_api import KubeflowApi, check_endpoint, connect
from graftline.pipelines.compile import CompiledPipeline, compiled
from graftline.pipelines.runkey import Run, work_of
from graftline.pipelines.submit import Progress, Submission
from graftline.profiles import parse_choices
from graftline.settings import load_settings
from graftline.task_data import committed_revision, data_revision
from graftline.tasks.assignments import parse_assignments

if TYPE_CHECKING:
    from collections.abc import Iterable


def submit(
    task: Task,
    profiles: Annotated[
        list[str] | None,
        typer.Option(
            "--profile",
            metavar="[STEP=]NAME",
            help="a pool of pipelines/profiles.yaml for the stages that train, one step, or `all`; repeatable",
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="a parameter of this run: finetune.epochs=3; params.yaml stays as it is; repeatable",
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="follow the run to its end")] = False,
    again: Annotated[bool, typer.Option("--again", help="run although this very run was submitted before")] = False,
    store: Annotated[str, STORE_OF_CLUSTER] = "",
    endpoint: Annotated[str, ENDPOINT] = "",
    every: Annotated[float, typer.Option("--every", min=0.0, metavar="SECONDS", help="how often --watch looks")] = 5.0,
) -> None:
    """Start a run on Kubeflow Pipelines, on the data of the commit that is checked out.

    The commit must be where the cluster clones from (`repository` in pipelines/settings.yaml). The same run is not
    started twice. A token for the server is read from $GRAFTLINE_KFP_TOKEN.
    With --watch it ends as the step that decided: 0 done, 2 bad input, 3 refused, 75 pre-empted, 1 anything else.
    Without: 0 once it is submitted.
    """
    check_endpoint(endpoint)
    pipeline = compiled(task, profiles=parse_choices(profiles or []), overrides=parse_assignments(assignments or []))
    if store:
        pipeline = replace(pipeline, parameters=pipeline.parameters | {"store": store})
    run = _plan(pipeline, again)
    settings = load_settings()
    with connect(endpoint) as client:
        api = KubeflowApi(client, namespace=settings.api_namespace, service_account=settings.service_account)
        api.check_version()
        server = Submission(api, endpoint, pipeline.parameters["store"], settings)
        submitted = server.submit(run)
        before = f"was submitted before: {submitted.before.lower()}; --again starts another"
        typer.echo(f"run       {run.name}, {before if submitted.before else 'submitted'}")
        typer.echo(f"id        {submitted.id}")
        typer.echo(f"version   {pipeline.version}")
        typer.echo(f"link      {submitted.link}")
        if not watch:
            return
        last = _show(server.follow(submitted, every), settings.namespace)
    raise typer.Exit(last.exit_code)


def _plan(pipeline: CompiledPipeline, again: bool) -> Run:
    """Return the run on the commit that is checked out; `again` makes it another run than any before."""
    commit = committed_revision(pipeline.task)
    work = work_of(
        pipeline, load_images(), data_digest=task_digest(pipeline.task), revision=data_revision(pipeline.task, ROOT)
    )
    slot = f"manual:{uuid.uuid4()}" if again else f"commit:{commit}"
    return Run(work, slot, {"kind": "person", "who": _user(), "commit": commit})


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        return "unknown"


def _show(looks: Iterable[Progress], namespace: str) -> Progress:
    """Print each step's state when it changes and why it failed, and how the run ended; return the last look."""
    console = Console(highlight=False, soft_wrap=True)
    run, known, last = "", dict[str, str](), None

    def tell(line: str) -> None:
        console.print(f"          {line}", style="red", markup=False)

    for last in looks:
        if run and last.run != run:
            console.print(f"run       {last.run} does this work; following it")
            known = {}
        run = last.run
        for step, state in last.steps.items():
            if known.get(step) != state:
                known[step] = state
                console.print(f"{step:9} {state}")
            if state == "failed" and step in last.said and f"why {step}" not in known:
                known[f"why {step}"] = last.said[step].line
                tell(f"{last.said[step].line} (exit code {last.said[step].code})")
        if last.waits != "" and known.get("waits") != str(last.waits):
            known["waits"] = str(last.waits)
            hint = f"kubectl -n {namespace} describe pods -l pipeline/runid={run}"
            tell(f"waits: {last.waits or f'Kubeflow does not say for what; see {hint}'}")
    assert last is not None  # a run that is there has a state
    assert last.end is not None
    console.print(f"ended     [bold]{last.end.state.lower()}[/]")
    if last.end.line and f"why {last.end.step}" not in known:
        tell(last.end.line)
    return last
