"""Rounds over folders: what comes of them, what the ledger says, who is left out, what is found again."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import forked
import numpy as np
import parts
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small
from parts import coordinator, federate, model_digest, quiet, thirds, write_sites

from graftline.audit.verify.verifying import verify as verify_store
from graftline.digests import RECORD
from graftline.errors import InputError, RefusalError
from graftline.federated.averaging import Weights
from graftline.federated.orders import newest_orders, prefix
from graftline.federated.rounds import Federation
from graftline.federated.sites import Site
from graftline.federated.taking_part import Here, NotAskedError, serve_once, take_part
from graftline.federated.workers import Worker
from graftline.index.opening import open_index
from graftline.ledger.entries import Entry
from graftline.ledger.log import read_chain
from graftline.lineage.trace import trace
from graftline.privacy.promise import outside, read_promise, told
from graftline.records.folder import verify
from graftline.records.model import parse_record
from graftline.releases.catalogue import resolve
from graftline.signing.keyring import add_trusted, load_keyring, make_first
from graftline.store.bundles import put_bundle
from graftline.store.opening import open_store

Three = tuple[Path, list[Site]]


def rounds(run: Federation) -> list[Entry]:
    """Return the ledger's entries of rounds."""
    return entries_of(run.task.store)


def entries_of(store: str) -> list[Entry]:
    return [entry for entry in read_chain(open_store(store)).entries if entry.event == "round"]


def left_out(entry: Entry) -> list[tuple[str, str]]:
    return [(line["site"], line["rule"]) for line in entry.detail["left_out"]]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, table: pa.Table) -> Three:
    """Three sites, in a folder."""
    folder = tmp_path_factory.mktemp("three")
    return folder, write_sites(folder, thirds(table))


