"""Each rule by which an update is left out, and what the others come to without it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from graftline.audit.verify.verifying import verify as verify_store
from graftline.canonical import canonical_json
from graftline.digests import ENVELOPE, RECORD
from graftline.errors import RefusalError
from graftline.federated.account import GATHERED, Examined, Gathered, asked_of, enter, examine
from graftline.federated.updates import FILE, LeftOutError, check_update
from graftline.ledger.entries import Fact
from graftline.ledger.log import read_chain
from graftline.records.folder import Draft, verify, write_record
from graftline.records.model import Dependency
from graftline.signing.envelope import STATEMENT_TYPE, Envelope, seal
from graftline.signing.keyring import load_keyring
from graftline.signing.keys import PublicKey, Signer, make_private, read_signer
from graftline.store.opening import open_store
from graftline.tasks.federated import FederatedParams

TENSORS = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.zeros(2, np.float32)}
PARAMETERS = {"finetune": {"batch": 32}, "federated": {"rounds": 3}, "run": "0" * 16}


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """The model of round 2."""
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(TENSORS, folder / "model.safetensors")
    write_record(folder, Draft("aggregate", "digits", "model", metrics={"round": 2}))
    return folder


def new_key(folder: Path) -> Signer:
    pem, public = make_private()
    (folder / public.keyid).write_bytes(pem)
    return read_signer(folder / public.keyid)


def moved(by: float) -> dict[str, np.ndarray]:
    return {"weight": TENSORS["weight"] + np.float32(by)}


def write(folder: Path, start: Path, signer: Signer, tensors: dict[str, np.ndarray] | bytes, **other: Any) -> Path:
    """Write a site's answer to round 3, but for what is `other` about it."""
    folder.mkdir(parents=True)
    if isinstance(tensors, bytes):
        (folder / FILE).write_bytes(tensors)
    else:
        save_file(tensors, folder / FILE)
    said = {"component": "join", "task": "digits", "name": "update", "parameters": PARAMETERS} | other
    draft = Draft(said["component"], said["task"], said["name"], parameters=said["parameters"])
    draft.metrics = {"round": other.get("round", 3), "rows": other.get("rows", 100), **other.get("spent", {})}
    draft.dependencies = [Dependency("start", other.get("began", verify(start).content))]
    write_record(folder, draft, signer)
    return folder


def judged(folder: Path, start: Path, key: PublicKey, bound: float | None = 10.0) -> str:
    """Return the rule that an update breaks; an empty string if it goes in."""
    params = FederatedParams(rounds=3, norm_bound=bound)
    try:
        check_update(folder, "north", key, asked_of(start, verify(start), 3, PARAMETERS, params))
    except LeftOutError as error:
        assert error.reason
        return error.rule
    return ""


def test_an_update_that_keeps_the_rules_goes_in(start: Path, tmp_path: Path) -> None:
    signer = new_key(tmp_path)
    folder = write(tmp_path / "u", start, signer, moved(2.0), rows=123)
    asked = asked_of(start, verify(start), 3, PARAMETERS, FederatedParams())
    found = check_update(folder, "north", signer.public, asked)
    assert found.rows == 123
    assert found.norm == pytest.approx((6 * 2.0**2) ** 0.5)
    assert judged(folder, start, signer.public) == ""


NAN, INFINITE = moved(0.0), moved(0.0)
NAN["weight"][1, 1], INFINITE["weight"][0, 0] = np.nan, -np.inf


@pytest.mark.parametrize(
    ("rule", "tensors", "other"),
    [
        ("not finite", NAN, {}),
        ("not finite", INFINITE, {}),
        ("norm", moved(100.0), {}),
        ("norm", moved(3.4e38), {}),
        ("tensors", {"other": np.zeros(2, np.float32)}, {}),
        ("tensors", {"weight": np.zeros((3, 2), np.float32)}, {}),
        ("tensors", {"weight": np.zeros((2, 3), np.float64)}, {}),
        ("tensors", b"no safetensors", {}),
        ("round", moved(1.0), {"round": 2}),
        ("round", moved(1.0), {"round": "3"}),
        ("start", moved(1.0), {"began": "0" * 64}),
        ("rows", moved(1.0), {"rows": 0}),
        ("rows", moved(1.0), {"rows": 1e300}),
        ("task", moved(1.0), {"task": "letters"}),
        ("record", moved(1.0), {"name": "model"}),
        ("record", moved(1.0), {"component": "finetune"}),
        ("parameters", moved(1.0), {"parameters": PARAMETERS | {"finetune": {"batch": 64}}}),
        ("run", moved(1.0), {"parameters": PARAMETERS | {"run": "1" * 16}}),
        ("run", moved(1.0), {"parameters": {name: PARAMETERS[name] for name in ("finetune", "federated")}}),
    ],
)
def test_an_update_that_breaks_a_rule_is_left_out_by_it(
    rule: str, tensors: Any, other: dict[str, Any], start: Path, tmp_path: Path
) -> None:
    signer = new_key(tmp_path)
    assert judged(write(tmp_path / "u", start, signer, tensors, **other), start, signer.public) == rule


