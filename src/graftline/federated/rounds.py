"""The coordinator's story: a first model, then in each round an order, the sites' updates, their average, an entry.

    <folder>/<run>/<round>/updates/   what the round gathered, whole before it is judged; gone when it is in the ledger
    <folder>/<run>/<round>/model/     the model that it made, with the round's account in its record
    <folder>/<run>/logs/              what the coordinator's and each site's process said

Each step finds what it finished before: killed at any moment and run again, it makes the same models.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from graftline.canonical import canonical_json
from graftline.digests import ENVELOPE, RECORD
from graftline.durable import exclusive, output_directory, write_new
from graftline.environment import code_revision, cpu_count
from graftline.errors import EXIT_INPUT, EXIT_PREEMPTED, EXIT_REFUSED, GraftlineError, InputError, RefusalError, brief
from graftline.federated.account import GATHERED, Gathered, asked_of, enter, examine, keep_record
from graftline.federated.orders import Order, prefix, put_end, put_order, run_id
from graftline.federated.sites import CACHE, KEYS, Site
from graftline.federated.taking_part import Here, run_component, take_part
from graftline.federated.updates import FILE, RUN
from graftline.federated.workers import Done, Worker
from graftline.records.folder import verify
from graftline.signing.keyring import add_trusted, load_keyring
from graftline.store import Store
from graftline.store.bundles import get_bundle, list_bundles
from graftline.store.opening import open_store
from graftline.tasks.evaluate import EvaluateParams
from graftline.tasks.federated import FederatedParams
from graftline.tasks.finetune import FinetuneParams
from graftline.tasks.parameters import Params, section, task_name
from graftline.tasks.validate import ValidateParams

TRIES = 3
"""How often a site that runs here, or aggregate, is started in a round if it dies."""
_POLL = 1.0
"""Seconds between two looks into the stores of sites that run elsewhere."""
_BUSY = 0.2
"""Seconds until a step is tried again whose place another process still holds."""
_BESIDE_WEIGHTS = 1 << 20
"""Bytes of an update besides its tensors, at most."""


@dataclass(frozen=True)
class Task:
    """What the coordinator has."""

    document: Mapping[str, Any]
    """The task's parameters."""
    where: str
    """Their name, for errors."""
    contract: Path
    dataset: Path
    """The coordinator's own: what calibrates, evaluates and is released with the model."""
    trunk: Path
    store: str
    """The coordinator's."""
    folder: Path
    """For the rounds' work."""
    checkpoint_seconds: float = 60.0
    """Between two checkpoints of a site that runs here."""

    @property
    def name(self) -> str:
        return task_name(dict(self.document), self.where)


@dataclass
class Federation:
    """A federated run."""

    task: Task
    sites: list[Site]
    params: FederatedParams
    order: Order
    """Of no round: what all orders have in common."""
    say: Callable[[str], None]
    jobs: int
    workers: dict[str, Worker] = field(default_factory=dict)
    """By site; the coordinator's own under an empty name."""

    @property
    def home(self) -> Path:
        return self.task.folder / self.order.run

    def place(self, number: int) -> Path:
        """Return the folder of a round's work."""
        return self.home / f"{number:04d}"

    def model(self, number: int) -> Path:
        """Return the folder of the model that a round makes; of round 0, the one that the first round starts from."""
        return self.place(number) / "model"

    def worker(self, site: Site | None) -> Worker:
        """Return the process of a site that runs here, or the coordinator's."""
        name = site.name if site else ""
        if name not in self.workers:
            logs = self.home / "logs"
            logs.mkdir(parents=True, exist_ok=True)
            log = logs / f"{name or '_'}.log"  # no site is called so
            self.workers[name] = Worker(name or "coordinator", _environment(self.task, site), log)
        return self.workers[name]


