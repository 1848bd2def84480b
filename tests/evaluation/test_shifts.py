"""`evaluate.shifts` on real digits and glosses: spoiled rows, and rows of another source, asked of the lift's fits."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

import small
import small_clips
import small_speech
import small_text

from graftline.dataset import read_schema
from graftline.errors import InputError
from graftline.evaluation.lift import ARMS, Experiment, measure_lift
from graftline.evaluation.shifts.datasets import Source
from graftline.evaluation.shifts.measuring import FAR, begin, mean_of, set_name, take
from graftline.evaluation.shifts.parameters import DataShift, ShiftParams
from graftline.problems.registry import make_problem
from graftline.problems.scores import accuracy, accuracy_rows
from graftline.records.folder import verify
from graftline.report import write_report
from graftline.score import t_interval
from graftline.store.opening import open_store
from graftline.tasks.evaluate import EvaluateParams
from graftline.tasks.finetune import FinetuneParams
from graftline.values.audio import AudioColumn
from graftline.values.corruption import OF_CLIPS, OF_ENGLISH, OF_PICTURES, OF_TEXTS, Corruption
from graftline.values.image import ImageColumn
from graftline.values.splits import read_images, read_texts
from graftline.values.text import TextColumn
from graftline.values.words import TokensColumn

WAYS, SEVERITIES = ("contrast", "gaussian_noise"), (1, 5)
SHIFTS = {"corruptions": WAYS, "severities": SEVERITIES, "labels": 2, "test_rows": 60}
OTHER = {"column": "place", "train": ("a",), "test": ("b",)}
GATE = {"floors": {"shifted_accuracy": 0.1, "shift_lift_contrast": -1}, "ceilings": {"mce": 9, "shifted_ece": 1}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def shifted(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of the small task of digits, its evaluation made again with shifts."""
    folder = tmp_path_factory.mktemp("shifts")
    for name in ("dataset", "trunk", "model"):
        shutil.copytree(small.released(home) / name, folder / name)
    section = {**small.PARAMS["evaluate"], "shifts": SHIFTS, "gate": GATE}
    inputs = {f"in_{name}": folder / name for name in ("dataset", "trunk", "model")}
    document = {**small.PARAMS, "evaluate": section}
    small.make("evaluate", document, **inputs, out_evaluation=folder / "evaluation", store=folder / "store")
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_what_was_measured_before_is_measured_alike(shifted: Path, home: Path) -> None:
    """Shifts ask the lift's fits more, and change none of them."""
    plain = small.released(home) / "evaluation"
    for name in ("lift.json", "predictions.parquet", "classes.json"):
        assert (plain / name).read_bytes() == (shifted / "evaluation" / name).read_bytes()
    before, after = (read(folder / "metrics.json") for folder in (plain, shifted / "evaluation"))
    assert before.items() <= after.items()


def test_metrics_are_those_of_the_sets_beside_them(shifted: Path) -> None:
    metrics, told = read(shifted / "evaluation/metrics.json"), read(shifted / "evaluation/shifts.json")
    assert (told["rows"], told["labels"], told["score"]) == (60, "2", "accuracy")
    sets = {(one["corruption"], one["severity"]): one for one in told["sets"]}
    assert set(sets) == {(None, 0), *((way, severity) for way in WAYS for severity in SEVERITIES)}
    for way in WAYS:
        values = [sets[way, severity]["released"]["value"] for severity in SEVERITIES]
        assert metrics[f"shifted_accuracy_{way}"] == pytest.approx(np.mean(values))
    everything = [sets[way, severity]["released"]["value"] for way in WAYS for severity in SEVERITIES]
    assert metrics["shifted_accuracy"] == pytest.approx(np.mean(everything))
    assert metrics["shifted_accuracy_low"] < metrics["shifted_accuracy"] < metrics["shifted_accuracy_high"]
    assert sets[None, 0]["released"]["value"] > sets["gaussian_noise", 5]["released"]["value"]
    assert 0 < metrics["shifted_ece"] < 1