def signed(folder: Path, signer: Signer, data: bytes) -> Path:
    """Put these bytes in the place of an update's record, signed."""
    (folder / RECORD).write_bytes(data)
    (folder / ENVELOPE).write_bytes(seal(data, STATEMENT_TYPE, signer))
    return folder


def test_a_record_that_the_coordinator_could_not_keep_is_left_out(start: Path, tmp_path: Path) -> None:
    """It would be read, and stop, in every later `verify` and trace."""
    signer = new_key(tmp_path)
    folder = write(tmp_path / "u", start, signer, moved(1.0))
    data = (folder / RECORD).read_bytes()
    assert judged(signed(folder, signer, data), start, signer.public) == ""
    assert judged(signed(folder, signer, data.replace(b'":"', b'": "', 1)), start, signer.public) == "record"
    assert judged(signed(folder, signer, data + b" " * (1 << 20)), start, signer.public) == "record"
    half = data.replace(b'"digits"', b'"\\ud800"')
    assert half != data and judged(signed(folder, signer, half), start, signer.public) == "record"
    long = write(tmp_path / "v", start, signer, moved(1.0), parameters=PARAMETERS | {"diary": "x" * 100})
    assert judged(long, start, signer.public) == "parameters"


@pytest.mark.parametrize(
    ("rule", "spent"),
    [
        ("", {"epsilon": 1.99, "delta": 1e-5}),
        ("", {"epsilon": 2.0, "delta": 1e-5}),
        ("privacy", {}),
        ("privacy", {"epsilon": 2.01, "delta": 1e-5}),
        ("privacy", {"epsilon": 1.99, "delta": 1e-4}),
        ("privacy", {"epsilon": -1.0, "delta": 1e-5}),
        ("privacy", {"epsilon": True, "delta": 1e-5}),
    ],
)
def test_a_private_update_says_what_it_spent_and_no_more_than_was_asked(
    rule: str, spent: dict[str, float], start: Path, tmp_path: Path
) -> None:
    signer, privacy = new_key(tmp_path), {"epsilon": 2, "delta": 1e-5, "noise": "secure"}
    parameters = PARAMETERS | {"finetune": {"batch": 32, "privacy": privacy}}
    folder = write(tmp_path / "u", start, signer, moved(1.0), parameters=parameters, spent=spent)
    asked = asked_of(start, verify(start), 3, parameters, FederatedParams(rounds=3))
    if not rule:
        assert check_update(folder, "north", signer.public, asked).bound == (spent["epsilon"], spent["delta"])
        return
    with pytest.raises(LeftOutError) as error:
        check_update(folder, "north", signer.public, asked)
    assert error.value.rule == rule


@pytest.mark.parametrize("name", ["start", "dataset", "another"])
def test_an_update_leads_back_to_no_record_that_the_coordinator_lacks(name: str, start: Path, tmp_path: Path) -> None:
    signer, began = new_key(tmp_path), verify(start)
    folder = write(tmp_path / "u", start, signer, moved(1.0))
    draft = Draft("join", "digits", "update", parameters=PARAMETERS, metrics={"round": 3, "rows": 100})
    draft.dependencies = [Dependency("start", began.content, "f" * 64 if name == "start" else began.sha256)]
    draft.dependencies += [] if name == "start" else [Dependency(name, "0" * 64, "f" * 64)]
    write_record(folder, draft, signer)
    assert judged(folder, start, signer.public) == "record"


def test_a_reason_is_short_plain_text_whatever_it_quotes() -> None:
    error = LeftOutError("round", "it is of round '\ud800" + "x" * 10_000)
    assert "\\ud800" in error.reason and len(error.reason) <= 300 and error.reason.isascii()


def test_without_a_norm_bound_any_finite_update_goes_in(start: Path, tmp_path: Path) -> None:
    signer = new_key(tmp_path)
    assert judged(write(tmp_path / "u", start, signer, moved(100.0)), start, signer.public, None) == ""


def unsigned(folder: Path) -> None:
    (folder / ENVELOPE).unlink()


def of_other_bytes(folder: Path) -> None:
    text = json.loads((folder / RECORD).read_bytes())
    text["predicate"]["runDetails"]["byproducts"][0]["annotations"]["rows"] = 10**6
    (folder / RECORD).write_bytes(canonical_json(text))


def tampered(folder: Path) -> None:
    content = bytearray((folder / FILE).read_bytes())
    content[-1] ^= 1
    (folder / FILE).write_bytes(content)


def with_more(folder: Path) -> None:
    (folder / "rows.parquet").write_bytes(b"rows")


@pytest.mark.parametrize(
    ("change", "rule"),
    [(unsigned, "signature"), (of_other_bytes, "signature"), (tampered, "damaged"), (with_more, "damaged")],
)
def test_an_update_that_was_changed_on_its_way_is_left_out(
    change: Callable[[Path], None], rule: str, start: Path, tmp_path: Path
) -> None:
    signer = new_key(tmp_path)
    folder = write(tmp_path / "u", start, signer, moved(1.0))
    assert judged(folder, start, signer.public) == ""
    change(folder)
    assert judged(folder, start, signer.public) == rule


