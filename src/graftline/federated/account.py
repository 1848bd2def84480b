"""A round's account: whose updates went into the next model with which weight, whose were left out and by which rule.

`gathered.json` is what the coordinator had when the round closed; `examine` judges it. The account goes into the record
of the new model, and into the ledger: with each site's key and signature, so that the coordinator cannot tell of an
update that no site made.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftline.canonical import canonical_json, read_json
from graftline.digests import ENVELOPE, RECORD, sha256_bytes
from graftline.errors import InputError, RefusalError
from graftline.federated.averaging import Weights, shares
from graftline.federated.updates import Asked, LeftOutError, Update, check_update
from graftline.ledger.entries import Fact
from graftline.records.model import Record
from graftline.releases.provenance import Provenance, keep
from graftline.signing.envelope import STATEMENT_TYPE, open_envelope, seal
from graftline.signing.keyring import load_keyring
from graftline.signing.keys import PublicKey
from graftline.signing.rotation import open_ledger
from graftline.store import Store
from graftline.tasks.federated import ROUND, FederatedParams

GATHERED = "gathered.json"
_FORMAT = "https://graftline.dev/federated-round/v1"


@dataclass(frozen=True)
class Gathered:
    """What there was when a round closed; the updates lie beside it, in a folder each by the site's name."""

    run: str
    """The federated run's id."""
    number: int
    """The round's."""
    sites: Mapping[str, PublicKey]
    """All that were asked."""
    without: Mapping[str, tuple[str, str]]
    """Rule and reason of each site that has sent nothing that could be read."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "run": self.run,
            "round": self.number,
            "sites": {name: key.pem for name, key in self.sites.items()},
            "without": {name: {"rule": rule, "reason": why} for name, (rule, why) in self.without.items()},
        }

    @classmethod
    def read(cls, folder: Path) -> Gathered:
        """Return what is in a folder. Raises InputError."""
        value = read_json(folder / GATHERED)
        try:
            if value["format"] != _FORMAT or type(value["round"]) is not int:
                raise ValueError(f"format {value['format']!r}")
            keys = {name: PublicKey.from_pem(pem, where=folder / GATHERED) for name, pem in value["sites"].items()}
            without = {name: (one["rule"], one["reason"]) for name, one in value["without"].items()}
            return cls(value["run"], value["round"], keys, without)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(folder / GATHERED, f"not what a round gathered ({error!r})") from None


@dataclass(frozen=True)
class Examined:
    """A round's updates, judged."""

    gathered: Gathered
    updates: tuple[Update, ...]
    """Those that go in, in the order of their sites' names."""
    shares: Mapping[str, float]
    """The weight of each, by site."""
    left_out: Mapping[str, tuple[str, str]]
    """Rule and reason, by site."""

    @property
    def rows(self) -> int:
        return sum(update.rows for update in self.updates)

    def check_quorum(self, quorum: int) -> None:
        """Raise RefusalError if there are too few."""
        if len(self.updates) < quorum:
            why = "; ".join(f"{site}: {rule}: {reason}" for site, (rule, reason) in sorted(self.left_out.items()))
            raise RefusalError(
                f"round {self.gathered.number}: {len(self.updates)} of {len(self.gathered.sites)} updates go in, and "
                f"the quorum is {quorum}; no new model was made. Left out: {why or 'none'}"
            )

    def account(self) -> dict[str, Any]:
        """Return it for a record and for the ledger."""
        return {
            ROUND: self.gathered.number,
            "rows": self.rows,
            "updates": len(self.updates),
            "sites": [self._line(update) for update in self.updates],
            "left_out": [
                {"site": site, "rule": rule, "reason": reason} for site, (rule, reason) in sorted(self.left_out.items())
            ],
        }

    def _line(self, update: Update) -> dict[str, Any]:
        return {
            "site": update.site,
            "rows": update.rows,
            "share": self.shares[update.site],
            "norm": update.norm,
            "update": update.record.content,
            "record": update.record.sha256,
            "key": update.key.keyid,
        }


def examine(folder: Path, asked: Asked, params: FederatedParams) -> Examined:
    """Return the updates that lie gathered in a folder, judged one by one. The same folder gives the same answer."""
    gathered = Gathered.read(folder)
    if gathered.number != asked.number:
        raise InputError(folder / GATHERED, f"of round {gathered.number}", expected=f"round {asked.number}")
    updates, left_out = [], dict(gathered.without)
    for site in sorted(gathered.sites.keys() - left_out.keys()):
        try:
            updates.append(check_update(folder / site, site, gathered.sites[site], asked))
        except LeftOutError as error:
            left_out[site] = (error.rule, error.reason)
    given = shares({update.site: update.rows for update in updates}, params.max_share) if updates else {}
    return Examined(gathered, tuple(updates), given, left_out)


def asked_of(start: Path, record: Record, number: int, parameters: Mapping[str, Any], params: FederatedParams) -> Asked:
    """Return what round `number` asks, which begins with the model in the folder `start`."""
    return Asked(record.task, number, record, Weights.of(start), parameters, params.norm_bound)


def enter(store: Store, folder: Path, examined: Examined, start: Record, model: Path | None, quorum: int) -> None:
    """Enter a round in the coordinator's ledger, and keep the records that the entry names; a second call adds nothing.

    An update's record is kept with the coordinator's signature over it: a site's key is trusted for its updates alone,
    and never with the ledger. The site's own signature is in the entry.

    Args:
        store: the coordinator's.
        folder: where the updates were gathered.
        examined: they.
        start: the record of the round's model.
        model: the folder of the new one; None where the quorum was not there.
        quorum: that was asked for.
    """
    keyring = load_keyring()
    signer, ledger = keyring.signer(), open_ledger(store, keyring)
    records = {update.site: (folder / update.site / RECORD).read_bytes() for update in examined.updates}
    detail = examined.account() | {"run": examined.gathered.run, "start": start.content, "quorum": quorum}
    for line in detail["sites"]:
        envelope = open_envelope((folder / line["site"] / ENVELOPE).read_bytes())
        key = examined.gathered.sites[line["site"]]
        line |= {"public_key": key.pem, "signature": base64.b64encode(envelope.signatures[0][1]).decode()}
    envelopes = {site: seal(data, STATEMENT_TYPE, signer) for site, data in records.items()}
    keep(store, Provenance(records, envelopes), keyring)
    if model is None:
        digest = sha256_bytes(canonical_json(detail))
    else:
        keep_record(store, model)
        digest = sha256_bytes((model / RECORD).read_bytes())
    identity = f"{examined.gathered.run}:round:{examined.gathered.number}:{digest}"
    fact = Fact("round", start.task, 0, digest, identity, detail=detail)
    ledger.append(lambda _: fact, signer=signer)


def keep_record(store: Store, output: Path) -> None:
    """Keep the record of an output in the store, with its signature."""
    name = output.name
    provenance = Provenance({name: (output / RECORD).read_bytes()}, {name: (output / ENVELOPE).read_bytes()})
    keep(store, provenance, load_keyring())
