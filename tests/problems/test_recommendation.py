"""The head recommendation, from interactions to a release; its scores and baselines against known values.

What it learns here lies in tests/learning/small_histories.py. No quality is asserted of so small a model but what must
hold of any; docs/log.md and data/packages/README.md have the figures.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

import small
import small_histories
import torch
from commands import Done, on_store

from graftline.problems.model import load_model
from graftline.problems.recommendation.answers import rank
from graftline.problems.recommendation.baselines import fit_ease
from graftline.problems.recommendation.examples import UNKNOWN, Histories, of_questions, read
from graftline.problems.recommendation.scores import DEBIASED, NDCG, SCORES, ndcg_rows, recall_rows
from graftline.trunks.items.objective import MaskedItems, hide
from graftline.trunks.items.parameters import ItemsParams, MaskedItemsParams
from graftline.trunks.items.trunk import ItemTrunk, load_trunk
from graftline.trunks.items.vocabulary import Vocabulary, load_vocabulary


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_histories.released(tmp_path_factory.getbasetemp())


@pytest.fixture
def graftline(
    released: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    return on_store(released / "store", monkeypatch, capsys)


def load(path: Path) -> Any:
    return json.loads(path.read_text())


# Scores


def test_ndcg_is_that_of_its_definition() -> None:
    of, ranks = np.array([0, 0, 1, 2]), np.array([0, 3, 10, -1])
    found = ndcg_rows(NDCG, np.array([5, 6, 7, 8]), of, ranks)
    first = (1 + 1 / np.log2(5)) / (1 + 1 / np.log2(3))
    assert found.rows.tolist() == [5, 6, 7, 8]
    assert found.statistics[:, 0] == pytest.approx([first, 0, 0, 0])
    assert found.statistics[:, 1].tolist() == [1, 1, 1, 0]  # who is asked nothing does not count
    assert found.value == pytest.approx(first / 3)


def test_a_heavy_item_counts_more_and_the_ideal_has_it_first() -> None:
    rows, of = np.array([0]), np.array([0, 0])
    heavy_first = ndcg_rows(DEBIASED, rows, of, np.array([1, 0]), np.array([1.0, 4.0]))
    light_first = ndcg_rows(DEBIASED, rows, of, np.array([0, 1]), np.array([1.0, 4.0]))
    assert heavy_first.value == pytest.approx(1)
    assert light_first.value == pytest.approx((1 + 4 / np.log2(3)) / (4 + 1 / np.log2(3)))


def test_recall_is_of_twenty_at_most() -> None:
    found = recall_rows(np.array([0, 1]), np.repeat([0, 1], [30, 2]), np.array([*range(30), 19, 20]))
    assert found.statistics[:, 0].tolist() == [1.0, 0.5]


def vocabulary(users: tuple[int, ...] = (9, 5, 2, 2, 0)) -> Vocabulary:
    return Vocabulary(tuple(f"i{n}" for n in range(len(users))), users, 2)


def histories(given: list[list[int]], out: list[list[int]]) -> Histories:
    whole = of_questions([a + b for a, b in zip(given, out, strict=True)])
    flags = [flag for a, b in zip(given, out, strict=True) for flag in [False] * len(a) + [True] * len(b)]
    return Histories(whole.ids, whole.offsets, whole.rows, asked=torch.tensor(flags))


def test_every_item_that_is_not_given_is_ranked_and_an_unknown_one_is_missed() -> None:
    scores = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    asked = histories([[0], [4], []], [[2, 4], [UNKNOWN, 3], [0]])

    def scorer(part: Histories) -> torch.Tensor:
        return scores[part.rows].clone()

    found = rank(scorer, asked, vocabulary(), SCORES, top=3)
    assert found.ranks.tolist()[:4] == [1, 3, -1, 0]
    assert found.own_ranks.tolist()[:4] == [1, 0, -1, 0]  # the cold item 4 is alone of its kind
    assert found.top[:2].tolist() == [[1, 2, 3], [3, 2, 1]]
    assert 0 not in found.top[0] and 4 not in found.top[1]
    tied = [rank(scorer, asked, vocabulary(), SCORES).ranks[4] for _ in range(2)]
    assert tied[0] == tied[1], "ties are broken alike each time"
    assert {score: found.statistics(score).value for score in SCORES}[SCORES[3]] == pytest.approx(1)


def test_ease_is_the_least_squares_solution_without_a_diagonal() -> None:
    known = vocabulary((4, 4, 3, 3))
    pool = of_questions([[0, 1], [0, 1, 2], [2, 3], [0, 1, 3], [0, 1, 2, 3]])
    weights, ridge = fit_ease(pool, histories([[0], [1]], [[1], [0]]), known)
    assert weights.diagonal().abs().max() == 0
    seen = np.zeros((5, 4))
    for row, items in enumerate(pool.whole()):
        seen[row, items] = 1
    # each column by itself: ridge regression on the other items
    for item in range(4):
        others = [n for n in range(4) if n != item]
        left = seen[:, others]
        right = np.linalg.solve(left.T @ left + ridge * np.eye(3), left.T @ seen[:, item])
        assert weights[others, item].numpy() == pytest.approx(right, abs=1e-5)


# The trunk


@pytest.mark.parametrize("ordered", [False, True])
def test_the_order_of_items_counts_only_where_histories_are_ordered(ordered: bool) -> None:
    torch.manual_seed(0)
    known = Vocabulary(tuple("abcdef"), (3,) * 6, 2, ordered)
    trunk = ItemTrunk(ItemsParams(width=16, heads=2, hidden=16), known).eval()
    with torch.no_grad():
        trunk.base.layers[0].attn.Wqkv.weight *= 30  # untrained ones look at all alike, wherever they stand
        table, _ = trunk.table()
        one, other = trunk.states(torch.tensor([[0, 1, 2], [2, 1, 0]]), table)
        padded = trunk.states(torch.tensor([[0, 1, 2, known.padding]]), table)[0]
    assert torch.allclose(one, padded, atol=1e-5)
    assert torch.allclose(one, other, atol=1e-5) != ordered


def test_what_is_hidden_is_a_function_of_seed_and_step_and_never_all() -> None:
    known = Vocabulary(tuple("abcdef"), (3,) * 6, 2)
    objective = MaskedItems(ItemTrunk(ItemsParams(width=16, heads=2, hidden=16), known), MaskedItemsParams(), "float32")
    seen = torch.ones(200, 6, dtype=torch.bool)
    seen[:, 2:] = torch.rand(200, 4, generator=torch.Generator().manual_seed(0)) > 0.5
    found = [hide(seen, torch.Generator().manual_seed(seed), 0.7, last=False) for seed in (1, 1, 2)]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert not (found[0] & ~seen).any()
    counts = found[0].sum(dim=1)
    assert (counts >= 1).all() and (counts < seen.sum(dim=1)).all()
    batch = [torch.tensor([0, 1, 2]), torch.tensor([3, 4])]
    losses = [objective.loss(batch, 0, step).item() for step in (5, 5, 6)]
    assert losses[0] == losses[1] != losses[2]


# The whole way


def test_items_that_training_never_shows_have_no_vector_of_their_own(released: Path) -> None:
    known = load_vocabulary(released / "trunk")
    trunk = load_trunk(released / "trunk")
    assert 0 < known.own.sum() < known.shown.sum() < len(known)
    cold = int(np.flatnonzero(~known.shown)[0])
    kept, _ = trunk.table()
    words, _ = trunk.table(torch.zeros(len(known), dtype=torch.bool))
    assert torch.equal(kept[cold], words[cold]) and not torch.equal(kept[0], words[0])


def test_a_release_opens_without_graftline_and_answers_alike(released: Path) -> None:
    from transformers import AutoModelForMaskedLM

    folder = released / "model"
    model = load_model(folder)
    known = load_vocabulary(folder)
    network = AutoModelForMaskedLM.from_pretrained(folder, local_files_only=True).eval()
    ids = torch.tensor([[network.config.mask_token_id, 3, 1, 7]])
    with torch.no_grad():
        logits = network(input_ids=ids, position_ids=torch.zeros_like(ids)).logits[0, 0, : len(known)]
    ours = model.scores(of_questions([[3, 1, 7]]))[0]
    assert torch.allclose(logits, ours, atol=1e-4)
    examples = read(released / "dataset", "test", known)
    predictions = pq.read_table(released / "evaluation/predictions.parquet")
    best = model.answer(examples).top[:, :20].tolist()
    assert predictions["recommended"].to_pylist() == [[known.items[n] for n in row] for row in best]


def test_the_evaluation_says_how_the_model_stands_beside_simple_ones(released: Path) -> None:
    metrics, beside = load(released / "evaluation/metrics.json"), load(released / "evaluation/baselines.json")
    assert metrics["primary"] == "ndcg" and set(metrics["scores"]) <= {score.name for score in SCORES}
    assert set(beside["scores"]) == {"the model", "EASE", "popularity", "words alike"}
    assert beside["scores"]["the model"]["ndcg"]["value"] == pytest.approx(metrics["ndcg"])
    section = load(released / "evaluation/sections.json")[0]
    titles = {score.name: score.title for score in SCORES}
    for one in beside["ahead"]:
        behind = f"The model does not beat {one['of']}: it is behind in {titles[one['score']]}, by"
        assert (one["high"] < 0) == (behind in section["note"])
    ease = [one for one in beside["ahead"] if one["of"] == "EASE"]
    assert any(one["high"] < 0 for one in ease), "so small a model is behind; it must say so"
    assert "The model does not beat EASE: it is behind" in section["note"]
    assert {"lift_30", "trunk_30", "scratch_30"} <= metrics.keys()


def test_predict_names_the_best_items_and_says_which_are_unknown(graftline: Callable[..., Done]) -> None:
    code, out, _ = graftline(
        "predict", "digits@1", "--text", "golang-testify no-such-thing", "--text", "nothing", "--json"
    )
    first, second = json.loads(out)
    assert code == 0
    assert first["unknown"] == ["no-such-thing"] and second["unknown"] == ["nothing"]
    assert [len(one["items"]) for one in (first, second)] == [5, 5]
    assert "golang-testify" not in [one["item"] for one in first["items"]]
    shares = [one["probability"] for one in first["items"]]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1
    code, out, _ = graftline("predict", "digits@1", "--text", "golang-testify no-such-thing")
    assert code == 0 and "no-such-thing" in out and first["items"][0]["item"] in out


def test_an_empty_history_is_refused_in_one_line(graftline: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"items": []}\n')
    code, _, error = graftline("predict", "digits@1", tmp_path / "x.jsonl")
    assert code == 2 and error.count("\n") == 1 and "x.jsonl:1" in error


def test_embed_gives_vectors_of_users_and_of_items(graftline: Callable[..., Done], tmp_path: Path) -> None:
    code, out, error = graftline("embed", "digits@1", "--text", "golang-testify golang-logrus odd", "--json")
    assert code == 0 and "1 of 3 items are unknown" in error
    assert len(json.loads(out)[0]["embedding"]) == 32
    code, _, _ = graftline("embed", "digits@1", "--own", "--out", tmp_path / "items.parquet")
    table = pq.read_table(tmp_path / "items.parquet")
    assert code == 0 and "golang-testify" in table["input"].to_pylist()
    assert table["embedding"].type.list_size == 32
    code, _, error = graftline("embed", "digits@1", "--own", "--text", "x", "--json")
    assert code == 2 and "--own" in error


def test_histories_without_a_common_item_end_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = "".join(f"u{n},a{n}\nu{n},b{n}\n" for n in range(40))
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/x.csv").write_text("user,item\n" + lines)
    columns = {"items": {"type": "items", "name": "item"}, "user": {"type": "string"}}
    (tmp_path / "e.yaml").write_text(json.dumps({"source": {"user": "user"}, "columns": columns}))
    inputs = {"in_raw": tmp_path / "raw", "in_expectations": tmp_path / "e.yaml"}
    small.make("validate", {}, **inputs, out_dataset=tmp_path / "dataset", store=tmp_path / "store")
    capsys.readouterr()
    code = small.run("pretrain", small_histories.PARAMS, in_dataset=tmp_path / "dataset", out_trunk=tmp_path / "trunk")
    error = capsys.readouterr().err
    assert code == 2 and "none of them in two" in error and "Traceback" not in error
    assert not (tmp_path / "trunk").exists()