@pytest.fixture(scope="module")
def released(three: Three, dataset: Path, trunk: Path) -> Federation:
    """Two rounds of the three, and the release that came of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graftline.federated.rounds.cpu_count", lambda: 1)  # evaluate starts no processes for its fits
        task = coordinator(three[0] / "c", dataset, trunk)
        return federate(task, three[1], say=quiet, jobs=2, release=True)


def test_one_site_with_all_data_and_one_pass_is_central_fine_tuning(dataset: Path, trunk: Path, tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    shutil.copytree(dataset.parent / "raw", tmp_path / "all" / "raw")
    task = coordinator(tmp_path / "c", dataset, trunk, rounds=1)
    document = {**task.document, "validate": {}}  # as the small task's own dataset was made
    run = federate(replace(task, document=document), write_sites(tmp_path, {"all": pa.table({})}), say=quiet)
    central = parts.DOCUMENT["finetune"] | {"epochs": 1, "min_steps": 1, "patience": None}
    small.make("finetune", {"finetune": central}, in_dataset=dataset, in_trunk=trunk, out_model=tmp_path / "model")
    assert rounds(run)[0].detail["rows"] == verify(tmp_path / "model").metrics["examples"]
    for name in ("model.safetensors", "head.json"):
        assert (run.model(1) / name).read_bytes() == (tmp_path / "model" / name).read_bytes()
    assert (run.model(0) / "model.safetensors").read_bytes() != (run.model(1) / "model.safetensors").read_bytes()


def test_the_ledger_says_whose_update_went_into_each_round(released: Federation) -> None:
    entries = rounds(released)
    assert [entry.detail["round"] for entry in entries] == [1, 2]
    for number, entry in enumerate(entries, start=1):
        made, start = verify(released.model(number)), verify(released.model(number - 1))
        assert (entry.digest, entry.detail["start"]) == (made.sha256, start.content)
        lines, total = entry.detail["sites"], entry.detail["rows"]
        assert [line["site"] for line in lines] == ["east", "north", "south"]
        assert [line["share"] for line in lines] == pytest.approx([line["rows"] / total for line in lines])
        assert len({line["rows"] for line in lines}) == 3
        assert left_out(entry) == []
    scores = [verify(released.model(number)).metrics["val_accuracy"] for number in (0, 2)]
    assert scores[1] > scores[0]


def test_a_release_leads_through_the_rounds_to_each_sites_update(released: Federation) -> None:
    store = open_store(released.task.store)
    verdict = verify_store(store)
    assert (verdict.findings, verdict.whole) == ((), True)
    with open_index(store) as index:
        steps = trace(index, resolve(store, "digits@champion").name).steps
    said = {line["update"] for entry in rounds(released) for line in entry.detail["sites"]}
    assert len(said) == 6
    assert {step.content for step in steps if step.name == "update"} == said
    assert {step.component for step in steps} >= {"validate", "pretrain", "aggregate", "join", "evaluate"}


def test_updates_and_their_records_are_all_that_leaves_a_site(released: Federation, three: Three) -> None:
    """No dataset, no score of its rows, no profile of its columns."""
    for site in three[1]:
        store = open_store(site.store)
        assert all(key.startswith("federated/digits/") for key in store.list(""))
        bundles = [json.loads(store.get(key).data) for key in store.list("") if key.endswith(".json")]
        assert len(bundles) == 2
        for bundle in bundles:
            assert set(bundle["content"]["files"]) == {"update.safetensors", RECORD, "record.dsse.json"}


def test_run_again_nothing_is_computed_and_nothing_entered(
    released: Federation, three: Three, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "begin", lambda *given: pytest.fail("a step was done again"))
    run = federate(released.task, three[1], say=quiet)
    assert model_digest(run) == model_digest(released)
    assert len(rounds(run)) == 2


def test_a_round_made_again_takes_the_updates_that_are_there_but_for_a_tampered_one(
    released: Federation, three: Three, tmp_path: Path
) -> None:
    """The sites are elsewhere now, and compute nothing."""
    sites = [Site(site.name, str(tmp_path / site.name), site.key) for site in three[1]]
    for site in three[1]:
        shutil.copytree(site.store, tmp_path / site.name)
    task = replace(released.task, store=str(tmp_path / "store"), folder=tmp_path / "runs")

    def again() -> Federation:
        shutil.rmtree(task.folder, ignore_errors=True)
        shutil.copytree(released.home, task.folder / released.order.run)
        shutil.rmtree(task.folder / released.order.run / "0002")
        return federate(task, sites, say=quiet)

    assert model_digest(again()) == model_digest(released)
    files = [path for path in (tmp_path / "north" / "federated").rglob("0002-*") if path.suffix != ".json"]
    weights = max(files, key=lambda path: path.stat().st_size)
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    without = again()
    assert left_out(rounds(without)[-1]) == [("north", "damaged")]
    assert [line["site"] for line in rounds(without)[-1].detail["sites"]] == ["east", "south"]
    assert model_digest(without) != model_digest(released)


def test_below_the_quorum_there_is_no_model_until_the_site_can_take_part(
    three: Three, dataset: Path, trunk: Path, table: pa.Table, tmp_path: Path
) -> None:
    write_sites(tmp_path, {"bad": pa.table({"label": ["a secret of the site"]})})
    shutil.copytree(three[1][0].folder / "raw", tmp_path / "good" / "raw")  # type: ignore[operator]
    sites = write_sites(tmp_path, {"bad": table, "good": table})
    task = coordinator(tmp_path / "c", dataset, trunk, rounds=1, quorum=2)
    with pytest.raises(RefusalError, match="1 of 2 updates go in, and the quorum is 2"):
        federate(task, sites, say=quiet)
    (entry,) = entries_of(task.store)
    assert left_out(entry) == [("bad", "failed")]
    assert "secret" not in json.dumps(entry.as_dict()), "what the site said of its data stays in its log"
    assert not list(task.folder.glob("*/0001/model"))
    shutil.rmtree(tmp_path / "bad" / "raw")
    shutil.copytree(three[1][1].folder / "raw", tmp_path / "bad" / "raw")  # type: ignore[operator]
    run = federate(task, sites, say=quiet)
    assert [line["site"] for line in rounds(run)[-1].detail["sites"]] == ["bad", "good"]
    assert len(rounds(run)) == 2


class Clock:
    """One that only sleep moves: nobody is late while another works."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_site_that_dies_again_and_again_is_left_out_and_one_that_says_nothing_is_late(
    dataset: Path, trunk: Path, table: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftline.federated.rounds.take_part", parts.die)
    monkeypatch.setattr("graftline.federated.rounds.time", Clock())
    key = make_first(tmp_path / "far" / "keys")
    (tmp_path / "far.pem").write_text(next(iter(key.values())).public.pem)
    far = {"store": "far/store", "key": "far.pem"}
    sites = write_sites(tmp_path, {"near": table}, far=far)
    task = coordinator(tmp_path / "c", dataset, trunk, rounds=1, late=4)
    with pytest.raises(RefusalError, match="0 of 2 updates"):
        federate(task, sites, say=quiet)
    (entry,) = entries_of(task.store)
    assert left_out(entry) == [("far", "late"), ("near", "died")]
    assert "3 times, the last time by signal 9" in entry.detail["left_out"][1]["reason"]