def federate(
    task: Task, sites: list[Site], *, say: Callable[[str], None] = print, jobs: int | None = None, release: bool = False
) -> Federation:
    """Run all rounds; return the run, whose last model lies in `model(params.rounds)`.

    Args:
        task: what the coordinator has.
        sites: who takes part, in the order of their names.
        say: told of each round in a line.
        jobs: sites that compute at once on this machine; by default as many as it has CPUs.
        release: evaluate the last model and publish it, as any other.

    Raises:
        RefusalError: fewer updates than the quorum went into a round, which is in the ledger; or the gate said no.
        InputError: parameters, sites or outputs do not fit.
        GraftlineError: a step of the coordinator failed.
    """
    run = _federation(task, sites, say, jobs or cpu_count())
    with exclusive(run.home, what=f"the federated run of {task.name}"), _stopped_at_the_end(run):
        store = open_store(task.store)
        for output in (task.dataset, task.trunk):
            keep_record(store, output)
        for number in range(run.params.rounds + 1):
            _round(run, store, number)
        put_end(store, task.name, run.order.run, run.home / "end")
        if release:
            _release(run)
    return run


def _federation(task: Task, sites: list[Site], say: Callable[[str], None], jobs: int) -> Federation:
    document = dict(task.document)
    models: dict[str, type[Params]] = {
        "validate": ValidateParams,
        "finetune": FinetuneParams,
        "federated": FederatedParams,
    }
    checked: dict[str, Any] = {name: section(document, task.where, name, model) for name, model in models.items()}
    params: FederatedParams = checked["federated"]
    params.check_with(checked, task.where)
    if section(document, task.where, "evaluate", EvaluateParams).membership is not None:
        raise InputError(
            f"{task.where}: evaluate.membership", "beside federated rounds",
            expected="null: the rows that were learned from are at the sites", fix="leave it out",
        )  # fmt: skip
    if params.quorum > len(sites):
        raise InputError(f"{task.where}: federated.quorum", str(params.quorum), expected=f"at most {len(sites)} sites")
    if shared := [site.name for site in sites if site.store.rstrip("/") == task.store.rstrip("/")]:
        raise InputError(
            "sites.yaml", f"the store of {shared[0]} is the coordinator's", expected="a store of the site's own",
            fix="give it another place: there each order would be taken for its own answer",
        )  # fmt: skip
    told = {name: values.model_dump(mode="json") for name, values in checked.items()}
    dataset, trunk = verify(task.dataset), verify(task.trunk)
    asked = {site.name: site.key.keyid for site in sites}
    facts = {
        "task": task.name, "parameters": told, "dataset": dataset.content, "trunk": trunk.content, "sites": asked,
    }  # fmt: skip
    contract = task.contract.read_text(encoding="utf-8")
    order = Order(task.name, run_id(facts), 0, "", trunk.content, told, contract, asked)
    return Federation(task, sites, params, order, say, jobs)


@contextmanager
def _stopped_at_the_end(run: Federation) -> Iterator[None]:
    try:
        yield
    finally:
        for worker in run.workers.values():
            worker.stop()


def _environment(task: Task, site: Site | None) -> dict[str, str]:
    """Return the environment of a process: of a site that runs here, with its own keys, as if it ran elsewhere."""
    own = dict(os.environ)
    if "GRAFTLINE_COMMIT" not in own and (revision := code_revision(task.name)).get("commit"):
        own["GRAFTLINE_COMMIT"] = "+".join(revision[name] for name in ("commit", "dirty") if name in revision)
    if site is None or site.folder is None:
        return own
    own.pop("GRAFTLINE_KEY", None)
    add_trusted(site.folder / KEYS, load_keyring().signer().public)
    return own | {"GRAFTLINE_KEYS": str(site.folder / KEYS), "GRAFTLINE_CACHE": str(site.folder / CACHE)}


