"""The head rating, from lines of ratings to a release; its scores, biases and arithmetic against known values.

What it learns here lies in tests/learning/small_ratings.py. No quality is asserted of so small a model but what must
hold of any; docs/log.md and data/strengths/README.md have the figures.
"""

from __future__ import annotations

import json
import shutil
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

import small
import small_ratings
import torch
from commands import Done, on_store

from graftline.dataset import read_schema
from graftline.errors import InputError
from graftline.learning.randomness import generator
from graftline.problems.documents import documents_of
from graftline.problems.fit import Data, Near, fit, select
from graftline.problems.model import load_model
from graftline.problems.rating import baselines as baselines_module
from graftline.problems.rating import opening
from graftline.problems.rating import problem as problem_module
from graftline.problems.rating.answers import Range, RatingAnswers
from graftline.problems.rating.baselines import baselines
from graftline.problems.rating.biases import FIXED, Ridges, Told, choose, item_sums, lines, predict
from graftline.problems.rating.examples import Rated, read
from graftline.problems.rating.head import Rows
from graftline.problems.rating.parameters import RatingParams
from graftline.problems.rating.problem import Rater, Rating, _drawn
from graftline.problems.rating.scores import SCORES, order_rows
from graftline.problems.recommendation.examples import UNKNOWN
from graftline.tasks.finetune import FinetuneParams
from graftline.trunks.items.objective import hide
from graftline.trunks.items.parameters import ItemsParams
from graftline.trunks.items.trunk import ItemTrunk
from graftline.trunks.items.vocabulary import Vocabulary, load_vocabulary
from graftline.values.items import ItemsColumn


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_ratings.released(tmp_path_factory.getbasetemp())


