"""What each problem says of its inputs: words on both sides, pixels, attention; on trunks that the components made."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_clips
import small_questions
import small_text
import torch

from graftline.dataset import Schema, read_schema
from graftline.errors import InputError
from graftline.explain import methods
from graftline.explain.explaining import Explanations
from graftline.explain.faithfulness import measure
from graftline.explain.methods import attention_rollout, completeness_gap, integrated_gradients, occlusion
from graftline.explain.rows import read_rows
from graftline.explain.weights import shuffled
from graftline.problems.decisions import Decision
from graftline.problems.explained_images import ExplainedImages
from graftline.problems.explained_texts import ExplainedTexts
from graftline.problems.fit import Data, fit
from graftline.problems.image_classification.parameters import ImageClassificationParams
from graftline.problems.image_classification.problem import ImageClassifier
from graftline.problems.multi_label.parameters import MultiLabelParams
from graftline.problems.pair_classification.parameters import PairClassificationParams
from graftline.problems.question_answering.parameters import QuestionAnsweringParams
from graftline.problems.registry import make_problem
from graftline.problems.scores import ProblemParams
from graftline.problems.sequence_classification.parameters import SequenceClassificationParams
from graftline.problems.text_generation.parameters import TextGenerationParams
from graftline.tasks.evaluate import EvaluateParams
from graftline.tasks.finetune import FinetuneParams
from graftline.trunks.conv.parameters import ConvParams
from graftline.trunks.conv.trunk import ConvTrunk
from graftline.trunks.vision.parameters import VitParams
from graftline.trunks.vision.trunk import new_trunk
from graftline.values.image import ImageColumn
from graftline.values.text import TextColumn

PLANTED = ("tree", "king")
"""Words that decide the class; all others are noise. Without one of them the class is `none`: else a model could learn
one of the two by the absence of the other, and hiding the word would change nothing."""
NOISE = [
    "a", "the", "of", "small", "large", "used", "by", "having", "with", "red", "green", "old", "that", "is", "from",
    "any", "very", "which", "not", "long",
]  # fmt: skip
COUNT = 300
ONE = Schema(TextColumn("text"), "label", (*PLANTED, "none"))
TWO = Schema(TextColumn("first"), "label", ("no", "yes"), (TextColumn("second"),))
ASKED = Schema(TextColumn("question"), None, (), (TextColumn("context"),))


def sentences(count: int, seed: int, classes: int) -> tuple[list[str], np.ndarray]:
    """Return sentences of noise, of the first classes: each with a planted word somewhere, or with none."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, count)
    texts = []
    for label in labels:
        words = draw.choice(NOISE, draw.integers(6, 12)).tolist()
        if label < len(PLANTED):
            words.insert(int(draw.integers(len(words) + 1)), PLANTED[label])
        texts.append(" ".join(words))
    return texts, labels.astype(np.int64)


@pytest.fixture(scope="module")
def trunk(home: Path) -> Path:
    return small_text.trunk(home)


@pytest.fixture(scope="module")
def planted(trunk: Path) -> ExplainedTexts:
    """What explains a model that has learned to look at the planted words, on sentences that it has not seen."""
    params = FinetuneParams(
        epochs=6, batch=32, learning_rate=0.01, warmup_steps=0, min_steps=10, patience=None,
        head={"name": "sequence_classification"},
    )  # type: ignore[arg-type]  # fmt: skip
    problem: Any = make_problem(params.head, ONE)
    texts, labels = sentences(COUNT, 0, 3)
    train = problem.encode(trunk, texts, np.arange(COUNT), labels)
    torch.manual_seed(0)
    model = fit(trunk, Data(train, None), params, 0, ONE)
    values, right = sentences(40, 1, 2)
    explained = problem.explained(trunk, model, values, ONE)
    assert isinstance(explained, ExplainedTexts)
    assert [PLANTED[label] for label in right] == explained.answers, "the model has learned what is planted"
    return explained