def test_a_site_elsewhere_joins_with_a_command_of_its_own(
    dataset: Path, trunk: Path, table: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftline.federated.rounds._POLL", 0.05)
    keys = tmp_path / "far" / "keys"
    (tmp_path / "far.pem").write_text(next(iter(make_first(keys).values())).public.pem)
    add_trusted(keys, load_keyring().signer().public)
    parts.write_site(tmp_path / "far", table)
    sites = write_sites(tmp_path, {}, far={"store": "far/store", "key": "far.pem"})
    task = coordinator(tmp_path / "c", dataset, trunk, rounds=2)
    command = [sys.executable, "-m", "graftline.cli", "join", "digits", "--coordinator", task.store, "--store"]
    command += [sites[0].store, "--folder", str(tmp_path / "far"), "--every", "0.05", "--threads", "1"]
    site = forked.Popen(command, env=os.environ | {"GRAFTLINE_KEYS": str(keys)})
    try:
        run = federate(task, sites, say=quiet)
        assert site.wait(60) == 0, "it ends with the run"
    finally:
        site.kill()
    assert [line["site"] for entry in rounds(run) for line in entry.detail["sites"]] == ["far", "far"]


def test_a_site_that_the_coordinator_does_not_know_computes_nothing(
    released: Federation, table: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_first(tmp_path / "keys")
    add_trusted(tmp_path / "keys", load_keyring().signer().public)
    parts.write_site(tmp_path, table)
    (name,) = newest_orders(open_store(released.task.store), "digits", released.order.run)
    given = (released.task.store, "digits", released.order.run, name)
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "keys"))
    with pytest.raises(InputError, match="is not among those of east, north, south"):
        take_part(Here(tmp_path, str(tmp_path / "store")), *given)
    assert not list((tmp_path / "federated").glob("*/*")), "nothing of the order stays"
    monkeypatch.setenv("GRAFTLINE_KEYS", str(tmp_path / "others"))
    with pytest.raises(InputError, match=r"not known here.*trust the coordinator's key"):
        take_part(Here(tmp_path, str(tmp_path / "store")), *given)
    assert not (tmp_path / "store").exists()


def test_orders_for_other_sites_end_no_look_while_one_is_for_this_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as those of a run that was given up, and begun again with more sites."""
    store, others, ours, asked = open_store(str(tmp_path / "c")), "a" * 16, "b" * 16, []
    for run in (others, ours):
        put_bundle(store, prefix("digits", run), f"0001-{'0' * 16}", {})

    def answer(here: Here, coordinator: str, task: str, run: str, name: str) -> None:
        asked.append(run)
        if run == others or len(asked) > 2:
            raise NotAskedError("order", "for others")

    monkeypatch.setattr("graftline.federated.taking_part.take_part", answer)
    here = Here(tmp_path, str(tmp_path / "s"))
    assert serve_once(here, store.url, "digits") and asked == [others, ours]
    with pytest.raises(NotAskedError, match="for others"):
        serve_once(here, store.url, "digits")


def test_a_site_has_a_store_of_its_own(dataset: Path, trunk: Path, table: pa.Table, tmp_path: Path) -> None:
    """In the coordinator's each order would be taken for its own answer, and no round would say why it has none."""
    task = coordinator(tmp_path / "c", dataset, trunk)
    (site,) = write_sites(tmp_path, {"north": table})
    with pytest.raises(InputError, match="the store of north is the coordinator's"):
        federate(task, [replace(site, store=f"{task.store}/")], say=quiet)
    with pytest.raises(InputError, match="a store of this site's own"):
        serve_once(Here(tmp_path / "north", task.store), f"{task.store}/", "digits")