@pytest.fixture
def graftline(
    released: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    return on_store(released / "store", monkeypatch, capsys)


def load(path: Path) -> Any:
    return json.loads(path.read_text())


def params(**values: Any) -> FinetuneParams:
    return FinetuneParams.model_validate({**small_ratings.PARAMS["finetune"], "patience": None, **values})


def problem() -> Rating:
    return Rating(params().head)


def data(released: Path, split: str = "train", trunk: str = "trunk") -> Rated:
    return problem().read(released / "dataset", split, released / trunk)


def raw() -> dict[str, dict[str, float]]:
    """Return what each package of the raw data says of which dependency."""
    found: dict[str, dict[str, float]] = {}
    for line in pq.read_table(small_ratings.RAW / "strengths.parquet").to_pylist():
        found.setdefault(line["package"], {})[line["dependency"]] = line["strength"]
    return found


# Scores and biases


def test_order_counts_pairs_within_a_user_and_ties_half() -> None:
    rows = np.array([7, 7, 7, 9, 9, 8])
    found = order_rows(rows, np.array([1.0, 2, 3, 2, 2, 5]), np.array([0.0, 0, -1, 4, 1, 0]))
    assert found.rows.tolist() == [7, 8, 9]
    assert found.statistics.tolist() == [[0.5, 3], [0, 0], [0, 0]]  # equal ratings have no order


def test_a_users_line_is_the_ridge_regression_around_a_slope_of_one() -> None:
    x, y, ridges = np.array([0.5, -1.0, 2.0]), np.array([1.0, 0.2, 0.7]), Ridges(1, 2.0, 3.0)
    means, slopes = lines(Told(np.zeros(3, int), np.arange(3), y, 2), x, ridges)
    left = np.array([[3 + 2.0, x.sum()], [x.sum(), (x * x).sum() + 3.0]])
    assert [means[0], slopes[0]] == pytest.approx(np.linalg.solve(left, [y.sum(), (x * y).sum() + 3.0]).tolist())
    assert (means[1], slopes[1]) == (0, 1)  # nothing is known of the second one


def test_biases_are_the_solution_of_least_squares_with_a_ridge() -> None:
    draw = np.random.default_rng(0)
    of, items = np.repeat(np.arange(8), 4), np.concatenate([draw.permutation(6)[:4] for _ in range(8)])
    told, ridges = Told(of, items, draw.standard_normal(32), 8), Ridges(2.0, 3.0)
    sums, counts = item_sums(told, 6, ridges)
    design = np.zeros((32, 14))
    design[np.arange(32), of] = design[np.arange(32), 8 + items] = 1
    whole = np.linalg.solve(design.T @ design + np.diag([3.0] * 8 + [2.0] * 6), design.T @ told.ratings)
    assert sums / (counts + 2.0) == pytest.approx(whole[8:], abs=1e-4)
    unknown = predict(sums / (counts + 2.0), told, Told(np.array([0]), np.array([UNKNOWN]), np.zeros(1), 8), ridges)
    assert unknown == pytest.approx(whole[:1], abs=1e-4)


def test_ridges_are_those_that_tell_what_is_hidden_best() -> None:
    draw = np.random.default_rng(0)
    of, items = np.repeat(np.arange(300), 10), np.tile(np.arange(10), 300)
    loud = Told(of, items, draw.standard_normal(10)[items] + 0.01 * draw.standard_normal(3000), 300)
    noise = Told(of, items, draw.standard_normal(3000), 300)
    hidden = draw.random(3000) < 0.3
    assert choose(loud, 10, hidden).item == 1.0 and choose(noise, 10, hidden).user == 10.0
    assert choose(loud, 10, hidden, slopes=False).slope == FIXED


# Invented users


def invented(users: int, items: int, each: int, held_out: int = 0, *, seed: int = 0) -> Rated:
    """Return users with `each` ratings, the last ones held out; a rating hangs on user and item, and on chance."""
    draw = np.random.default_rng(seed)
    ids = [draw.choice(items, each, replace=False).tolist() for _ in range(users)]
    liked = np.random.default_rng(99).integers(1, 4, items)[np.array(ids)] + draw.integers(0, 2, (users, 1))
    ratings = (liked + draw.integers(0, 2, liked.shape)).reshape(-1).astype(np.float64)
    asked = np.tile(np.arange(each) >= each - held_out, users)
    return Rated.from_arrays({**documents_of(ids, np.arange(users), None), "asked": asked, "ratings": ratings})


def vocabulary(items: int) -> Vocabulary:
    return Vocabulary(tuple(f"i{number}" for number in range(items)), (5,) * items, 1)


def rater(items: int) -> Rater:
    """Return a model whose head is not that of biases only."""
    torch.manual_seed(0)
    shape = ItemsParams(width=16, layers=1, heads=2, hidden=32, dropout=0.0)
    model = Rater(ItemTrunk(shape, vocabulary(items)), RatingParams())
    for parameter in model.on_top.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def beside(items: int, users: int, each: int) -> list[np.ndarray]:
    """Return what each baseline tells invented users."""
    train, val, test = (invented(users, items, each, out, seed=out) for out in (0, 1, 2))
    out = test.held_out
    answers = RatingAnswers(
        SCORES, test.units()["row"], 0.0, vocabulary(items), test.ids.long()[out].numpy(), test.rated[out].numpy(),
        np.zeros(int(out.sum())), None, Range(2.5, 1.0, 1.0, 5.0),
    )  # fmt: skip
    return [one.answers.predicted for one in baselines(train, val, test, answers)[0]]


def test_items_rated_alike_are_the_same_however_many_users_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = beside(12, 100, 6)
    monkeypatch.setattr(baselines_module, "_USERS", 7)
    assert all(np.allclose(one, other, atol=1e-5) for one, other in zip(whole, beside(12, 100, 6), strict=True))
    assert not np.allclose(whole[0], whole[1], atol=0.01)  # items rated alike, beside biases


def test_the_baselines_hold_a_few_matrices_of_pairs_at_once_and_not_one_for_each_choice() -> None:
    items = 1000
    tracemalloc.start()
    beside(items, 200, 8)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 6 * items * items * 4


def test_a_user_of_whom_much_is_known_is_told_in_parts_and_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    model, users = rater(60), invented(5, 60, 40, 25)
    model.begin(invented(100, 60, 10))
    nobody = Rated.from_arrays({**users.arrays(), "asked": np.ones(200, bool)})
    sizes = list[int]()
    model.on_top.register_forward_pre_hook(lambda _, args: sizes.append(args[1].ids.numel() * args[4].ids.numel()))
    whole = [model.tell(users), model.tell(nobody)]
    assert max(sizes) > 200
    sizes.clear()
    monkeypatch.setattr(problem_module, "_CELLS", 200)
    parts = [model.tell(users), model.tell(nobody)]
    assert max(sizes) <= 200 and len(sizes) >= 10
    for one, other in zip(whole, parts, strict=True):
        assert np.ptp(one) > 0.5 and one == pytest.approx(other, abs=1e-5)


def test_what_is_hidden_to_choose_ridges_by_is_drawn_alike_in_any_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = torch.randint(2, 12, (300,), generator=torch.Generator().manual_seed(0))
    seen = torch.arange(int(lengths.max())) < lengths[:, None]
    expected = hide(seen, generator(0, 0, "ridges"), 0.3, last=False)[seen]
    for at_once in (1, 100, 1 << 20):
        monkeypatch.setattr(problem_module, "_DRAWN", at_once)
        assert torch.equal(_drawn(lengths, generator(0, 0, "ridges"), 0.3), expected)


def test_of_users_who_are_not_in_the_sums_nothing_is_taken_off() -> None:
    """A site of federated rounds goes on from sums of the coordinator's users."""
    theirs, ours = invented(200, 30, 6), invented(40, 30, 6, seed=1)
    before, site = rater(30), rater(30)
    before.begin(theirs)
    site.go_on_from(before)
    tables = ours.tables()
    hidden = hide(tables.given, generator(4, 2, "hide"), site.params.hide_ratio, last=False)
    asked = replace(ours, asked=hidden[tables.given])
    order = torch.cat([torch.cat([torch.nonzero(~row).flatten(), torch.nonzero(row).flatten()]) for row in hidden])
    order += torch.repeat_interleave(ours.offsets[:-1], ours.lengths)
    arrays = {name: getattr(asked, name)[order].numpy() for name in ("ids", "asked", "ratings")}
    new = Rated.from_arrays({**asked.arrays(), **arrays})  # the same step, of users that the model never saw
    outputs, standard = site._outputs(new.tables(), "float32")
    expected = (outputs - standard)[new.tables().asked].square().mean()
    assert site.loss(ours, 4, 2).item() == pytest.approx(expected.item(), rel=1e-5)
    assert before.loss(ours, 4, 2).item() != pytest.approx(expected.item(), rel=1e-3)


def test_users_are_alike_whose_held_out_ratings_alone_differ() -> None:
    arrays = documents_of([[1, 2, 3], [1, 2, 3], [1, 2, 4], [1, 2, 3], [1, 2, 3]], np.arange(5), None)
    asked = np.array([[0, 0, 1]] * 4 + [[0, 0, 0]], bool).reshape(-1)
    ratings = np.array([[1, 2, 5], [1, 2, 4], [1, 2, 5], [1, 3, 5], [1, 2, 0]], np.float64).reshape(-1)
    found = Rated.from_arrays({**arrays, "asked": asked, "ratings": ratings}).inputs()
    assert found[0] == found[1] and len(set(found)) == 4


@pytest.mark.parametrize("ratio", [0.05, 1.0])
def test_a_share_to_hide_below_the_least_one_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="hide_ratio"):
        RatingParams(hide_ratio=ratio)


