"""An update: what a site's fine-tuning changed, and a signed record of it. And the rules by which one is left out.

    update.safetensors   the tensors that differ from the round's model, as they are now
    record.json          of which round's model, of how many rows, by which parameters; signed in record.dsse.json

An update carries no row, no metric of the site's data and no name of a file: the data are in the record by one digest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from graftline.canonical import canonical_json
from graftline.digests import RECORD
from graftline.errors import GraftlineError, InputError, brief
from graftline.federated.averaging import Tensor, Weights, difference, kind_of
from graftline.privacy.parameters import BOUND
from graftline.records.folder import Draft, check_signature, read_record, verify, write_record
from graftline.records.model import Dependency, Record
from graftline.signing.keyring import Keyring, Known
from graftline.signing.keys import PublicKey
from graftline.tasks.federated import ROUND, round_of

UPDATE, START, JOIN = "update", "start", "join"
"""What a site sends, what it began with, and who makes updates: the names in records."""
FILE, ROWS = "update.safetensors", "rows"
RUN = "run"
"""Among the parameters of an update's record, beside the sections: the federated run's id."""
MOST_ROWS = 1 << 53
_MOST_BYTES = 1 << 20
"""Of a record: the coordinator keeps it for good."""

Rule = Literal[
    "missing", "late", "died", "failed", "damaged", "signature", "record", "task", "run", "round", "start",
    "parameters", "privacy", "rows", "tensors", "not finite", "norm",
]  # fmt: skip
"""Why an update did not go in. The first four are about a site that sent none."""


class LeftOutError(GraftlineError):
    """An update that does not go in."""

    def __init__(self, rule: Rule, reason: str) -> None:
        # It may quote what a site wrote: any text, of any length.
        reason = brief(reason.encode("ascii", "backslashreplace").decode())
        self.rule, self.reason = rule, reason
        super().__init__(f"{rule}: {reason}")


@dataclass(frozen=True)
class Update:
    """An update that goes in."""

    site: str
    key: PublicKey
    rows: int
    """That the site learned from, as it signed."""
    norm: float
    """How far it is from the round's model: Euclidean, over all weights."""
    weights: Weights
    record: Record

    @property
    def bound(self) -> tuple[float, float]:
        """Epsilon and delta of an update that was made privately."""
        epsilon, delta = (float(self.record.metrics[score.name]) for score in BOUND)
        return epsilon, delta


@dataclass(frozen=True)
class Asked:
    """What a round asks of an update."""

    task: str
    number: int
    """The round's, from 1."""
    start: Record
    """Of the round's model."""
    weights: Weights
    """Of the round's model."""
    parameters: Mapping[str, Any]
    """The sections of fine-tuning and of the rounds, as records hold them, and RUN."""
    norm_bound: float | None


def write_update(model: Path, start: Path, out: Path, *, run: str) -> None:
    """Write into the empty folder `out` what the fine-tuned model changed of the round's, and its signed record.

    Two runs may begin with one model: the record names `run`, so that one's update does not count in the other.

    Raises InputError: one of the two is not what its record says, or they do not belong together.
    """
    made, began = verify(model), verify(start)
    given = made.input(START)
    if given is None or given.sha256 != began.content:
        raise InputError(model, "a model that was not fine-tuned from the round's", fix="fine-tune again")
    difference(Weights.of(start), Weights.of(model), out / FILE)
    parameters = {**made.parameters, RUN: run}
    draft = Draft(JOIN, made.task, UPDATE, parameters=parameters, environment=made.environment)
    kept = [Dependency(i.name, i.sha256, i.record) for i in made.inputs if i.name != "dataset"]
    # The data by their digest alone: the record behind it, with the rows' profile, stays at the site.
    draft.dependencies = [Dependency(i.name, i.sha256) for i in made.inputs if i.name == "dataset"] + kept
    privacy = {name: value for name, value in made.metrics.items() if name.startswith(("privacy_", "epsilon", "delta"))}
    draft.metrics = {ROUND: made.metrics[ROUND], ROWS: made.metrics["examples"], **privacy}
    write_record(out, draft)


def check_update(folder: Path, site: str, key: PublicKey, asked: Asked) -> Update:
    """Return the update of a site in a folder.

    Raises LeftOutError: by the first of the rules, in the order in which `Rule` names them, that it breaks.
    """
    record = _signed(folder, key)
    _check_what_it_is(record, asked)
    rows = record.metrics.get(ROWS)
    if type(rows) is not int or not 1 <= rows <= MOST_ROWS:
        raise LeftOutError("rows", f"it says that it learned from {rows!r} rows")
    weights, norm = _compared(folder, asked.weights)
    if asked.norm_bound is not None and norm > asked.norm_bound:
        raise LeftOutError("norm", f"it is {norm:.6g} from the round's model, {asked.norm_bound:g} at most are allowed")
    return Update(site, key, rows, norm, weights, record)


