"""The head question_answering: questions about real glosses, from the raw data to a release that is asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import small
import small_questions
import small_text
import torch
from pydantic import ValidationError

from graftline.cli.app import main
from graftline.dataset import read_schema, read_split
from graftline.errors import InputError
from graftline.evaluation.lift import Experiment, load_split, measure_lift
from graftline.learning.randomness import generator
from graftline.pipelines.compile import compiled
from graftline.problems.fit import select
from graftline.problems.model import load_model
from graftline.problems.question_answering.parameters import QuestionAnsweringParams
from graftline.problems.question_answering.problem import KINDS, QuestionAnswerer, QuestionAnswering
from graftline.problems.question_answering.scores import f1
from graftline.problems.question_answering.windows import Windows, windows
from graftline.problems.reading import alike, lost_tokens
from graftline.report import write_report
from graftline.store.opening import open_store
from graftline.tasks.finetune import FinetuneParams
from graftline.text.tokenizer import load_tokenizer
from graftline.values.span import Answer

MARGIN = 0.15
"""By how much the model must be better than always answering that there is no answer."""
EVALUATE: dict[str, Any] = {
    "lift_labels": [8], "lift_seeds": 2, "lift_epochs": 1, "lift_test_rows": 20, "mistakes": 5,
    "gate": {"floors": {"f1": 0.3}, "min_lift": {}},
}  # fmt: skip


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the outputs of all five components, and the store with digits@1."""
    home = tmp_path_factory.getbasetemp()
    document = {"finetune": small_questions.FINETUNE, "evaluate": EVALUATE}
    return small.release_of(small_questions.trunk(home), small_questions.dataset(home), document)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_it_learns_where_answers_stand_and_that_there_are_none(released: Path) -> None:
    metrics, test = read(released / "evaluation/metrics.json"), read_split(released / "dataset", "test", KINDS)
    empty = sum(not answers for answers in test.label) / len(test.rows)
    assert 0.1 < empty < 0.5
    assert metrics["primary"] == "f1" and metrics["f1"] > empty + MARGIN
    assert sorted(metrics["scores"]) == ["answered_f1", "exact_match", "f1", "no_answer_auroc"]
    assert metrics["answered_f1"] > 0.3 and metrics["no_answer_auroc"] > 0.6
    assert metrics["f1_low"] < metrics["f1"] < metrics["f1_high"]
    lift = read(released / "evaluation/lift.json")
    assert lift["amount"] == "questions" and {run["examples"] for run in lift["runs"]} == {8}


def test_the_table_of_predictions_says_what_was_answered_and_where(released: Path) -> None:
    table = pq.read_table(released / "evaluation/predictions.parquet").to_pylist()
    test = read_split(released / "dataset", "test", KINDS)
    assert [line["row"] for line in table] == test.rows.tolist()
    for line, context, answers in zip(table, test.features[1], test.label, strict=True):
        assert line["answers"] == [answer.text for answer in answers]
        if line["predicted"]:
            assert context[line["start"] :].startswith(line["predicted"])
        assert line["f1"] == f1(line["predicted"], line["answers"])
    assert read(released / "evaluation/metrics.json")["f1"] == pytest.approx(np.mean([line["f1"] for line in table]))


def test_the_report_marks_answers_and_shows_what_simple_rules_reach(released: Path, tmp_path: Path) -> None:
    page = write_report(released, open_store(str(released / "store")), tmp_path / "report.html").read_text()
    sections = {section["title"]: section for section in read(released / "evaluation/sections.json")}
    rules = {line[0]: tuple(line[1:]) for line in sections["Against simple rules"]["lines"]}
    test = read_split(released / "dataset", "test", KINDS)
    empty = sum(not answers for answers in test.label) / len(test.rows)
    assert rules["no answer, always"] == (f"{empty:.1%}", f"{empty:.1%}", "0.0%")
    assert len(rules) == 4 and f"{read(released / 'evaluation/metrics.json')['f1']:.1%}" == rules["this model"][0]
    right = sections["Right answers"]["lines"]
    assert any(f"»[{line[2]}]«" in line[1] and line[2] == line[3] for line in right), "both marks around one place"
    assert "Against simple rules" in page and "»[" in page