# What is given, and what is told


def test_every_held_out_rating_is_its_items_own(released: Path) -> None:
    """From raw lines to predictions.parquet, over validate, vocabulary, division and batches by length."""
    rated = raw()
    packages = dict(pq.read_table(released / "dataset/test.parquet", columns=["row", "package"]).to_pandas().values)
    found = pq.read_table(released / "evaluation/predictions.parquet").to_pylist()
    assert len(found) > 100
    for line in found:
        if line["item"] is not None:
            assert rated[packages[line["row"]]][line["item"]] == line["rating"]
    known = load_vocabulary(released / "trunk")
    for split in ("train", "val", "test"):
        examples = data(released, split)
        names = dict(
            pq.read_table(released / f"dataset/{split}.parquet", columns=["row", "package"]).to_pandas().values
        )
        rows = examples.rows[examples.of].tolist()
        for row, item, rating in zip(rows, examples.ids.tolist(), examples.rated.tolist(), strict=True):
            assert item == UNKNOWN or rated[names[row]][known.items[item]] == rating


def test_cold_items_are_shown_in_test_only_and_the_pool_has_no_ratings(released: Path) -> None:
    column = read_schema(released / "dataset").only(ItemsColumn)
    known = load_vocabulary(released / "trunk")
    for split in ("train", "val"):
        assert not any(column.is_cold(known.items[item]) for item in data(released, split).ids.tolist() if item >= 0)
    assert any(column.is_cold(known.items[item]) for item in data(released, "test").ids.tolist() if item >= 0)
    assert data(released, "unlabelled").ratings is None
    assert not data(released).held_out.any() and data(released, "val").held_out.any()


