"""sites.yaml and the section `federated`: what is refused, in one line that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graftline.errors import InputError
from graftline.federated.sites import read_sites
from graftline.signing.keys import make_private
from graftline.tasks.documents import check_parameters
from graftline.tasks.federated import FederatedParams
from graftline.tasks.finetune import FinetuneParams
from graftline.tasks.parameters import COMPONENTS

PEM = make_private()[1].pem


def indented(pem: str) -> str:
    return "\n".join(f"      {line}" for line in pem.splitlines())


def test_sites_come_in_the_order_of_their_names_with_absolute_places(tmp_path: Path) -> None:
    (tmp_path / "b" / "raw").mkdir(parents=True)
    (tmp_path / "a.pem").write_text(PEM)
    (tmp_path / "sites.yaml").write_text(
        "sites:\n- {name: b, store: b/store, folder: b}\n- {name: a, store: 's3://bucket/a', key: a.pem}\n"
    )
    first, second = read_sites(tmp_path / "sites.yaml")
    assert (first.name, first.store, first.key.pem, first.folder) == ("a", "s3://bucket/a", PEM, None)
    assert (second.name, second.store, second.folder) == ("b", str(tmp_path / "b/store"), tmp_path / "b")
    assert read_sites(tmp_path / "sites.yaml")[1].key == second.key, "its key is made once"


@pytest.mark.parametrize(("twice", "message"), [("store", "/s stands twice"), ("folder", "/a stands twice")])
def test_two_sites_share_neither_a_store_nor_a_folder(twice: str, message: str, tmp_path: Path) -> None:
    """In one store each would take the other's answer for its own."""
    for name in "ab":
        (tmp_path / name / "raw").mkdir(parents=True)
        (tmp_path / f"{name}.pem").write_text(make_private()[1].pem)
    stores, folders = ("s", "s/") if twice == "store" else ("s", "t"), "ab" if twice == "store" else "aa"
    lines = [
        f"- {{name: {n}, key: {n}.pem, store: {s}, folder: {f}}}\n"
        for n, s, f in zip("ab", stores, folders, strict=False)
    ]
    (tmp_path / "sites.yaml").write_text("sites:\n" + "".join(lines))
    with pytest.raises(InputError, match=message):
        read_sites(tmp_path / "sites.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sites: []\n", "sites"),
        ("sites:\n- {name: a, store: a}\n", "key: missing; expected the site's public key"),
        ("sites:\n- {name: a, store: a, key: nowhere.pem}\n", "nowhere.pem does not exist"),
        ("sites:\n- {name: a, store: a, folder: nowhere}\n", "has no raw/"),
        ("sites:\n- {name: ../a, store: a}\n", "name"),
        ("sites:\n- {name: a, store: a, rows: 5}\n", "rows: unknown key"),
        (f"sites:\n- name: a\n  store: a\n  key: |\n{indented('-----BEGIN PUBLIC KEY-----')}\n", "no public key"),
        (
            "sites:\n" + "".join(f"- name: {n}\n  store: s\n  key: |\n{indented(PEM)}\n" for n in "ab"),
            "stands twice; expected a key for each site",
        ),
        ("sites:\n" + f"- name: a\n  store: s\n  key: |\n{indented(PEM)}\n" * 2, "name a stands twice"),
    ],
)
def test_wrong_sites_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "sites.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        read_sites(tmp_path / "sites.yaml")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("federated", "finetune", "message"),
    [
        ({"algorithm": "fedprox"}, {}, "fedprox has a mu"),
        ({"mu": 0.1}, {}, "fedprox has a mu"),
        ({"rounds": 0}, {}, "rounds"),
        ({"max_share": 0}, {}, "max_share"),
        ({"norm_bond": 1}, {}, "did you mean 'norm_bound'?"),
        ({}, {"probe_below": 5}, "does not go on from a round's model"),
        (
            {"rounds": 50},
            {"privacy": {"epsilon": 1, "delta": 0.01}},
            "finetune.privacy.delta: 0.01 in each of 50 rounds: together 0.5; expected a sum below 0.5",
        ),
    ],
)
def test_wrong_parameters_are_refused(federated: dict[str, Any], finetune: dict[str, Any], message: str) -> None:
    document = {"task": "t", **{name: {} for name in COMPONENTS}, "finetune": finetune, "federated": federated}
    with pytest.raises(InputError) as error:
        check_parameters(document, "params.yaml", "t")
    assert message in str(error.value)


def test_a_task_need_not_be_federated() -> None:
    check_parameters({"task": "t", **{name: {} for name in COMPONENTS}}, "params.yaml", "t")


def test_a_site_takes_all_its_steps_and_other_batches_each_round() -> None:
    params, finetune = FederatedParams(local_epochs=3, local_steps=7), FinetuneParams(epochs=50, seed=2**31 - 1)
    first, second = (params.at_a_site(finetune, number) for number in (1, 2))
    assert (first.epochs, first.min_steps, first.patience, first.seed) == (3, 7, None, 2**31 - 1)
    assert second.seed == 0