def with_random_head(params: ProblemParams, trunk: Path, schema: Schema) -> tuple[Any, Any]:
    """Return the problem and an untrained model whose answers differ."""
    torch.manual_seed(0)
    problem: Any = make_problem(params, schema)
    model = problem.build(trunk, schema, scratch=False).eval()
    with torch.no_grad():
        for weight in model.head_parameters():
            weight.copy_(torch.randn(weight.shape))
    return problem, model


@pytest.mark.parametrize("method", [integrated_gradients, occlusion])
def test_the_word_that_decides_is_found(planted: ExplainedTexts, method: Any) -> None:
    found = np.where(planted.there, method(planted), -np.inf).argmax(axis=1)
    named = [side[place] for (side,), place in zip(planted.words, found, strict=True)]
    assert named == planted.answers


def test_its_explanations_are_complete_and_better_than_chance(
    planted: ExplainedTexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Explanations.of(planted)
    coarse = made.gap().max()
    monkeypatch.setattr(methods, "STEPS", 96)
    assert completeness_gap(planted, integrated_gradients(planted)).max() < min(0.02, coarse), "it closes"
    blank = planted.by(shuffled(copy.deepcopy(planted.model), 0))
    rows = np.arange(len(planted))
    measured = measure(planted, made.found, Explanations.of(blank).found, rows, resamples=1000, seed=0)
    margins = {one.method: one.margin for one in measured}
    assert margins["integrated_gradients"] is not None and margins["integrated_gradients"] > 0
    assert margins["occlusion"] is not None and margins["occlusion"] > 0


def test_a_hidden_word_is_the_mask_in_place_of_each_of_its_tokens(planted: ExplainedTexts, trunk: Path) -> None:
    explained = planted
    assert explained.hidden == "[MASK]"
    kept = explained.there[:1].copy()
    kept[0, 2] = False
    words = [word if place != 2 else "[MASK]" for place, word in enumerate(explained.words[0][0])]
    assert len(explained.model.tokenizer.tokenize(explained.words[0][0][2])) == 1
    problem: Any = make_problem(FinetuneParams(head={"name": "sequence_classification"}).head, ONE)  # type: ignore[arg-type]
    asked = problem.ask(trunk, explained.model, [" ".join(words)], ONE)[0]["probabilities"]
    (found,) = np.exp(explained.log_probabilities(np.array([0]), kept))
    assert found == pytest.approx(asked[explained.answers[0]], abs=1e-6)


def test_what_the_model_does_not_see_is_no_part(planted: ExplainedTexts, trunk: Path) -> None:
    text = "a the of red green old tree king small"
    problem: Any = make_problem(FinetuneParams(head={"name": "sequence_classification", "max_tokens": 8}).head, ONE)  # type: ignore[arg-type]
    (sides,) = problem.explained(trunk, planted.model, [text], ONE).words
    (seen,), tokenize = sides, planted.model.tokenizer.tokenize
    assert seen == text.split()[: len(seen)]
    assert len(tokenize(" ".join(seen[:-1]))) < 6 <= len(tokenize(" ".join(seen))), "8 tokens are 2 marks and 6 of it"


def test_what_is_explained_is_the_answer_that_costs_choose(planted: ExplainedTexts, trunk: Path) -> None:
    problem: Any = make_problem(FinetuneParams(head={"name": "sequence_classification"}).head, ONE)  # type: ignore[arg-type]
    model, costs = copy.copy(planted.model), np.ones((len(ONE.classes), len(ONE.classes))) * 1e6
    costs[:, -1] = 0.0  # whatever it is, the last class costs nothing
    model.decision = Decision(costs)
    texts = [" ".join(side) for (side,) in planted.words[:3]]
    assert problem.explained(trunk, model, texts, ONE).answers == [ONE.classes[-1]] * 3 != planted.answers[:3]


def test_words_are_coloured_and_escaped(planted: ExplainedTexts, trunk: Path) -> None:
    problem: Any = make_problem(FinetuneParams(head={"name": "sequence_classification"}).head, ONE)  # type: ignore[arg-type]
    explained = problem.explained(trunk, planted.model, ["a <b>tree</b>"], ONE)
    page = explained.marked(0, np.array([0.0, 1.0]))
    assert "&lt;b&gt;tree&lt;/b&gt;" in page and "<b>" not in page
    assert "rgba(47,111,79,0.70)" in page and explained.told(0, np.array([0.0, 1.0]), 1) == "<b>tree</b> (+1.00)"


def test_pairs_are_explained_over_both_sides(trunk: Path) -> None:
    problem, model = with_random_head(PairClassificationParams(), trunk, TWO)
    values = [("a small dog", "an animal"), ("any of various herbs that are green", "king")]
    explained = problem.explained(trunk, model, values, TWO)
    assert explained.words == [[first.split(), second.split()] for first, second in values]
    asked = problem.ask(trunk, model, values, TWO)
    whole = np.exp(explained.log_probabilities(np.arange(2), explained.there))
    assert np.allclose(whole, [answer["probabilities"][answer["label"]] for answer in asked], atol=1e-6)
    found = integrated_gradients(explained)
    assert completeness_gap(explained, found).max() < 0.02
    assert np.abs(found[0, 3:5]).sum() > 0, "the second text has a share"
    rollout = attention_rollout(explained)
    assert isinstance(rollout, np.ndarray) and 0 < rollout[0].sum() <= 1 + 1e-6


def test_questions_are_explained_over_question_and_text(trunk: Path) -> None:
    params = QuestionAnsweringParams(**small_questions.FINETUNE["head"] | {"max_tokens": 40, "stride": 8})
    problem, model = with_random_head(params, trunk, ASKED)
    model.threshold = -1e9  # it always answers
    long = " ".join(f"{word} {number}" for number, word in enumerate(NOISE * 3))
    values = [("which tree is old", "the old red tree"), ("when was the king", long)]
    explained = problem.explained(trunk, model, values, ASKED)
    asked = problem.ask(trunk, model, values, ASKED)
    assert explained.answers == [answer["answer"] for answer in asked]
    assert explained.words[0] == [["which", "tree", "is", "old"], ["the", "old", "red", "tree"]]
    window = " ".join(explained.words[1][1])
    assert asked[1]["windows"] > 1 and asked[1]["answer"] in window and window in long
    whole = np.exp(explained.log_probabilities(np.arange(2), explained.there))
    assert np.allclose(whole, [answer["probability"] for answer in asked], atol=1e-5)
    assert completeness_gap(explained, integrated_gradients(explained)).max() < 0.1
    rollout = attention_rollout(explained)
    assert isinstance(rollout, np.ndarray) and (rollout.sum(axis=1) > 0).all()


def test_sets_are_explained_by_their_most_probable_class(trunk: Path) -> None:
    schema = Schema(TextColumn("text"), "label", ("red", "green", "old"), label_type="labels")
    problem, model = with_random_head(MultiLabelParams(), trunk, schema)
    values = ["a small dog", "any of various herbs"]
    model.thresholds = np.full(3, 0.5)
    explained = problem.explained(trunk, model, values, schema)
    asked = problem.ask(trunk, model, values, schema)
    most = [max(answer["probabilities"].items(), key=lambda one: one[1]) for answer in asked]
    assert explained.answers == [name for name, _ in most]
    whole = np.exp(explained.log_probabilities(np.arange(2), explained.there))
    assert np.allclose(whole, [probability for _, probability in most], atol=1e-6)
    assert completeness_gap(explained, integrated_gradients(explained)).max() < 0.02


def test_clips_are_explained_by_pieces_of_time(home: Path, tmp_path: Path) -> None:
    dataset, trunk = small_clips.dataset(home), small_clips.trunk(home)
    schema = read_schema(dataset)
    problem, model = with_random_head(SequenceClassificationParams(), trunk, schema)
    values = read_rows(dataset, "test", 3, 0).values
    explained = problem.explained(trunk, model, values, schema)
    asked = problem.ask(trunk, model, values, schema)
    assert explained.answers == [answer["label"] for answer in asked]
    assert explained.parts.tolist() == [-(-len(value) // 400) for value in values]
    whole = np.exp(explained.log_probabilities(np.arange(3), explained.there))
    assert np.allclose(whole, [answer["probabilities"][answer["label"]] for answer in asked], atol=1e-5)
    silent = [np.where(np.arange(len(value)) // 400 == 2, 0, 1) for value in values]
    kept = explained.there & (np.arange(explained.most) != 2)
    inputs = model.inputs(problem.asked(trunk, values))
    for place, heard in enumerate(silent):
        inputs["input_values"][place, : len(heard)] *= torch.from_numpy(heard)
    with torch.inference_mode():
        shares = model.network(**inputs).logits.softmax(dim=1).max(dim=1).values
    assert np.allclose(np.exp(explained.log_probabilities(np.arange(3), kept)), shares, atol=1e-2)
    made = Explanations.of(explained)
    assert list(made.found) == ["integrated_gradients", "occlusion", "attention_rollout"]
    rollout = made.found["attention_rollout"]
    assert np.allclose(rollout.sum(axis=1), 1, atol=1e-4) and not rollout[~explained.there].any()
    alone = problem.explained(trunk, model, values[:1], schema)
    assert np.allclose(alone.vectors(), explained.vectors()[:1], atol=1e-5), "what is beside a clip changes nothing"
    named = {name.replace("_", " "): found for name, found in made.found.items()}
    assert explained.draw([0, 2], named, tmp_path / "seen.png") and (tmp_path / "seen.png").is_file()
    assert explained.marked(0, rollout[0]).startswith('<img alt="" src="data:image/png;base64,')


def images(trunk: Any) -> ExplainedImages:
    torch.manual_seed(0)
    model = ImageClassifier(trunk, 3, ImageClassificationParams(), output=torch.nn.Linear(trunk.width, 3)).eval()
    pixels = np.random.default_rng(0).random((4, 1, 28, 28)).astype(np.float32)
    return ExplainedImages.of(model, pixels, torch.tensor([0, 1, 2, 0]), ["a", "b", "c", "a"])


def test_a_transformer_of_images_shows_its_attention_and_a_convolution_says_that_it_has_none(tmp_path: Path) -> None:
    torch.manual_seed(0)
    column = ImageColumn("image", (28, 28), 255)
    seen = images(new_trunk(VitParams(patch=7, layers=2, width=16, heads=2, hidden=32), column))
    rollout = attention_rollout(seen)
    assert isinstance(rollout, np.ndarray) and rollout.shape == (4, 784)
    assert (rollout > 0).all() and (rollout.sum(axis=1) < 1).all(), "some of it stays with the class token"
    patches = rollout.reshape(4, 4, 7, 4, 7)
    assert np.allclose(patches, patches[:, :, :1, :, :1]), "one number a patch"
    made = Explanations.of(images(ConvTrunk(ConvParams(channels=(4, 8, 16), width=16), (28, 28))))
    assert list(made.found) == ["integrated_gradients", "occlusion"]
    assert "no attention" in made.missing["attention_rollout"]
    named = {name.replace("_", " "): found for name, found in made.found.items()}
    assert made.explained.draw([0, 1], named, tmp_path / "seen.png") and (tmp_path / "seen.png").is_file()


def test_a_head_that_has_none_is_refused_before_anything_runs() -> None:
    params = EvaluateParams(explain={"rows": 20})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="head text_generation, which has no explanations"):
        params.check_head(TextGenerationParams(), "params.yaml")
    gate = {"gate": {"floors": {"explain_occlusion_margin": 0.0}}}
    head = ImageClassificationParams()
    EvaluateParams(**gate, explain={}).check_head(head, "params.yaml")
    with pytest.raises(InputError, match="explain_occlusion_margin"):
        EvaluateParams(**gate).check_head(head, "params.yaml")  # it would not be measured


def test_values_are_plain_data(planted: ExplainedTexts) -> None:
    values = planted.values(0, np.arange(float(planted.most)))
    assert json.loads(json.dumps(values)) == values
    assert [one["word"] for one in values] == planted.words[0][0]