def test_what_a_step_hides_is_a_function_of_seed_and_step_and_never_all() -> None:
    seen = torch.ones(200, 6, dtype=torch.bool)
    seen[:, 2:] = torch.rand(200, 4, generator=torch.Generator().manual_seed(0)) > 0.5
    found = [hide(seen, generator(seed, 3, "hide"), 0.5, last=False) for seed in (1, 1, 2)]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert not (found[0] & ~seen).any()
    counts = found[0].sum(dim=1)
    assert (counts >= 1).all() and (counts < seen.sum(dim=1)).all()
    last = hide(torch.ones(5, 4, dtype=torch.bool), generator(1, 3, "hide"), 0.5, last=True)
    assert last[:, -1].all() and not last[:, 0].any()


def test_what_is_told_depends_on_what_is_given_and_not_on_what_is_asked(released: Path) -> None:
    model = load_model(released / "model")
    assert isinstance(model, Rater)
    test = data(released, "test")
    told = model.tell(test)
    for held_out, alike in ((True, True), (False, False)):
        ratings = test.rated.clone()
        chosen = test.held_out == held_out
        ratings[chosen] = 5 - ratings[chosen]
        other = model.tell(replace(test, ratings=ratings))
        assert np.allclose(told, other, atol=1e-6) == alike
    one = model.tell(test.take(torch.tensor([5])))
    place = test.of[test.held_out].numpy() == 5
    assert one == pytest.approx(told[place], abs=1e-5)  # whoever is in the batch


def test_the_head_begins_as_the_model_of_biases(released: Path) -> None:
    model, train, test = problem().build(released / "trunk", read_schema(released / "dataset"), scratch=False), data(
        released
    ), data(released, "test")  # fmt: skip
    model.begin(train)
    mean, deviation, least, largest = model.on_top.scale.tolist()
    assert mean == pytest.approx(float(train.rated.mean())) and (least, largest) == (1, 3)
    ridges = Ridges(*model.on_top.ridges.tolist())

    def told(examples: Rated, mask: torch.Tensor) -> Told:
        standard = (examples.rated.numpy() - mean) / deviation
        return Told(examples.of.numpy(), examples.ids.long().numpy(), standard, len(examples)).where(mask.numpy())

    sums, counts = item_sums(told(train, ~train.held_out), len(model.trunk.vocabulary), ridges)
    biases = predict(
        sums / (counts + ridges.item), told(test, ~test.held_out), told(test, test.held_out), ridges
    )  # fmt: skip
    assert model.tell(test) == pytest.approx(np.clip(biases * deviation + mean, least, largest), abs=1e-5)


