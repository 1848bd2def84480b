"""What the coordinator asks of the sites in a round: signed, in a bundle of its store, with the round's model.

    federated/<task>/<run>/<round>-<start>   order.json, its signature, and the round's model in start/
    federated/<task>/<run>/trunk             the trunk, once
    federated/<task>/<run>/end               there are no more rounds

<start> is the beginning of the digest of the round's model. A site's update has the order's name, in the site's store.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from graftline.canonical import canonical_json, parse_json
from graftline.digests import EXECUTION, sha256_bytes
from graftline.durable import output_directory, write_new
from graftline.errors import InputError
from graftline.records.folder import verify
from graftline.records.model import Record
from graftline.releases.layout import check_task
from graftline.signing.envelope import seal
from graftline.signing.keyring import Keyring, load_keyring
from graftline.signing.trusted import check_signed
from graftline.store import Store
from graftline.store.bundles import Source, get_bundle, list_bundles, put_bundle

ORDER_TYPE = "application/vnd.graftline.federated-order+json"
ORDER, SIGNATURE, TRUNK, END = "order.json", "order.dsse.json", "trunk", "end"
_NAME = re.compile(r"([0-9]{4})-[0-9a-f]{16}")
_FORMAT = "https://graftline.dev/federated-order/v1"


@dataclass(frozen=True)
class Order:
    """What is asked."""

    task: str
    run: str
    """The federated run's id."""
    number: int
    """The round's, from 1."""
    start: str
    """The digest of the round's model."""
    trunk: str
    """The digest of the trunk."""
    parameters: Mapping[str, Any]
    """The task's sections validate, finetune and federated."""
    contract: str
    """The text of the task's contract."""
    sites: Mapping[str, str]
    """Who is asked: the key of each site, by its name."""

    @property
    def name(self) -> str:
        """Of the order, and of each answer to it."""
        return f"{self.number:04d}-{self.start[:16]}"

    @property
    def document(self) -> dict[str, Any]:
        """The parameters as components take them."""
        return {"task": self.task, **self.parameters}


def prefix(task: str, run: str) -> str:
    """Return where a federated run's orders lie in the coordinator's store, and its updates in a site's."""
    check_task(task)
    return f"federated/{task}/{run}"


def put_order(store: Store, order: Order, start: Path, trunk: Path, keyring: Keyring) -> None:
    """Store an order with all that a site needs for it. The same again changes nothing."""
    place = prefix(order.task, order.run)
    if order.name in list_bundles(store, place):
        return
    put_bundle(store, place, TRUNK, files_of(trunk))
    data = canonical_json({"format": _FORMAT, **asdict(order)})
    with output_directory(start.with_name("order")) as aside:
        write_new(aside / ORDER, data)
        write_new(aside / SIGNATURE, seal(data, ORDER_TYPE, keyring.signer()))
        put_bundle(store, place, order.name, files_of(aside) | files_of(start, "start/"))


def put_end(store: Store, task: str, run: str, marker: Path) -> None:
    """Tell the sites that there are no more rounds."""
    write_new(marker, b"")
    put_bundle(store, prefix(task, run), END, {"end": Source(marker)})


def files_of(folder: Path, under: str = "") -> dict[str, Source]:
    """Return the files of an output for a bundle; what tells of the machine that made it stays here."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != EXECUTION)
    return {f"{under}{path.relative_to(folder).as_posix()}": Source(path) for path in files}


def newest_orders(store: Store, task: str, run: str) -> list[str]:
    """Return the names of the orders of the last round."""
    found = [name for name in list_bundles(store, prefix(task, run)) if _NAME.fullmatch(name)]
    last = max(found, default="")[:4]
    return [name for name in found if name.startswith(last)]


def runs_of(store: Store, task: str) -> list[str]:
    """Return the ids of the federated runs of a task that have begun and not ended."""
    check_task(task)
    keys = [parts for key in store.list(f"federated/{task}/") if len(parts := key.split("/")) > 3]
    begun, ended = {key[2] for key in keys}, {key[2] for key in keys if key[3] == f"{END}.json"}
    return sorted(begun - ended)


def fetch_order(store: Store, task: str, run: str, name: str, folder: Path) -> Order:
    """Put an order's round's model into `folder`/start, and return the order.

    Raises InputError: no key that is trusted here signed it, or the model is not the one that it names.
    """
    with output_directory(folder) as aside:
        get_bundle(store, prefix(task, run), name, aside)
        data = (aside / ORDER).read_bytes()
        where = f"{store.url}: order {name}"
        envelope = (aside / SIGNATURE).read_bytes()
        fix = "trust the coordinator's key: graftline keys trust FILE.pem"
        check_signed(data, ORDER_TYPE, envelope, load_keyring(), where=where, fix=fix)
        order = _parsed(data, where)
        if (order.task, order.run, order.name) != (task, run, name):
            raise InputError(where, f"an order of {order.task}, run {order.run}, named {order.name}")
        _expect(verify(aside / "start"), order.start, where)
    return order


def fetch_trunk(store: Store, order: Order, folder: Path) -> None:
    """Put the run's trunk into `folder`, if it is not there. Raises InputError: it is not the one of the order."""
    if not folder.exists():
        with output_directory(folder) as aside:
            get_bundle(store, prefix(order.task, order.run), TRUNK, aside)
    _expect(verify(folder), order.trunk, f"{store.url}: the trunk of run {order.run}")


def run_id(facts: Mapping[str, Any]) -> str:
    """Return the id of a federated run: the same for the same task, parameters, data, trunk and sites."""
    return sha256_bytes(canonical_json(facts))[:16]


def _parsed(data: bytes, where: str) -> Order:
    value = parse_json(data, where, fix="ask the coordinator")
    try:
        if value.pop("format") != _FORMAT:
            raise ValueError("of another format")
        order = Order(**value)
        texts = (order.task, order.run, order.start, order.trunk, order.contract)
        if not all(type(text) is str for text in texts) or type(order.number) is not int:
            raise TypeError("a value of another kind")
        return order
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(where, f"not an order ({error!r})", fix="ask the coordinator") from None


def _expect(record: Record, content: str, where: str) -> None:
    if record.content != content:
        raise InputError(where, f"content {record.content}", expected=content, fix="ask the coordinator")
