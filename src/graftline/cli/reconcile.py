"""`graftline reconcile` and `graftline drift`: schedules and runs that follow git."""

from __future__ import annotations

import json
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graftline.cli.shown import cell, table, terminal
from graftline.cli.stores import ENDPOINT, STORE, open_given
from graftline.durable import exclusive
from graftline.errors import EXIT_INPUT, BackendError, BusyError, GraftlineError
from graftline.kubeflow_api import KubeflowApi, check_endpoint, connect
from graftline.pipelines.reconcile.agenda import Agenda
from graftline.pipelines.reconcile.cluster import RunsOfCluster
from graftline.pipelines.reconcile.drift import exit_code, rows
from graftline.pipelines.reconcile.kubeflow import KubeflowBackend
from graftline.pipelines.reconcile.local import LocalBackend, lock_path
from graftline.pipelines.reconcile.planning import Actual, plan
from graftline.pipelines.reconcile.repository import GitRepository
from graftline.settings import load_settings
from graftline.store.lease import RECONCILE, Lease
from graftline.store.opening import open_store

if TYPE_CHECKING:
    from graftline.pipelines.reconcile.desired import Desired
    from graftline.pipelines.reconcile.reconcile import Backend, Outcome
    from graftline.store import Store

PAUSE_SECONDS = 2.0
"""Between two tries of calls that failed."""
TRY_AGAIN = 75
"""EX_TEMPFAIL of sysexits.h."""


class Place(StrEnum):
    """Where runs happen."""

    KUBEFLOW = "kubeflow"
    LOCAL = "local"


BACKEND = typer.Option("--backend", help="Kubeflow Pipelines, or DVC on this machine")
JSON = typer.Option("--json", help="print JSON")


def reconcile(
    backend: Annotated[Place, BACKEND] = Place.KUBEFLOW,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the next steps and do nothing")] = False,
    as_json: Annotated[bool, JSON] = False,
    endpoint: Annotated[str, ENDPOINT] = "",
    store: Annotated[str, STORE] = "",
) -> None:
    """Start what pipelines/schedules.yaml wants at the commit that is checked out; record how runs ended.

    The same again changes nothing more, whenever the last one was stopped. A token for Kubeflow is read from
    $GRAFTLINE_KFP_TOKEN. Exit codes: 0 all is as declared; 75 run it again: a call failed or its outcome is not known
    yet, another reconcile is at work, or what a schedule wants could not be told; 2 bad input, 1 anything else.
    """
    try:
        with _opened(backend, endpoint, store) as scene:
            if dry_run:
                desired, actual, now = scene.look()
                steps = plan(desired, actual, now)
                _print_steps([str(action) for action in steps.actions], desired, as_json)
                return
            outcome = scene.act()
    except BackendError as error:  # what is there could not be told
        typer.echo(f"graftline: {error}", err=True)
        raise typer.Exit(TRY_AGAIN) from None
    if outcome is None:
        typer.echo("another reconcile is at work; nothing done")
        raise typer.Exit(TRY_AGAIN)
    _print_outcome(outcome, as_json)
    if not outcome.settled:
        raise typer.Exit(TRY_AGAIN)


def drift(
    backend: Annotated[Place, BACKEND] = Place.KUBEFLOW,
    as_json: Annotated[bool, JSON] = False,
    endpoint: Annotated[str, ENDPOINT] = "",
    store: Annotated[str, STORE] = "",
) -> None:
    """Print what pipelines/schedules.yaml wants against what is there.

    Exit codes: 0 the same, 1 drift, 2 it could not be told.
    """
    try:
        with _opened(backend, endpoint, store) as scene:
            found = rows(*scene.look())
    except GraftlineError as error:  # with exit code 1 it would read as drift
        typer.echo(f"graftline: it could not be told: {error}", err=True)
        raise typer.Exit(EXIT_INPUT) from None
    _print_rows(found, as_json)
    raise typer.Exit(exit_code(found))


@dataclass
class Scene:
    """One backend, what the commit wants of it, and the way to reconcile the two."""

    backend: Backend
    agenda: Agenda
    act: Callable[[], Outcome | None]

    def look(self) -> tuple[Desired, Actual, datetime]:
        now = _now()
        desired = self.agenda.desired(now)
        return desired, self.backend.observe(desired, now), now