def test_a_users_own_ratings_are_taken_off_what_is_known_of_an_item(released: Path) -> None:
    """Else a step would tell a hidden rating from itself, and learn to trust items' means too much."""
    model, train = problem().build(released / "trunk", read_schema(released / "dataset"), scratch=False), data(released)
    model.begin(train)
    head, tables = model.on_top, train.tables()
    ridges = Ridges(*head.ridges.tolist())
    off: list[torch.Tensor] = []
    for user in (3, 11, 40, 41, 42, 43):
        others = train.take(torch.tensor([place for place in range(len(train)) if place != user]))
        told = Told(
            others.of.numpy(), others.ids.long().numpy(), head.standard(others.rated).double().numpy(), len(others)
        )  # fmt: skip
        sums, _ = item_sums(told, len(model.trunk.vocabulary), ridges)
        line = slice(user, user + 1)
        ids = tables.ids[line][tables.given[line]]
        own = model._added(tables.ids[line], head.standard(tables.ratings[line]), tables.given[line])
        counts, ridge = head.counts[ids] - 1 + ridges.item, torch.from_numpy(sums[ids.numpy()]).float()
        left = head.sums[ids] - own[tables.given[line]]
        vectors = torch.zeros(*tables.ids[line].shape, len(head.by_item))
        found = head._items(Rows(tables.ids[line], own), vectors, torch.zeros(len(head.sums)), None)[tables.given[line]]
        assert torch.allclose(found, left / counts, atol=1e-6), "as a step has it"
        off += [(((mine - ridge) / counts).abs().max()) for mine in (left, head.sums[ids])]
    # What is left: other users' means, which hung on the item's a little.
    assert sum(off[::2]) < 0.2 * sum(off[1::2])


# Training


def test_the_whole_trunk_is_learned_or_none_of_it(released: Path) -> None:
    schema, train = read_schema(released / "dataset"), data(released)
    for frozen in (False, True):
        start = problem().build(released / "trunk", schema, scratch=False).state_dict()
        model = fit(released / "trunk", Data(train, None), params(freeze_trunk=frozen), 0, schema)
        moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, start[name])}
        assert {"on_top.by_item", "on_top.match", "on_top.gain"} <= moved
        assert any(name.startswith("trunk.") for name in moved) != frozen


def test_a_fit_repeats_bit_by_bit_and_the_pool_can_be_asked_beside(released: Path) -> None:
    schema, train = read_schema(released / "dataset"), select(data(released), 40, 0, 3)
    pool = Data(train, None, data(released, "unlabelled"))
    fits = [
        fit(released / "trunk", pool, params(joint_weight=weight), 5, schema).state_dict() for weight in (0, 0, 0.5)
    ]
    assert all(torch.equal(fits[0][name], fits[1][name]) for name in fits[0])
    assert not all(torch.equal(fits[0][name], fits[2][name]) for name in fits[0])


def test_a_model_goes_on_from_what_another_one_took(released: Path) -> None:
    """With words a released trunk is joined, and another one; so the pair here is of one without."""
    out = released / "wordless"
    if not out.exists():
        document = {**small_ratings.PARAMS, "pretrain": {**small_ratings.PARAMS["pretrain"], "epochs": 0.5}}
        document["pretrain"]["trunk"] = {**document["pretrain"]["trunk"], "words": False}
        small.make("pretrain", document, in_dataset=released / "dataset", out_trunk=out)
        small.make("finetune", document, in_dataset=released / "dataset", in_trunk=out, out_model=released / "before")
    schema, train = read_schema(released / "dataset"), data(released, trunk="wordless")
    model = fit(out, Data(select(train, 30, 0, 1), None), params(), 0, schema, near=Near(released / "before"))
    before = load_model(released / "before")
    assert isinstance(model, Rater) and isinstance(before, Rater)
    assert torch.equal(model.on_top.sums, before.on_top.sums) and torch.equal(model.on_top.scale, before.on_top.scale)
    assert not torch.equal(model.on_top.by_item, before.on_top.by_item)


# The whole way