def _round(run: Federation, store: Store, number: int) -> None:
    """Make a round's model, unless it is made, and see that the round is in the ledger."""
    updates, model = run.place(number) / "updates", run.model(number)
    if not _is_whole(model):
        if not (updates / GATHERED).is_file():
            _gather(run, store, number, updates)
        done = _aggregate(run, number, updates)
        if done.code == EXIT_REFUSED:
            raise _without_quorum(run, store, number, updates)
        if done.code:
            raise _failed(f"round {number}: aggregate", done)
    if not number:
        keep_record(store, model)
    elif (updates / GATHERED).is_file():
        start = verify(run.model(number - 1))
        examined = examine(updates, _asked(run, number), run.params)
        enter(store, updates, examined, start, model, run.params.quorum)
        run.say(_told(run, number, examined.account()))
    _remove(updates)


def _remove(updates: Path) -> None:
    """Remove what a round gathered, so that what is left when this is interrupted counts for nothing."""
    (updates / GATHERED).unlink(missing_ok=True)
    shutil.rmtree(updates, ignore_errors=True)


def _is_whole(model: Path) -> bool:
    """Return whether a round's model is there as its record says."""
    if not (model / RECORD).is_file():
        return False
    try:
        verify(model)
    except InputError:
        return False
    return True


def _asked(run: Federation, number: int) -> Any:
    start = run.model(number - 1)
    parameters = {name: run.order.parameters[name] for name in ("finetune", "federated")} | {RUN: run.order.run}
    return asked_of(start, verify(start), number, parameters, run.params)


def _aggregate(run: Federation, number: int, updates: Path) -> Done:
    inputs = {"updates": updates, "dataset": run.task.dataset, "trunk": run.task.trunk}
    if number:
        inputs["start"] = run.model(number - 1)
    given = ("aggregate", run.order.document, Here(run.home, ""), inputs, {"model": run.model(number)})
    tries = 1
    while True:
        done = run.worker(None).run(run_component, *given)
        if done.code == EXIT_PREEMPTED:
            time.sleep(_BUSY)  # the one of a run that was killed is just ending
        elif done.code < 0 and tries < TRIES:
            tries += 1
        else:
            return done


def _without_quorum(run: Federation, store: Store, number: int, updates: Path) -> RefusalError:
    """Enter a round that made no model; the next try asks the sites again."""
    examined = examine(updates, _asked(run, number), run.params)
    enter(store, updates, examined, verify(run.model(number - 1)), None, run.params.quorum)
    _remove(updates)
    try:
        examined.check_quorum(run.params.quorum)
    except RefusalError as error:
        return error
    raise AssertionError("aggregate refused a quorum that is there")


def _failed(what: str, done: Done) -> GraftlineError:
    error = GraftlineError(f"{what} ended with exit code {done.code}: {done.line}")
    error.exit_code = done.code if done.code == EXIT_INPUT else 1
    return error


def _release(run: Federation) -> None:
    """Evaluate the last model, compare it with the champion, and publish it if the gate says so."""
    document, here = dict(run.task.document), Here(run.home, "", threads=cpu_count())
    inputs = {"dataset": run.task.dataset, "trunk": run.task.trunk, "model": run.model(run.params.rounds)}
    for component, output in (("evaluate", "evaluation"), ("publish", "release")):
        out = run.home / output
        done = run.worker(None).run(run_component, component, document, here, inputs, {output: out}, run.task.store)
        if done.code == EXIT_REFUSED:
            raise RefusalError(done.line)
        if done.code:
            raise _failed(component, done)
        inputs[output] = out


def _told(run: Federation, number: int, account: Mapping[str, Any]) -> str:
    left = "".join(f"; left out {line['site']}: {line['rule']}: {line['reason']}" for line in account["left_out"])
    metrics = verify(run.model(number)).metrics
    scores = [f"{name} {value:.4f}" for name, value in metrics.items() if name.startswith("val_")]
    return (
        f"round {number} of {run.params.rounds}: {account['updates']} of {len(run.sites)} updates, "
        f"{account['rows']:,} rows; {', '.join(scores)}{left}"
    )


# What a round gathers