@contextmanager
def _opened(place: Place, endpoint: str, store_url: str) -> Iterator[Scene]:
    if place is Place.LOCAL:
        yield _local(open_given(store_url))
    else:
        with _kubeflow(endpoint, store_url) as scene:
            yield scene


def _local(store: Store) -> Scene:
    from graftline.pipelines.reconcile.reconcile import reconcile

    repository = GitRepository(local=True, store_url=store.url)
    backend, agenda = LocalBackend(store, commit=repository.commit), Agenda(repository, store)

    def act() -> Outcome | None:
        with ExitStack() as stack:
            try:
                stack.enter_context(exclusive(lock_path(), what="reconcile"))
            except BusyError:
                return None
            return reconcile(backend, agenda, _now, on_action=_say)

    return Scene(backend, agenda, act)


@contextmanager
def _kubeflow(endpoint: str, store_url: str) -> Iterator[Scene]:
    from graftline.pipelines.reconcile.reconcile import reconcile

    check_endpoint(endpoint, otherwise=", or use --backend local")
    settings = load_settings()
    store = open_store(store_url or settings.store)  # runs are told the same one
    repository = GitRepository(store_url=store.url)
    agenda = Agenda(repository, store)

    with connect(endpoint) as client:
        api = KubeflowApi(client, namespace=settings.api_namespace, service_account=settings.service_account)
        api.check_version()
        cluster = RunsOfCluster(settings.namespace)
        backend = KubeflowBackend(
            api,
            store,
            ghosts=cluster.ghosts,
            manifests=repository.manifests,
            deadline=timedelta(hours=settings.deadline_hours),
        )

        def act() -> Outcome | None:
            lease = Lease(store, RECONCILE, uuid.uuid4().hex)
            with _ends_in_order():
                if not lease.acquire(_now()):
                    return None
                with lease.renewed(_now):
                    outcome = reconcile(
                        backend,
                        agenda,
                        _now,
                        on_action=lambda action: lease.check(_now()),
                        pause=lambda: time.sleep(PAUSE_SECONDS),
                    )
                    cluster.clean(store, _now())
                    return outcome

        yield Scene(backend, agenda, act)


@contextmanager
def _ends_in_order() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that a pod that is taken away gives its lease back."""

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _now() -> datetime:
    return datetime.now(UTC)


def _say(action: object) -> None:
    """Name a run before it starts, which takes its time; what is printed at the end goes elsewhere."""
    if action is not None:
        typer.echo(f"graftline: {action}", err=True)


def _print_steps(steps: list[str], desired: Desired, as_json: bool) -> None:
    unknown = [f"{one.schedule}: {one.reason}" for one in desired.unknown]
    if as_json:
        typer.echo(json.dumps({"next": steps, "unknown": unknown}, indent=1))
        return
    for line in [*steps, *(f"cannot tell {line}" for line in unknown)] or ["nothing to do"]:
        typer.echo(line)


def _print_outcome(outcome: Outcome, as_json: bool) -> None:
    done = [str(action) for action in outcome.done]
    failures, left = list(outcome.failures), [str(action) for action in outcome.left]
    unsettled, queued = [run.name for run in outcome.unsettled], [run.name for run in outcome.queued]
    unknown = [f"{one.schedule}: {one.reason}" for one in outcome.unknown]
    if as_json:
        lists = {"done": done, "failures": failures, "left": left, "unsettled": unsettled, "queued": queued}
        lists["unknown"] = unknown
        typer.echo(json.dumps({"settled": outcome.settled} | lists, indent=1))
        return
    for label, lines in (
        ("done", done),
        ("failed", failures),
        ("to do", left),
        ("not known yet", unsettled),
        ("waits", queued),
        ("cannot tell", unknown),
    ):
        for line in lines:
            typer.echo(f"{label:14} {line}")
    if not done and outcome.settled:
        typer.echo("nothing to do")


def _print_rows(found: list[Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in found], indent=1))
        return
    listed = table("schedule or run", "desired", "actual", "", grid=True)
    for row in found:
        listed.add_row(*(cell(value, limit=1000) for value in (row.name, row.desired, row.actual, row.verdict)))
    terminal().print(listed if found else "no schedules, and nothing there")