def test_a_release_opens_without_graftline_and_tells_alike(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = released / "model"
    model = load_model(folder)
    assert isinstance(model, Rater)
    monkeypatch.chdir(folder)
    made: dict[str, Any] = {}
    with torch.no_grad():
        exec(opening.example(), made)  # the code that a release has in HEAD.md
        assert (folder / "HEAD.md").read_text().count(opening.example()) == 1
        known, test = model.trunk.vocabulary, data(released, "test")
        told = model.tell(test)
        nothing = made["rate"]({}, list(known.items[:5]))  # what a user of whom nothing is known gives
        assert nothing == pytest.approx(model.rate({}, [0, 1, 2, 3, 4]).tolist(), abs=1e-4)
        for place in (0, 4, 9):
            one, mine = test.take(torch.tensor([place])), test.of[test.held_out].numpy() == place
            names = [known.items[item] if item >= 0 else None for item in one.ids.tolist()]
            triples = list(zip(names, one.rated.tolist(), one.held_out.tolist(), strict=True))
            given = {name: rating for name, rating, out in triples if not out}
            asked = [name for name, _, out in triples if out]
            kept = [name is not None for name in asked]
            ours = told[mine][kept]
            theirs = made["rate"](given, [name for name in asked if name is not None])
            assert theirs == pytest.approx(ours.tolist(), abs=1e-4)


def test_the_evaluation_says_how_the_model_stands_beside_simple_ones(released: Path) -> None:
    metrics, beside = load(released / "evaluation/metrics.json"), load(released / "evaluation/baselines.json")
    assert metrics["primary"] == "r2" and {"r2", "mae", "rmse", "order", "coverage"} <= set(metrics["scores"])
    names = ["the model", "items rated alike", "biases", "item means", "the mean rating"]
    assert set(beside["scores"]) == set(names)
    assert beside["scores"]["the model"]["r2"]["value"] == pytest.approx(metrics["r2"])
    assert beside["scores"]["the mean rating"]["r2"]["value"] == pytest.approx(0, abs=0.05)
    section = load(released / "evaluation/sections.json")[0]
    assert len(beside["ahead"]) == 4
    for one in beside["ahead"]:
        assert (one["high"] < 0) == (f"The model does not beat {one['of']}: it is behind" in section["note"])
        assert (one["low"] > 0) == (f"The model is ahead of {one['of']} in R2" in section["note"])
    assert {"lift_30", "trunk_30", "scratch_30"} <= metrics.keys()
    assert (released / "evaluation/bands.png").stat().st_size > 0


def test_intervals_stay_within_what_ratings_there_are(released: Path) -> None:
    found = pq.read_table(released / "evaluation/predictions.parquet").to_pylist()
    facts = load(released / "model/head.json")
    assert facts["half_width"] > 0 and facts["ratings"]["least"] == 1
    inside = [line["low"] <= line["rating"] <= line["high"] for line in found]
    assert all(1 <= line["low"] <= line["predicted"] <= line["high"] <= 4 for line in found)
    assert np.mean(inside) == pytest.approx(load(released / "evaluation/metrics.json")["coverage"])


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_predict_tells_what_is_asked_or_the_highest(
    graftline: Callable[..., Done], released: Path, tmp_path: Path
) -> None:
    rated = {"items": ["python3-defaults", "glibc", "no-such"], "strength": [3, 3, 2]}
    path = write(tmp_path / "x.jsonl", {**rated, "asked": ["sphinx", "nor-this", "zlib"]}, rated)
    code, out, _ = graftline("predict", "digits@1", path, "--json")
    first, second = json.loads(out)
    assert code == 0
    assert {one["item"] for one in first["items"]} == {"sphinx", "zlib"}
    assert first["unknown"] == ["no-such", "nor-this"] and second["unknown"] == ["no-such"]
    assert all(1 <= one["low"] <= one["rating"] <= one["high"] <= 4 for one in first["items"])
    assert len(second["items"]) == 5 and not {"python3-defaults", "glibc"} & {one["item"] for one in second["items"]}
    model = load_model(released / "model")
    assert isinstance(model, Rater)
    known = model.trunk.vocabulary.numbers
    given = {known["python3-defaults"]: 3.0, known["glibc"]: 3.0}
    one = [float(model.rate(given, [known[item["item"]]])[0]) for item in second["items"]]
    assert one == pytest.approx([item["rating"] for item in second["items"]], abs=1e-5)  # whatever is asked beside
    assert (
        len(model.rate(given, list(range(len(known))) * 4)) == 4 * len(known) > 512 and len(model.rate(given, [])) == 0
    )
    told = [one["rating"] for one in second["items"]]
    assert told == sorted(told, reverse=True)
    code, out, _ = graftline("predict", "digits@1", path)
    assert code == 0 and "sphinx" in out and "nor-this" in out


def test_a_row_of_parquet_may_ask_or_not(graftline: Callable[..., Done], tmp_path: Path) -> None:
    for more in ({}, {"asked": [["zlib"], None]}):
        table = pa.table({"items": [["glibc"], ["glibc"]], "strength": [[3], [1]], **more})
        pq.write_table(table, tmp_path / "x.parquet")
        code, out, _ = graftline("predict", "digits@1", tmp_path / "x.parquet", "--json")
        assert code == 0 and [len(one["items"]) for one in json.loads(out)] == [1 if more else 5, 5]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"items": ["a", "b"], "strength": [3]}, "2 items and 1 strength"),
        ({"items": ["a"], "strength": ["x"]}, "the rating 'x' of 'a'"),
        ({"items": ["a"], "strength": [None]}, "the rating 'None' of 'a'"),
        ({"items": ["a"], "strength": [True]}, "the rating 'True' of 'a'"),
        ({"items": ["a"], "strength": [float("nan")]}, "the rating 'nan' of 'a'"),
        ({"items": ["a"], "strength": [10**400]}, "of 'a'; expected a finite number"),
        ({"items": ["a"], "strength": [80]}, "the rating 80 of 'a'; expected from 1 to 3"),
        ({"items": ["a"], "strength": 3}, "no list 'strength'"),
        ({"items": ["a"]}, "no list 'strength'"),
        ({"items": [], "strength": []}, "no item is rated"),
        ({"items": [0.5], "strength": [1]}, "is no text"),
        ({"items": ["a"], "strength": [1], "asked": []}, "an empty list 'asked'"),
        ({"items": ["a"], "strength": [1], "asked": ["a"]}, "'a' is rated and asked for"),
    ],
)
def test_wrong_questions_are_refused_in_one_line(
    graftline: Callable[..., Done], tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    code, out, error = graftline("predict", "digits@1", write(tmp_path / "x.jsonl", row))
    assert code == 2 and not out and error.count("\n") == 1 and "x.jsonl:1" in error
    assert message in error


def test_text_is_no_question(graftline: Callable[..., Done]) -> None:
    code, _, error = graftline("predict", "digits@1", "--text", "glibc")
    assert code == 2 and "a row a user" in error


def test_embed_gives_vectors_of_users_and_of_items(graftline: Callable[..., Done], tmp_path: Path) -> None:
    code, out, _ = graftline("embed", "digits@1", "--text", "glibc zlib", "--json")
    assert code == 0 and len(json.loads(out)[0]["embedding"]) == 32


def test_held_out_ratings_that_are_all_equal_are_refused_whatever_is_given(released: Path, tmp_path: Path) -> None:
    """R2 is of the held-out ones, and of equal ones it is nothing."""
    folder = tmp_path / "dataset"
    shutil.copytree(released / "dataset", folder)
    table, column = pq.read_table(folder / "val.parquet"), read_schema(folder).only(ItemsColumn)
    lists = []
    for items, ratings in zip(table["items"].to_pylist(), table["strength"].to_pylist(), strict=True):
        out = set(column.divide([item for item in items if not column.is_cold(item)])[1]) if len(items) > 1 else set()
        lists.append([2.0 if item in out else rating for item, rating in zip(items, ratings, strict=True)])
    place = table.schema.get_field_index("strength")
    pq.write_table(table.set_column(place, "strength", pa.array(lists)), folder / "val.parquet")
    assert len(read(folder, "val", load_vocabulary(released / "trunk")).rated.unique()) > 1
    with pytest.raises(InputError, match=r"val.parquet: all \d+ held-out ratings are 2"):
        problem().read(folder, "val", released / "trunk")


def test_a_dataset_whose_ratings_are_all_equal_is_refused(released: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    shutil.copytree(released / "dataset", folder)
    table = pq.read_table(folder / "train.parquet")
    lists = [[2.0] * len(row) for row in table["strength"].to_pylist()]
    place = table.schema.get_field_index("strength")
    pq.write_table(table.set_column(place, "strength", pa.array(lists)), folder / "train.parquet")
    with pytest.raises(InputError, match="ratings are 2"):
        problem().read(folder, "train", released / "trunk")
    lists[3] = lists[3][:-1]
    pq.write_table(table.set_column(place, "strength", pa.array(lists)), folder / "train.parquet")
    with pytest.raises(InputError, match=r"row \d+ has \d+ items, \d+ ratings"):
        read(folder, "train", load_vocabulary(released / "trunk"))