def test_windows_are_those_of_the_tokenizers_library(released: Path) -> None:
    """Its own way to read a long text: `truncation="only_second"` with a stride."""
    trunk = released / "trunk"
    tokenizer = load_tokenizer(trunk)
    text = "an \u00dcber-poet of Rome; (born in Gaul) wrote odes, 1066 of them and more. " * 9
    at = text.index("Gaul", 300)
    params = QuestionAnsweringParams(max_tokens=48, max_question_tokens=12, stride=10)
    question = "who was born in Gaul?"
    found = windows(trunk, params, [(question, text)], np.array([7]), [[Answer("Gaul", at)]])
    theirs = tokenizer(
        question, text, truncation="only_second", max_length=48, stride=10, return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )  # fmt: skip
    assert [ids.tolist() for ids in found.ids.split(found.lengths.tolist())] == theirs["input_ids"]
    assert len(found) > 3 and found.units()["windows"].tolist() == [len(found)]
    assert found.labels is not None
    for window, (first, last) in enumerate(found.labels.tolist()):
        mapping, owners = theirs["offset_mapping"][window], theirs.encodings[window].sequence_ids
        inside = [place for place, owner in enumerate(owners) if owner == 1]
        whole = mapping[inside[0]][0] <= at and at + 4 <= mapping[inside[-1]][1]
        assert (first > 0) == whole
        if whole:
            assert found.stretch(window, first, last) == Answer("Gaul", at)
        assert found.stretch(window, inside[2], inside[5]).text == text[mapping[inside[2]][0] : mapping[inside[5]][1]]
    assert sum(first > 0 for first, _ in found.labels.tolist()) >= 1


def test_examples_are_taken_and_made_again_as_they_were(released: Path) -> None:
    examples = QuestionAnswering(QuestionAnsweringParams(max_tokens=40, max_question_tokens=20, stride=4)).read(
        released / "dataset", "test", released / "trunk"
    )
    chosen = torch.tensor([5, 0, 11])
    taken = examples.take(chosen)
    for place, window in enumerate(chosen.tolist()):
        assert taken.right_answers(place) == examples.right_answers(window)
        last = int(taken.lengths[place]) - 2
        assert taken.stretch(place, last, last) == examples.stretch(window, last, last)
    again = Windows.from_arrays(examples.arrays())
    assert again.digest() == examples.digest() != taken.digest()


def test_questions_are_drawn_and_counted_whole_with_all_their_windows(released: Path, tmp_path: Path) -> None:
    head = QuestionAnsweringParams(max_tokens=40, max_question_tokens=8, stride=4)
    trunk, dataset = released / "trunk", released / "dataset"
    test = QuestionAnswering(head).read(dataset, "test", trunk)
    questions = len(read_split(dataset, "test", KINDS).rows)
    windows_of = dict(zip(*test.units().values(), strict=True))
    assert test.wholes == questions < len(test)
    drawn = select(test, 30, 0, seed=5)
    order = torch.randperm(questions, generator=generator(5, 0, "subset"))[:30].tolist()
    assert list(dict.fromkeys(drawn.rows.tolist())) == [list(windows_of)[place] for place in order]
    mine = dict(zip(*drawn.units().values(), strict=True))
    assert drawn.wholes == 30 < len(drawn) and mine == {row: windows_of[row] for row in mine}
    with pytest.raises(InputError, match=f"but there are {questions} examples"):
        select(test, questions + 1, 0, seed=5)

    params = FinetuneParams(**{**small_questions.FINETUNE, "head": head, "min_steps": 1, "epochs": 1})
    experiment = Experiment(dataset, trunk, params, tmp_path, test_rows=12)
    lift = measure_lift(experiment, (6,), range(2), workers=1)
    assert {run.examples for run in lift.runs} == {6} and load_split(experiment, "test").wholes == 12
    with pytest.raises(InputError, match=f"at most {small_questions.ROWS['train']}, which there are in train"):
        measure_lift(experiment, (small_questions.ROWS["train"] + 1,), range(2), workers=1)

    lost, same = lost_tokens(test), alike(test, test)
    tokenizer = load_tokenizer(trunk)
    asked = read_split(dataset, "test", KINDS).features[0]
    assert lost is not None and same is not None and same.examples == lost.of == questions
    assert lost.examples == sum(len(tokenizer(one, add_special_tokens=False)["input_ids"]) > 8 for one in asked) > 0