def test_another_sites_key_signs_for_itself_alone_and_so_does_the_coordinators(start: Path, tmp_path: Path) -> None:
    one, two = new_key(tmp_path), new_key(tmp_path)
    assert judged(write(tmp_path / "u", start, one, moved(1.0)), start, two.public) == "signature"
    own = load_keyring().signer()
    assert judged(write(tmp_path / "v", start, own, moved(1.0)), start, two.public) == "signature"


def gather(folder: Path, keys: dict[str, PublicKey], without: dict[str, tuple[str, str]]) -> Path:
    (folder / GATHERED).write_bytes(canonical_json(Gathered("0" * 16, 3, keys, without).as_dict()))
    return folder


@pytest.fixture
def round_three(start: Path, tmp_path: Path) -> tuple[Path, Examined]:
    """Five sites: two whose updates go in, one of a NaN, one that is late, and one that nobody knows."""
    updates, signers = tmp_path / "updates", {name: new_key(tmp_path) for name in ("east", "north", "south", "west")}
    write(updates / "north", start, signers["north"], moved(1.0), rows=300)
    write(updates / "east", start, signers["east"], moved(3.0), rows=100)
    write(updates / "south", start, signers["south"], NAN)
    write(updates / "stranger", start, new_key(tmp_path), moved(9.0))
    gather(updates, {name: signer.public for name, signer in signers.items()}, {"west": ("late", "no update")})
    params = FederatedParams(rounds=3)
    return updates, examine(updates, asked_of(start, verify(start), 3, PARAMETERS, params), params)


def test_a_round_goes_on_without_those_that_are_left_out_and_names_them(round_three: tuple[Path, Examined]) -> None:
    account = round_three[1].account()
    assert [(line["site"], line["rows"], line["share"]) for line in account["sites"]] == [
        ("east", 100, 0.25),
        ("north", 300, 0.75),
    ]
    assert [(line["site"], line["rule"]) for line in account["left_out"]] == [("south", "not finite"), ("west", "late")]
    assert (account["round"], account["rows"], account["updates"]) == (3, 400, 2)
    round_three[1].check_quorum(2)
    with pytest.raises(RefusalError, match=r"2 of 4 updates go in, and the quorum is 3.*south: not finite"):
        round_three[1].check_quorum(3)


def test_the_ledger_has_the_round_once_and_gives_sites_no_power(
    round_three: tuple[Path, Examined], start: Path, tmp_path: Path
) -> None:
    store, (updates, examined) = open_store(str(tmp_path / "store")), round_three
    for _ in range(2):
        enter(store, updates, examined, verify(start), start, 2)
    entries = read_chain(store).entries
    assert [(entry.event, entry.task) for entry in entries] == [("key", ""), ("round", "digits")]
    detail = entries[1].detail
    assert [line["rows"] for line in detail["sites"]] == [100, 300]
    assert {line["key"] for line in detail["sites"]}.isdisjoint(read_chain(store).trust.keys)
    assert [line["rule"] for line in detail["left_out"]] == ["not finite", "late"]
    assert (detail["round"], detail["quorum"], detail["run"]) == (3, 2, "0" * 16)
    assert verify_store(store).findings == ()


@pytest.mark.parametrize("field", ["rows", "update", "signature", "round", "twice", "no line", "no rows", "no key"])
def test_verify_finds_an_entry_that_tells_of_an_update_otherwise_than_its_site_signed(
    field: str, round_three: tuple[Path, Examined], start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator itself, whose key signs the ledger, cannot say what no site said."""
    store, (updates, examined) = open_store(str(tmp_path / "store")), round_three
    false = {"rows": 10**6, "update": "1" * 64}
    account = Examined.account

    def lying(self: Examined) -> dict[str, Any]:
        told = account(self)
        told["sites"][1] |= {field: false[field]} if field in false else {}
        told |= {"round": 4} if field == "round" else {}
        if field in ("no rows", "no key"):
            del told["sites"][1][field.removeprefix("no ")]
        return told

    monkeypatch.setattr(Examined, "account", lying)
    if field == "signature":
        other = Envelope(b"", "", (("", b"another's"),))
        monkeypatch.setattr("graftline.federated.account.open_envelope", lambda data: other)
    if field in ("twice", "no line"):

        def stated(kind: Any, *facts: Any, detail: dict[str, Any]) -> Fact:
            sites = detail["sites"] if field == "twice" else []
            return Fact(kind, *facts, detail=detail | {"sites": [*sites, sites[0] | {"site": "x"} if sites else {}]})

        monkeypatch.setattr("graftline.federated.account.Fact", stated)
    enter(store, updates, examined, verify(start), start, 2)
    monkeypatch.undo()
    found = verify_store(store).findings
    assert [(finding.place, finding.kind) for finding in found][:1] == [("ledger/00000002.json", "tampered")], found