def test_an_attack_on_rows_that_are_at_the_sites_is_refused(
    dataset: Path, trunk: Path, table: pa.Table, tmp_path: Path
) -> None:
    task = coordinator(tmp_path / "c", dataset, trunk)
    evaluate = {**parts.DOCUMENT["evaluate"], "membership": {}}
    task = replace(task, document={**task.document, "evaluate": evaluate})
    with pytest.raises(InputError, match=r"evaluate.membership: beside federated rounds"):
        federate(task, write_sites(tmp_path, {"north": table}), say=quiet)


def test_rounds_with_privacy_promise_the_sum_of_what_their_sites_spent(
    dataset: Path, trunk: Path, table: pa.Table, tmp_path: Path
) -> None:
    """One site has more rows than the other, so each spends another epsilon; the larger one counts, in each round."""
    privacy = {"epsilon": 4.0, "delta": 1e-4, "noise": "seeded"}
    task = coordinator(tmp_path / "c", dataset, trunk, local_steps=2)
    finetune = parts.DOCUMENT["finetune"] | {"privacy": privacy}
    task = replace(task, document={**task.document, "finetune": finetune})
    sites = write_sites(tmp_path, {name: rows for name, rows in thirds(table).items() if name != "south"})
    run = federate(task, sites, say=quiet)
    spent = []
    for entry in rounds(run):
        keys = [f"records/{line['record']}.json" for line in entry.detail["sites"]]
        kept = [parse_record(open_store(task.store).get(key).data, key) for key in keys]
        spent.append(max(record.metrics["epsilon"] for record in kept))
    promise = read_promise(run.model(2))
    assert promise is not None and promise["rounds"] == len(spent) == 2
    assert promise["epsilon"] == pytest.approx(sum(spent)) and promise["delta"] == pytest.approx(2e-4)
    assert verify(run.model(2)).metrics["epsilon"] == promise["epsilon"] > 5.0
    assert "in 2 federated rounds" in told(promise)[0] and "coordinator's own rows" in " ".join(outside(promise))


def test_a_site_refuses_deltas_that_add_up_to_no_promise_before_it_computes(
    released: Federation, dataset: Path, trunk: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = pq.read_metadata(dataset / "train.parquet").num_rows
    privacy = {"epsilon": 4.0, "delta": 0.6 / rows, "noise": "seeded"}
    document = parts.DOCUMENT | {"finetune": parts.DOCUMENT["finetune"] | {"privacy": privacy}}
    given = {"in_dataset": dataset, "in_trunk": trunk, "in_start": released.model(0)}
    assert small.run("finetune", document, **given, out_model=tmp_path / "model") == 2
    said = capfd.readouterr().err
    assert f"for {rows} units of privacy (row) over 2 federated rounds; expected less than 1/{2 * rows}: " in said
    assert not (tmp_path / "model").exists()


def test_fedprox_stays_nearer_to_the_rounds_model(
    released: Federation, dataset: Path, trunk: Path, tmp_path: Path
) -> None:
    far, start = [], Weights.of(released.model(1))
    for mu in (0.001, 1000.0):
        document = parts.DOCUMENT | {"federated": {"algorithm": "fedprox", "mu": mu}}
        given = {"in_dataset": dataset, "in_trunk": trunk, "in_start": released.model(1)}
        small.make("finetune", document, **given, out_model=tmp_path / str(mu))
        record = verify(tmp_path / str(mu))
        assert record.metrics["round"] == 2
        assert record.parameters["federated"]["mu"] == mu
        moved = Weights.of(tmp_path / str(mu))
        far.append(sum(float(np.square(moved.read(n) - before).sum()) for n, before in start.each() if before.ndim))
    assert far[1] < 0.5 * far[0]
