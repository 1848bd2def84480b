"""The head sequence_to_sequence: help texts in English and German, from the raw data to a release that is asked."""

from __future__ import annotations

import json
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small
import small_text
import small_writing
import torch
from sacrebleu.metrics import BLEU as WORDS
from sacrebleu.metrics import CHRF as CHARACTERS

from graftline.cli.app import main
from graftline.dataset import read_schema
from graftline.errors import InputError
from graftline.learning.distributed import World
from graftline.problems.model import load_model, read_problem
from graftline.problems.reading import lost_tokens
from graftline.problems.sequence_to_sequence.pairs import Pairs
from graftline.problems.sequence_to_sequence.parameters import SequenceToSequenceParams
from graftline.problems.sequence_to_sequence.problem import SequenceToSequence, Writer
from graftline.problems.sequence_to_sequence.scores import bleu_rows, chrf_rows, items, kept_rows, signatures
from graftline.report import write_report
from graftline.store.opening import open_store
from graftline.text.tokenizer import load_tokenizer

LIFT = {"lift_labels": [40], "lift_seeds": 2, "lift_test_rows": 20, "mistakes": 5}
ALONE = """
import json, sys
sys.modules["graftline"] = None
import torch, transformers
torch.set_num_threads(1)
folder, texts = json.loads(sys.stdin.read())
model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, local_files_only=True).eval()
tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
found = model.generate(**tokenizer(texts, padding=True, return_tensors="pt"))
print(json.dumps(tokenizer.batch_decode(found, skip_special_tokens=True)))
"""
WRITTEN = ["Die Datei wird geöffnet.", "", "a", "Klicken Sie auf Datei - Öffnen und dann auf OK.", "Seite 12 von 30"]
WANTED = ["Die Datei wird geschlossen.", "Leer", "b", "Klicken Sie auf Datei – Öffnen.", "Seite 12 von 31"]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the outputs of all five components, and the store with digits@1."""
    home = tmp_path_factory.getbasetemp()
    document = {"finetune": small_writing.FINETUNE, "evaluate": {**LIFT, "gate": {}}}
    return small.release_of(small_writing.trunk(home), small_writing.dataset(home), document)


@pytest.fixture(scope="module")
def model(released: Path) -> Writer:
    found = load_model(released / "model")
    assert isinstance(found, Writer)
    return found


@pytest.fixture(scope="module")
def test_rows(released: Path) -> Pairs:
    found: Pairs = read_problem(released / "model").read(released / "dataset", "test", released / "model")
    return found


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("draws", [[1, 1, 1, 1, 1], [3, 0, 1, 0, 2], [0, 5, 0, 0, 0], [0, 0, 4, 0, 0], [0, 1, 1, 2, 0]])
def test_scores_are_those_of_sacrebleu_on_the_rows_that_are_drawn(draws: list[int]) -> None:
    written = [text for text, count in zip(WRITTEN, draws, strict=True) for _ in range(count)]
    wanted = [text for text, count in zip(WANTED, draws, strict=True) for _ in range(count)]
    weights = np.array([draws], dtype=np.float64)
    for metric, rows in ((CHARACTERS(), chrf_rows), (WORDS(), bleu_rows)):
        found = rows(np.arange(5), WRITTEN, WANTED).values(weights)
        assert 100 * found[0] == pytest.approx(metric.corpus_score(written, [wanted]).score, abs=1e-9)


def test_placeholders_and_numbers_count_as_often_as_both_texts_have_them() -> None:
    found = items("Save %PRODUCTNAME as {0} in 12 or 12 <em>files</em> &amp; $[officename], %1$s")
    assert found == Counter(["%PRODUCTNAME", "{0}", "12", "12", "<em>", "</em>", "&amp;", "$[officename]", "%1$s"])
    measured = kept_rows(np.arange(3), ["2 of 3", "2", "no"], ["3 3", "", "5"], ["3 von 2", "zwei", "nein"])
    assert measured.statistics.tolist() == [[1, 2], [0, 0], [0, 0]]
    assert measured.value == 0.5


def test_the_record_says_how_scores_count(released: Path) -> None:
    assert signatures() == {
        "chrf": "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0",
        "bleu": "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0",
    }
    record = (released / "evaluation/record.json").read_text()
    assert all(signature in record for signature in signatures().values())


def test_it_is_measured_with_intervals_and_lift(released: Path) -> None:
    metrics = read(released / "evaluation/metrics.json")
    assert metrics["primary"] == "chrf" and {"chrf", "bleu"} <= metrics["scores"].keys()
    assert metrics["chrf_low"] <= metrics["chrf"] <= metrics["chrf_high"] < 1
    lift = read(released / "evaluation/lift.json")
    assert lift["amount"] == "pairs" and {run["examples"] for run in lift["runs"]} == {40}
    predictions = pq.read_table(released / "evaluation/predictions.parquet")
    assert {"row", "written", "ended"} <= set(predictions.column_names)
    test = pq.read_table(released / "dataset/test.parquet").to_pydict()
    references = dict(zip(test["row"], test["german"], strict=True))
    wanted = [references[row] for row in predictions["row"].to_pylist()]
    score = CHARACTERS().corpus_score(predictions["written"].to_pylist(), [wanted]).score
    assert 100 * metrics["chrf"] == pytest.approx(score, abs=1e-9)


def test_transformers_alone_writes_the_same(released: Path, model: Writer) -> None:
    texts = ["Click OK.", "Opens the file.", "Insert a table into the document"]
    given = json.dumps([str(released / "model"), texts])
    done = forked.run([sys.executable, "-I", "-c", ALONE], input=given, text=True)
    assert done.returncode == 0, done.stderr
    schema, problem = read_schema(released / "dataset"), read_problem(released / "model")
    answers = problem.ask(released / "model", model, texts, schema)
    assert [answer["text"] for answer in answers] == json.loads(done.stdout)
    assert answers == problem.ask(released / "model", model, texts, schema)


def test_predict_writes_for_a_person_and_for_a_program(
    released: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["--text", "Click OK.", "--text", "Insert the table " * 40]
    for options in ([], ["--json"]):
        command = ["graftline", "predict", "digits@1", *texts, "--store", str(released / "store"), *options]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code in (0, None)
        out, err = capsys.readouterr()
        assert "1 of 2 are longer than the model reads" in err
    first, second = json.loads(out)
    assert first["cut"] == 0 and second["cut"] > 0 and isinstance(first["ended"], bool)


def test_the_report_has_a_table_of_source_reference_and_output(released: Path) -> None:
    page = write_report(released, open_store(str(released / "store")), released / "report.html").read_text()
    assert "What the model writes" in page and "nc:6" in page
    sections = read(released / "evaluation/sections.json")
    assert sections[0]["header"] == ["english", "german", "written", "chrF"]
    assert [len(section["lines"]) for section in sections] == [5, 5]


def test_what_is_cut_is_counted_on_both_sides_and_a_cut_text_teaches_no_end(released: Path) -> None:
    params = SequenceToSequenceParams(max_tokens=8)
    found = SequenceToSequence(params).read(released / "dataset", "test", released / "model")
    tokenizer = load_tokenizer(released / "model")
    sources, wanted = found.texts()
    lost = 0
    for place, (source, text) in enumerate(zip(sources, wanted, strict=True)):
        ids, target = tokenizer(source)["input_ids"], tokenizer(text)["input_ids"]
        mine = found.target[found.target_offsets[place] : found.target_offsets[place + 1]].tolist()
        assert mine == target[:8]
        assert (mine[-1] == tokenizer.eos_token_id) == (len(target) <= 8)
        assert found.cut is not None
        assert found.cut[place] == max(0, len(ids) - 8) + max(0, len(target) - 8)
        lost += len(ids) > 8 or len(target) > 8
    told = lost_tokens(found)
    assert told is not None and told.examples == lost and told.most == 8


def test_the_loss_is_transformers_own_and_several_processes_share_it(model: Writer, test_rows: Pairs) -> None:
    some = test_rows.take(torch.tensor([3, 0, 7, 11, 5]))
    whole, total = model.loss(some, 0, 0).detach(), 0.0
    with torch.no_grad():
        for source, target in zip(some.to_write().source, some.to_write().target, strict=True):
            before = torch.cat([torch.tensor([1]), target[:-1].long()])[None]
            found = model.network(input_ids=source[None].long(), decoder_input_ids=before, labels=target[None].long())
            total += float(found.loss) * len(target)
    assert whole.item() == pytest.approx(total / len(some.target), rel=0.02)  # bfloat16 where the CPU has it
    parts = [float(model.loss(some, 0, 0, World(rank=rank, size=2, local_size=2))) for rank in range(2)]
    assert sum(parts) == pytest.approx(float(whole), rel=0.01)


def test_pairs_are_taken_and_shared_as_they_are(test_rows: Pairs) -> None:
    chosen = torch.tensor([4, 1, 1])
    some = test_rows.take(chosen)
    for mine, every in zip(some.texts(), test_rows.texts(), strict=True):
        assert mine == [every[place] for place in chosen]
    assert (
        Pairs.from_arrays(some.arrays()).digest() == some.digest() != test_rows.take(torch.tensor([4, 1, 2])).digest()
    )


def test_it_learns_pairs_by_heart_that_it_sees_often(released: Path) -> None:
    """The head learns: after many steps on few pairs, greedy search writes them."""
    problem, schema = SequenceToSequence(SequenceToSequenceParams(max_tokens=32)), read_schema(released / "dataset")
    torch.manual_seed(0)
    model = problem.build(released / "trunk", schema, scratch=False)
    few = problem.read(released / "dataset", "train", released / "trunk").take(torch.arange(8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(120):
        optimizer.zero_grad()
        model.loss(few, 0, step).backward()
        optimizer.step()
    assert model.answer(few, fast=True).value > 0.9  # type: ignore[attr-defined]


def test_the_same_head_learns_to_summarise_by_other_columns(tmp_path: Path) -> None:
    """A document is two help texts; its summary is the first of them."""
    texts = small_writing.pairs()["english"]
    rows = {"document": [f"{one} {other}" for one, other in pairwise(texts)], "summary": texts[:-1]}
    (tmp_path / "raw").mkdir()
    pq.write_table(pa.table({name: column[:200] for name, column in rows.items()}), tmp_path / "raw/a.parquet")
    (tmp_path / "expectations.yaml").write_text(
        small_writing.CONTRACT.replace("english", "document").replace("german", "summary")
    )
    inputs = {"in_raw": tmp_path / "raw", "in_expectations": tmp_path / "expectations.yaml"}
    small.make("validate", {}, **inputs, out_dataset=tmp_path / "dataset", store=tmp_path / "store")
    pretrain = {**small_writing.PRETRAIN, "epochs": 0.1}
    small.make("pretrain", {"pretrain": pretrain}, in_dataset=tmp_path / "dataset", out_trunk=tmp_path / "trunk")
    finetune = {**small_writing.FINETUNE, "min_steps": 2, "epochs": 1, "joint_weight": 0.5}
    inputs = {"in_dataset": tmp_path / "dataset", "in_trunk": tmp_path / "trunk"}
    small.make("finetune", {"finetune": finetune}, **inputs, out_model=tmp_path / "model")
    assert 0 <= read(tmp_path / "model/metrics.json")["val_chrf"] <= 1


def test_what_does_not_fit_is_refused_in_a_line(released: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    problem, schema = SequenceToSequence(SequenceToSequenceParams()), read_schema(released / "dataset")
    with pytest.raises(InputError, match="a trunk that masked_lm made; expected one that denoising made"):
        problem.build(small_text.trunk(tmp_path_factory.getbasetemp()), schema, scratch=False)
    with pytest.raises(InputError, match="no layer of its own"):
        problem.build(released / "trunk", schema, scratch=True).freeze_trunk()


def test_pairs_with_an_empty_side_or_equal_sides_go_to_the_quarantine(tmp_path: Path) -> None:
    texts = small_writing.pairs()
    rows = {name: column[:120] for name, column in texts.items()}
    rows["german"][3], rows["english"][5], rows["german"][8] = "", "  ", f"{rows['english'][8]} "
    (tmp_path / "raw").mkdir()
    pq.write_table(pa.table(rows), tmp_path / "raw/a.parquet")
    (tmp_path / "expectations.yaml").write_text(small_writing.CONTRACT)
    inputs = {"in_raw": tmp_path / "raw", "in_expectations": tmp_path / "expectations.yaml"}
    document = {"validate": {"max_bad_fraction": 0.1}}
    small.make("validate", document, **inputs, out_dataset=tmp_path / "dataset", store=tmp_path / "store")
    bad = pq.read_table(tmp_path / "dataset/quarantine.parquet").to_pydict()
    assert dict(zip(bad["row"], bad["rule"], strict=True)) == {
        3: "german.min_length", 5: "english.min_length", 8: "german.differs_from"
    }  # fmt: skip