def _signed(folder: Path, key: PublicKey) -> Record:
    """Return the record of an update that is whole, signed by the site's key and by no other."""
    if not (folder / RECORD).is_file():
        raise LeftOutError("missing", "there is no update")
    data = (folder / RECORD).read_bytes()
    if len(data) > _MOST_BYTES:
        raise LeftOutError("record", f"it has {len(data)} bytes, {_MOST_BYTES} at most are kept")
    only = Keyring(folder, {key.keyid: Known(key, own=False, created="")})
    try:
        read_record(folder)
    except InputError as error:
        raise LeftOutError("record", error.found) from None
    try:
        check_signature(folder, only)
    except InputError as error:
        raise LeftOutError("signature", error.found) from None
    try:
        record = verify(folder, only)
    except InputError as error:
        raise LeftOutError("damaged", error.found) from None
    if not _canonical(data):
        raise LeftOutError("record", "it is not in canonical form, as all records are that are kept")
    if (record.component, record.name) != (JOIN, UPDATE) or [file.path for file in record.files] != [FILE]:
        raise LeftOutError("record", f"it is of a {record.name} that {record.component} made, not of an update")
    return record


def _canonical(data: bytes) -> bool:
    try:
        return canonical_json(json.loads(data)) == data
    except ValueError:  # such as half a character, which the form has no bytes for
        return False


def _check_what_it_is(record: Record, asked: Asked) -> None:
    if record.task != asked.task:
        raise LeftOutError("task", f"it is of the task '{record.task}'")
    if record.parameters.get(RUN) != asked.parameters[RUN]:
        raise LeftOutError("run", f"it is of the run {record.parameters.get(RUN)!r}, this is {asked.parameters[RUN]}")
    try:
        number = round_of(record.metrics, "")
    except InputError:
        number = -1
    if number != asked.number:
        raise LeftOutError("round", f"it is of round {record.metrics.get(ROUND)!r}, this is round {asked.number}")
    start = record.input(START)
    if start is None or start.sha256 != asked.start.content:
        found = "none" if start is None else start.sha256
        raise LeftOutError("start", f"it began with model {found}, the round's is {asked.start.content}")
    for name in sorted({*asked.parameters, *record.parameters}):
        if record.parameters.get(name) != asked.parameters.get(name):
            raise LeftOutError("parameters", f"its section {name} is not the round's")
    if (privacy := asked.parameters["finetune"].get("privacy")) is not None:
        _check_bound(record, privacy)
    _check_inputs(record, asked.start)


def _check_bound(record: Record, privacy: Mapping[str, Any]) -> None:
    """Let it say that it spent no more than was asked for: what the rounds promise together is counted from that."""
    for score in BOUND:
        spent, most = record.metrics.get(score.name), privacy[score.name]
        # a record has 2.0 as 2
        number = spent if isinstance(spent, int | float) and not isinstance(spent, bool) else math.nan
        if not 0 < number <= most * (1 + 1e-9):
            raise LeftOutError("privacy", f"it says that it spent {score.name} {spent!r}, {most:g} at most was asked")


def _check_inputs(record: Record, start: Record) -> None:
    """Let it lead back only to what the coordinator has too: a record that nobody has would stop every later trace."""
    known: dict[str, tuple[str, str | None]] = {START: (start.content, start.sha256)}
    known |= {one.name: (one.sha256, one.record) for one in start.inputs if one.name == "trunk"}
    for one in record.inputs:
        content, behind = known.get(one.name, (one.sha256, None))
        if one.sha256 != content or one.record not in (None, behind):
            raise LeftOutError("record", f"its input {one.name} is not the round's")


def _compared(folder: Path, start: Weights) -> tuple[Weights, float]:
    """Return an update's tensors, each of the kind that the round's model has, and how far they are from it."""
    total = 0.0
    try:
        weights = Weights.of(folder)
        for name, tensor in weights.each():
            if name not in start.files:
                raise LeftOutError("tensors", f"the round's model has no tensor {name}")
            before = start.read(name)
            if (kind := kind_of(tensor)) != (wanted := kind_of(before)):
                raise LeftOutError("tensors", f"{name} is {_told(kind)}, in the round's model {_told(wanted)}")
            if not np.isfinite(tensor).all():
                raise LeftOutError("not finite", f"{name} holds NaN or infinity")
            if tensor.dtype.kind == "f":
                total += float(np.square(tensor.astype(np.float64) - before.astype(np.float64)).sum())
    except InputError as error:
        raise LeftOutError("tensors", error.found) from None
    if not math.isfinite(total):
        raise LeftOutError("norm", "it is further from the round's model than a number can say")
    return weights, math.sqrt(total)


def _told(kind: Tensor) -> str:
    return f"{kind.dtype} of shape {list(kind.shape)}"