def _gather(run: Federation, store: Store, number: int, updates: Path) -> None:
    """Ask the sites, wait for them, and put what there is then into the folder `updates`, whole or not at all."""
    sites = {site.name: site.key for site in run.sites}
    if not number:
        with output_directory(updates) as aside:
            write_new(aside / GATHERED, canonical_json(Gathered(run.order.run, 0, sites, {}).as_dict()))
        return
    start = run.model(number - 1)
    order = replace(run.order, number=number, start=verify(start).content)
    put_order(store, order, start, run.task.trunk, load_keyring())
    without = _wait(run, order)
    most = sum(path.stat().st_size for path in start.glob("*.safetensors")) + _BESIDE_WEIGHTS
    with output_directory(updates) as aside:
        for site in run.sites:
            if site.name in without:
                continue
            folder = aside / site.name
            folder.mkdir()
            try:
                theirs, place = open_store(site.store), prefix(order.task, order.run)
                get_bundle(theirs, place, order.name, folder, most=most, only=(FILE, RECORD, ENVELOPE))
            except GraftlineError as error:  # also of a store that does not answer any more
                shutil.rmtree(folder)
                without[site.name] = ("damaged", brief(error))
        gathered = Gathered(order.run, number, sites, without)
        write_new(aside / GATHERED, canonical_json(gathered.as_dict()))


def _wait(run: Federation, order: Order) -> dict[str, tuple[str, str]]:
    """Wait until each site has answered, cannot, or is late; return rule and reason of those that have not."""
    until = time.monotonic() + run.params.late
    without: dict[str, tuple[str, str]] = {}
    waiting = [site for site in run.sites if not _has_answered(site, order)]
    here = [site for site in waiting if site.folder is not None]
    there = [site for site in waiting if site.folder is None]
    working: dict[str, int] = {}
    while here or working or there:
        while here and len(working) < run.jobs:
            site = here.pop(0)
            working[site.name] = 1
            _begin(run, site, order)
        for site in [site for site in run.sites if site.name in working]:
            if done := run.worker(site).done(0.02 if len(working) > 1 or there else 0.5):
                _note(run, site, order, done, working, without)
        if there and not working:
            time.sleep(min(_POLL, max(0.0, until - time.monotonic())))
        there = [site for site in there if not _has_answered(site, order)]
        if time.monotonic() >= until:
            for site in [*here, *there, *(site for site in run.sites if site.name in working)]:
                without[site.name] = ("late", f"no update {run.params.late:g} s after it was asked")
                if site.name in working:
                    run.worker(site).stop()
            break
    return without


def _begin(run: Federation, site: Site, order: Order) -> None:
    assert site.folder is not None
    here = Here(site.folder, site.store, checkpoint_seconds=run.task.checkpoint_seconds)
    run.worker(site).begin(take_part, here, run.task.store, order.task, order.run, order.name)


def _note(
    run: Federation, site: Site, order: Order, done: Done, working: dict[str, int], without: dict[str, tuple[str, str]]
) -> None:
    """Note how a site's work ended; one that was killed is started again."""
    if done.code < 0 and working[site.name] < TRIES:
        print(f"round {order.number}: {site.name} died by signal {-done.code}; it is started again", file=sys.stderr)
        working[site.name] += 1
        _begin(run, site, order)
        return
    if done.code == EXIT_PREEMPTED:  # one of before that was killed is just ending there
        time.sleep(_BUSY)
        _begin(run, site, order)
        return
    tries = working.pop(site.name)
    if done.code < 0:
        without[site.name] = ("died", f"{tries} times, the last time by signal {-done.code}")
    elif done.code:
        # What it said may quote its data: that stays in its log.
        without[site.name] = ("failed", f"it ended with exit code {done.code}, and sent nothing")
        print(f"round {order.number}: {site.name} failed: {done.line}", file=sys.stderr)


def _has_answered(site: Site, order: Order) -> bool:
    try:
        return order.name in list_bundles(open_store(site.store), prefix(order.task, order.run))
    except GraftlineError:  # its store does not answer: it is late then
        return False