def test_the_corruption_error_and_the_lift_are_as_by_hand_over_paired_seeds(shifted: Path) -> None:
    metrics, fits = (
        read(shifted / "evaluation/metrics.json"),
        read(shifted / "evaluation/shifts.json")["fits"]["spoiled"],
    )
    ratios, gains = [], []
    for seed in ("0", "1"):
        of = {arm: {one: values[seed] for one, values in fits[arm].items()} for arm in ARMS}
        errors = {arm: [sum(1 - of[arm][set_name(way, s)] for s in SEVERITIES) for way in WAYS] for arm in ARMS}
        ratios.append(np.mean([trunk / scratch for trunk, scratch in zip(*errors.values(), strict=True)]))
        gains.append(np.mean([of["trunk"][one] - of["scratch"][one] for one in of["trunk"] if one != "clean"]))
    for name, values in (("mce", ratios), ("shift_lift", gains)):
        found = t_interval(values)
        ends = [metrics[f"{name}{end}"] for end in ("", "_low", "_high")]
        assert ends == pytest.approx([found.value, found.low, found.high])


def test_the_gate_goes_by_their_names_and_the_record_holds_them(shifted: Path) -> None:
    record = verify(shifted / "evaluation")
    assert record.metrics["mce"] == read(shifted / "evaluation/metrics.json")["mce"]
    rules = {rule["name"]: rule["passed"] for rule in read(shifted / "evaluation/decision.json")["rules"]}
    assert rules["floors.shifted_accuracy"] and rules["ceilings.mce"] and rules["floors.shift_lift_contrast"]


def test_the_report_has_their_picture_and_table(shifted: Path) -> None:
    assert (shifted / "evaluation/shifts.png").read_bytes().startswith(b"\x89PNG")
    page = write_report(shifted, open_store(str(shifted / "store")), shifted / "report.html").read_text()
    assert "On spoiled data" in page and "gaussian noise" in page and "Knowing when it does not know" in page