def test_an_answer_is_found_far_into_a_long_text(released: Path) -> None:
    model, folder = load_model(released / "model"), released / "model"
    problem = QuestionAnswering(QuestionAnsweringParams(**small_questions.FINETUNE["head"]))
    test = read_split(released / "dataset", "test", KINDS)
    rows = [(q, c, a[0]) for q, c, a in zip(*test.features, test.label, strict=True) if a]
    schema = read_schema(released / "dataset")
    short = problem.ask(folder, model, [(question, context) for question, context, _ in rows], schema)
    right = [row for row, told in zip(rows, short, strict=True) if told["answer"] == row[2].text][:10]
    filler = "a small bird of the northern woods that sings at night. " * 12
    long = problem.ask(folder, model, [(question, filler + context) for question, context, _ in right], schema)
    assert all(told["windows"] > 3 for told in long)
    hits = [told["best"] == answer.text for told, (_, _, answer) in zip(long, right, strict=True)]
    assert len(hits) == 10 and sum(hits) >= 5
    for told, (_, context, _) in zip(long, right, strict=True):
        if told["answer"] is not None:
            assert (filler + context)[told["start"] : told["end"]] == told["answer"]


def test_a_release_is_asked_by_files_and_by_words(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    test = read_split(released / "dataset", "test", KINDS)
    questions, contexts = (column[:20] for column in test.features)
    asked = tmp_path / "questions.jsonl"
    lines = [json.dumps({"question": q, "context": c}) for q, c in zip(questions, contexts, strict=True)]
    asked.write_text("\n".join(lines), encoding="utf-8")

    def predict(*arguments: str, code: int = 0) -> str:
        torch.set_num_threads(1)
        monkeypatch.setattr(
            sys, "argv", ["graftline", "predict", "digits@champion", *arguments, "--store", str(released / "store")]
        )
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert (end.value.code or 0) == code, said.err
        return said.err if code else said.out

    table = pq.read_table(released / "evaluation/predictions.parquet").slice(0, 20).to_pylist()
    found = json.loads(predict(str(asked), "--json"))
    assert [answer["answer"] or "" for answer in found] == [line["predicted"] for line in table]
    assert [answer["start"] for answer in found] == [line["start"] for line in table]
    one = json.loads(predict("--text", questions[0], "--text", contexts[0], "--json"))
    assert [answer["answer"] for answer in one] == [found[0]["answer"]]
    (tmp_path / "page.txt").write_text(contexts[0])
    two = json.loads(predict(str(tmp_path / "page.txt"), "--text", questions[0], "--text", "who?", "--json"))
    assert [answer["question"] for answer in two] == [questions[0], "who?"]
    assert two[0]["answer"] == found[0]["answer"]
    shown = predict(str(asked))
    assert "(no answer)" in shown and "probability" in shown
    assert "1 texts and no file; expected a question and the text" in predict("--text", "who?", code=2)
    assert "a file of type '.jsonl' beside --text" in predict(str(asked), "--text", "who?", code=2)


@pytest.mark.parametrize("architecture", ["modernbert", "bert"])
def test_models_open_with_transformers_alone(
    architecture: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    section = {**small_questions.PRETRAIN, "trunk": {**small_questions.PRETRAIN["trunk"], "architecture": architecture}}
    dataset = small_questions.dataset(tmp_path_factory.getbasetemp())
    small.make("pretrain", {"pretrain": {**section, "epochs": 0.01}}, in_dataset=dataset, out_trunk=tmp_path / "trunk")
    problem = QuestionAnswering(QuestionAnsweringParams(max_tokens=64, max_question_tokens=20, stride=8))
    model = problem.build(tmp_path / "trunk", read_schema(dataset), scratch=False).eval()
    assert isinstance(model, QuestionAnswerer)
    for weight in model.parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.3)
    pairs = [("when was he born?", "Milton: English poet (1608-1674)"), ("when?", "a tree")]
    model.save(tmp_path)
    examples = windows(tmp_path, problem.params, pairs, np.arange(2))
    ours = model.logits(examples).split(examples.lengths.tolist())
    asked = examples.askable.split(examples.lengths.tolist())
    alone = AutoModelForQuestionAnswering.from_pretrained(tmp_path, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    for pair, logits, chosen in zip(pairs, ours, asked, strict=True):
        with torch.inference_mode():
            theirs = alone(**tokenizer(*pair, return_tensors="pt"))
        for place, name in enumerate(("start_logits", "end_logits")):
            assert torch.allclose(theirs[name][0][chosen], logits[chosen, place], atol=1e-4)


def test_a_head_that_cannot_be_is_refused(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(ValidationError, match="max_tokens 64 leaves no room beside"):
        QuestionAnsweringParams(max_tokens=64)
    home = tmp_path_factory.getbasetemp()
    dataset, trunk = small_questions.dataset(home), small_questions.trunk(home)
    params = QuestionAnsweringParams(max_tokens=200, max_question_tokens=40, stride=30)
    with pytest.raises(InputError, match="room for both and some of the text in the 64 tokens that the model reads"):
        windows(trunk, params, [("who?", "a bird")], np.arange(1))
    section = {**small_text.CAUSAL, "epochs": 0.01}
    small.make("pretrain", {"pretrain": section}, in_dataset=dataset, out_trunk=tmp_path / "trunk")
    problem = QuestionAnswering(QuestionAnsweringParams(**small_questions.FINETUNE["head"]))
    with pytest.raises(InputError, match="a trunk that causal_lm made; expected one that masked_lm made"):
        problem.build(tmp_path / "trunk", read_schema(dataset), scratch=False)


def test_the_shipped_task_is_compiled() -> None:
    made = compiled("questions", overrides={"finetune.head.stride": 16})
    head = json.loads(str(made.parameters["finetune_params"]))["finetune"]["head"]
    assert (head["name"], head["stride"]) == ("question_answering", 16)


class Told(QuestionAnswerer):
    """A model whose logits are given."""

    def __init__(self, logits: torch.Tensor, longest: int) -> None:
        torch.nn.Module.__init__(self)
        self.given, self._longest, self.threshold = logits, longest, 0.0

    def logits(self, examples: Windows, *, fast: bool = False) -> torch.Tensor:
        return self.given


@pytest.mark.parametrize("best", ["born in Gaul", "Gaul"])
def test_the_best_stretch_of_all_windows_is_the_answer(best: str, released: Path) -> None:
    """The last window holds both; the first one is the least sure that there is no answer."""
    text = "an odd poet of Rome, born in Gaul. " * 4
    params = QuestionAnsweringParams(max_tokens=32, max_question_tokens=8, stride=8)
    examples = windows(released / "trunk", params, [("who?", text)], np.array([3]))
    last, marks = int(examples.offsets[-2]), examples.offsets[:-1]
    part = examples.text[int(examples.text_offsets[-2]) :].numpy().tobytes().decode()
    at = part.index("born")
    born, gaul = (last + examples.begins[last:].tolist().index(at + before) for before in (0, len("born in ")))
    end = last + examples.ends[last:].tolist().index(at + len("born in Gaul"))
    logits = torch.full((len(examples.ids), 2), -1e9)
    logits[examples.askable] = 0.0
    logits[marks] = torch.arange(len(marks))[:, None] + 1.0  # no answer: 2 in the first window, more in the others
    logits[born, 0], logits[gaul, 0], logits[end, 1] = 4.0, 3.0, 5.0
    (found,), _ = Told(logits, end + 1 - (born if best.startswith("born") else gaul)).find(examples)
    assert found.best is not None and found.best.text == best
    assert found.best.start == int(examples.first[-1]) + part.index(best, at), "in the whole text"
    assert text[found.best.start :].startswith(best) and found.best.start > len(text) / 2
    assert found.margin == pytest.approx((9.0 if best.startswith("born") else 8.0) - 2.0), "against the first window's"