@pytest.mark.parametrize(
    ("shifts", "gate", "message"),
    [
        ({"labels": 7}, {}, "shifts.labels is 7, which is not in lift_labels"),
        ({"labels": 2, "severities": (1, 1)}, {}, "one stands twice"),
        ({"labels": 2, "data": {"low": OTHER}}, {}, "data.low: shift_lift_low would be the end of an interval"),
        ({"labels": 2, "data": {"fog_high": OTHER}}, {}, "data.fog_high"),
        ({"labels": 2, "data": {"fog": OTHER}}, {}, "shift_lift_fog is of the corruption 'fog'"),
        ({"labels": 2, "data": {"typos": OTHER}}, {}, "is of the corruption 'typos'"),
        ({"labels": 2, "data": {"telephone": OTHER}}, {}, "is of the corruption 'telephone'"),
        ({"labels": 2, "severities": (6,)}, {}, "less than or equal to 5"),
    ],
)
def test_parameters_that_cannot_be_are_refused(shifts: Any, gate: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EvaluateParams(lift_labels=(2,), shifts=shifts, gate=gate)


def test_a_gate_on_a_shift_that_is_not_measured_is_refused() -> None:
    head = FinetuneParams().head
    section = EvaluateParams(lift_labels=(2,), shifts={"labels": 2, "corruptions": ("fog",)})
    section.gate.check_names(section.measured(head.scores), "here")
    gate = section.gate.model_copy(update={"floors": {"shift_lift_fogg": 0.0}})
    with pytest.raises(InputError, match=r"floors.shift_lift_fogg.*did you mean 'shift_lift_fog'"):
        gate.check_names(section.measured(head.scores), "here")
    with pytest.raises(InputError, match="no such score"):
        gate.check_names(EvaluateParams().measured(head.scores), "here")


def test_a_gate_on_slices_names_scores_that_slices_have() -> None:
    gate = {"slices": {"designer=noto": {"shifted_accuracy": 0.3}}}
    section = EvaluateParams(lift_labels=(2,), shifts={"labels": 2}, gate=gate)
    with pytest.raises(InputError, match=r"slices.designer=noto.shifted_accuracy: this problem has no such score"):
        section.check_head(FinetuneParams().head, "here")


def test_corruptions_that_a_shift_may_not_be_named_after_are_all_there_are() -> None:
    kinds = (AudioColumn, ImageColumn, TextColumn, TokensColumn)
    assert {name for kind in kinds for name in kind.corruptions} == {*OF_PICTURES, *OF_TEXTS, *OF_CLIPS}
    assert {name for kind in kinds for name in kind.asked_corruptions} == {*OF_ENGLISH}


def source(dataset: Path, head: str, rows: int | None = None) -> Source:
    params = FinetuneParams.model_validate({"head": {"name": head}}).head
    return Source(dataset, make_problem(params, read_schema(dataset)), rows, 0)


def test_what_does_not_apply_is_refused_with_what_does(home: Path) -> None:
    digits = source(small.dataset(home), "image_classification")
    with pytest.raises(InputError, match=r"cannot be spoiled by 'typos'.*expected one of gaussian_noise, .*jpeg"):
        digits.ways(ShiftParams(corruptions=("typos",)))
    glosses = source(small_text.dataset(home), "sequence_classification")
    assert glosses.ways(ShiftParams()) == ("typos", "case", "ocr", "dropped_words", "swapped_words")
    assert glosses.ways(ShiftParams(corruptions=("synonyms",))) == ("synonyms",), "of English, who asks for it"
    writing = source(small_text.dataset(home), "text_generation")
    with pytest.raises(InputError, match=r"expected none, \[\]"):
        writing.ways(ShiftParams(corruptions=("typos",)))
    with pytest.raises(InputError, match="nothing to measure"):
        writing.ways(ShiftParams())


def test_spoiled_rows_are_the_test_rows_but_for_what_the_model_sees(home: Path, tmp_path: Path) -> None:
    dataset = small.dataset(home)
    digits = source(dataset, "image_classification", rows=50)
    clean = read_images(digits.write_clean(tmp_path / "clean"), "test")
    noisy = read_images(digits.write_spoiled(tmp_path / "noisy", Corruption("gaussian_noise", 3, 0)), "test")
    again = read_images(digits.write_spoiled(tmp_path / "again", Corruption("gaussian_noise", 3, 0)), "test")
    assert np.array_equal(clean.rows, noisy.rows) and np.array_equal(clean.labels, noisy.labels)
    assert len(clean.rows) == 50 and set(clean.rows) < set(read_images(dataset, "test").rows)
    away = np.abs(clean.pixels.numpy() - noisy.pixels.numpy())
    assert 0.01 < away.mean() < 0.1
    assert np.array_equal(noisy.pixels.numpy(), again.pixels.numpy())


def test_texts_are_spoiled_word_by_word(home: Path, tmp_path: Path) -> None:
    glosses = source(small_text.dataset(home), "sequence_classification", rows=40)
    clean = read_texts(glosses.write_clean(tmp_path / "clean"), "test")
    typos = read_texts(glosses.write_spoiled(tmp_path / "typos", Corruption("typos", 5, 0)), "test")
    assert np.array_equal(clean.labels, typos.labels)
    pairs = [
        pair
        for texts in zip(clean.texts, typos.texts, strict=True)
        for pair in zip(*map(str.split, texts), strict=True)
    ]
    hit = np.mean([one != other for one, other in pairs])
    assert 0.4 < hit < 0.6 and all(len(one) == len(other) for one, other in pairs)


def test_clips_are_spoiled_and_what_is_said_stays(home: Path, tmp_path: Path) -> None:
    for dataset, head in ((small_clips.dataset(home), "sequence_classification"),
                          (small_speech.dataset(home), "recognition")):  # fmt: skip
        clips = source(dataset, head, rows=8)
        assert clips.ways(ShiftParams()) == OF_CLIPS
        folders = (clips.write_clean(tmp_path / head / "clean"),
                   clips.write_spoiled(tmp_path / head / "line", Corruption("telephone", 2, 0)))  # fmt: skip
        clean, line = (pq.read_table(folder / "test.parquet") for folder in folders)
        assert line.drop(["audio"]) == clean.drop(["audio"]) and line.schema == clean.schema
        for one, other in zip(clean["audio"].to_pylist(), line["audio"].to_pylist(), strict=True):
            assert len(one) == len(other) and one != other


def with_source(dataset: Path, out: Path) -> Path:
    """Return a copy of the dataset whose rows are of two sources."""
    shutil.copytree(dataset, out)
    for path in out.glob("*.parquet"):
        table = pq.read_table(path)
        if "row" in table.column_names and path.stem in ("train", "val", "test", "unlabelled"):
            names = [f"{'shop' if row % 3 else 'studio'}-{row % 2}" for row in table["row"].to_pylist()]
            pq.write_table(table.append_column("place", pa.array(names)), path)
    return out


def test_fits_of_one_source_are_asked_about_another(home: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    dataset = with_source(small.dataset(home), tmp_path / "dataset")
    digits = source(dataset, "image_classification")
    shift = DataShift(column="place", train=("shop-*",), test=("studio-0", "studio-1"))
    digits.write_spoiled(tmp_path / "chosen/near", Corruption("fog", 1, 0))  # as a run that was killed leaves folders
    near, far = digits.write_chosen(tmp_path / "chosen", "studio", shift)
    for folder, split, place in (
        (near, "train", "shop"),
        (near, "val", "shop"),
        (near, "test", "shop"),
        (far, "test", "studio"),
    ):
        found = pq.read_table(folder / f"{split}.parquet")["place"].to_pylist()
        assert found and {one.partition("-")[0] for one in found} == {place}

    params = ShiftParams(corruptions=(), data={"studio": shift}, labels=2)
    finetune = FinetuneParams(min_steps=5, epochs=1, warmup_steps=0)
    experiment = Experiment(dataset, small.trunk(home), finetune, tmp_path / "work")
    shifts = begin(params, experiment, 0)
    assert shifts is not None
    lift = measure_lift(experiment, (2,), range(2), 1)
    take(shifts, lift, experiment, range(2), 1)
    once = shifts.named["studio"]
    take(shifts, lift, experiment, range(2), 1)
    values = shifts.named["studio"]
    assert values == once, "a run that was killed is run again"
    assert values.keys() == set(ARMS) and values["trunk"].keys() == {"clean", FAR}
    gains = [values["trunk"][FAR][seed] - values["scratch"][FAR][seed] for seed in (0, 1)]
    assert shifts.metrics() == pytest.approx(
        dict(
            zip(
                ("shift_lift_studio", "shift_lift_studio_low", "shift_lift_studio_high"),
                vars(t_interval(gains)).values(),
                strict=True,
            )
        )
    )


def test_a_source_that_is_not_there_is_named(home: Path, tmp_path: Path) -> None:
    digits = source(with_source(small.dataset(home), tmp_path / "dataset"), "image_classification")
    with pytest.raises(InputError, match=r"data.x.column: no column 'plac'; did you mean 'place'"):
        digits.write_chosen(tmp_path / "one", "x", DataShift(column="plac", train=("a",), test=("b",)))
    with pytest.raises(InputError, match=r"data.x.test: no row of test has such a place: b; expected .*shop-0"):
        digits.write_chosen(tmp_path / "two", "x", DataShift(column="place", train=("shop*",), test=("b",)))


def test_what_the_data_lack_is_refused_before_the_lift(home: Path, tmp_path: Path) -> None:
    dataset = with_source(small.dataset(home), tmp_path / "dataset")
    experiment = Experiment(dataset, small.trunk(home), FinetuneParams(), tmp_path / "work")
    shops = {"train": ("shop-*",), "test": ("studio-*",)}
    for shift, labels, message in (
        ({"column": "plac", **shops}, 2, "data.x.column: no column 'plac'"),
        ({"column": "place", "train": ("no",), "test": ("studio-*",)}, 2, "data.x.train: no row of train"),
        ({"column": "place", **shops}, 5000, "data.x: labels 5000, but class number 0 has"),
    ):
        params = ShiftParams(corruptions=(), data={"x": shift}, labels=labels)
        with pytest.raises(InputError, match=message):
            begin(params, experiment, 0)
    assert begin(ShiftParams(corruptions=(), data={"x": {"column": "place", **shops}}, labels=2), experiment, 0)
    assert not list((tmp_path / "work" / "checked").iterdir())


def test_the_mean_over_sets_draws_the_same_rows_in_each() -> None:
    """Opposite answers on the same rows: the mean of the two never moves, whichever rows are drawn."""
    right = np.random.default_rng(0).random(200) < 0.5
    parts = [accuracy_rows(accuracy(), np.arange(200), of) for of in (right, ~right)]
    drawn = np.random.default_rng(1).multinomial(200, np.full(200, 1 / 200), size=50).astype(float)
    assert np.allclose(mean_of(parts).values(drawn), 0.5)
    assert np.ptp(parts[0].values(drawn)) > 0.05
