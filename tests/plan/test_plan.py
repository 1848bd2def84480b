"""A plan: rows are counted, steps are those of the components, operations are those that the papers count."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from graftline import label_counts
from graftline.cli.plan import _show
from graftline.dataset import Schema
from graftline.environment import ROOT
from graftline.errors import InputError
from graftline.learning.loop import Run
from graftline.plan import FILE, Sections, compare, make_plan, start_seconds, write_plan
from graftline.plan.estimate import GIB, Row, price
from graftline.plan.layers import extend, is_large, layers_of, with_layers
from graftline.plan.measure import Step, measure
from graftline.plan.sample import Sample, sample_dataset, sample_raw
from graftline.plan.workload import pretraining
from graftline.profiles import Pod, Profile, choose, load_profiles
from graftline.records.folder import Draft, write_execution, write_record
from graftline.tasks.evaluate import EvaluateParams
from graftline.tasks.finetune import FinetuneParams
from graftline.tasks.parameters import parse
from graftline.tasks.pretrain import PretrainParams
from graftline.tasks.validate import ValidateParams
from graftline.text.tokens import open_tokens
from graftline.trunks.text.planning import plan as plan_text
from graftline.trunks.training import Planned
from graftline.values.contract import Contract, load_contract
from graftline.values.image import ImageColumn
from graftline.values.splits import read_images
from graftline.values.text import TextColumn

MASKED = {"objective": {"name": "masked_image", "patch": 4}}

ENCODER = {"name": "text", "layers": 2, "width": 32, "heads": 2, "hidden": 64}
CLASSES = ("a", "b", "c")


def sections(pretrain: dict[str, Any], finetune: dict[str, Any], evaluate: dict[str, Any]) -> Sections:
    return Sections(
        PretrainParams.model_validate(pretrain),
        FinetuneParams.model_validate(finetune),
        EvaluateParams.model_validate(evaluate),
    )


TEXT = sections(
    {"objective": {"name": "masked_lm"}, "trunk": ENCODER, "epochs": 3, "batch_tokens": 512},
    {"head": {"name": "sequence_classification"}, "batch": 16, "min_steps": 5, "epochs": 2, "patience": None},
    {"lift_labels": [4], "lift_seeds": 2},
)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """At most 200 lines of this repository's pages."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    lines = [line.strip() for page in pages for line in page.read_text().splitlines()]
    return [line for line in lines if len(line) > 20][:200]


@pytest.fixture
def text_sample(texts: list[str], tmp_path: Path) -> Sample:
    """A sample of a validated dataset of texts."""
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    schema = Schema(TextColumn("text"), "label", CLASSES)
    (dataset / "schema.json").write_text(json.dumps(schema.as_dict()))
    columns = {"text": texts, "row": np.arange(len(texts))}
    pq.write_table(pa.table(columns), dataset / "unlabelled.parquet")
    labels = [CLASSES[i % 3] for i in range(len(texts))]
    for split, count in {"train": 60, "val": 20, "test": 10}.items():
        pq.write_table(pa.table({**columns, "label": labels}).slice(0, count), dataset / f"{split}.parquet")
    return sample_dataset(dataset, folder(tmp_path, "sample"))


def folder(parent: Path, name: str) -> Path:
    path = parent / name
    path.mkdir()
    return path


def test_raw_images_are_counted_and_stand_in_as_random_pixels_of_their_shape(tmp_path: Path) -> None:
    task = ROOT / "data/mnist"
    sample = sample_raw(task / "raw", load_contract(task / "expectations.yaml"), ValidateParams(), tmp_path)
    assert sample.rows == {"train": 3500, "val": 500, "test": 1000, "unlabelled": 4000}
    images = read_images(sample.folder, "train")
    assert images.pixels.shape[1:] == (1, 28, 28)
    assert images.labels is not None
    assert set(images.labels) == set(range(10))


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_raw_text_without_labels_counts_as_unlabelled_only(suffix: str, texts: list[str], tmp_path: Path) -> None:
    label = {"type": "string", "role": "label", "nullable": True, "classes": list(CLASSES)}
    contract = parse({"columns": {"text": {"type": "text"}, "label": label}}, Contract, where="contract")
    raw = folder(tmp_path, "raw")
    lines = [" ".join(text.split()).replace('"', "") for text in texts[:100]]
    labels = [CLASSES[i % 3] if i < 50 else None for i in range(100)]
    if suffix == "parquet":
        pq.write_table(pa.table({"text": lines, "label": labels}), raw / "a.parquet")
    else:
        rows = [f'"{line}",{label or ""}' for line, label in zip(lines, labels, strict=True)]
        (raw / "a.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    sample = sample_raw(raw, contract, ValidateParams(), folder(tmp_path, "sample"))
    assert sample.rows == {"train": 35, "val": 5, "test": 10, "unlabelled": 90}
    assert pq.read_table(sample.folder / "unlabelled.parquet")["text"].to_pylist() == lines


def test_more_labels_than_the_rarest_class_has_are_refused_before_any_work(
    text_sample: Sample, texts: list[str], tmp_path: Path
) -> None:
    assert text_sample.available is not None and text_sample.available.count == 20
    label_counts.check(label_counts.asked(TEXT.finetune, TEXT.evaluate), text_sample.available)
    for section, setting in (("evaluate", {"lift_labels": [4, 21, None]}), ("finetune", {"labels_per_class": 21})):
        values = TEXT.as_dict()
        values[section] |= setting
        wanted = sections(**values)
        with pytest.raises(InputError, match=f"{section}.*: 21 labels a class; expected at most 20, which class a has"):
            label_counts.check(label_counts.asked(wanted.finetune, wanted.evaluate), text_sample.available)


@pytest.mark.parametrize(
    "shape",
    [
        {"trunk": {"channels": [4, 8, 16], "width": 16}},
        {"trunk": {"name": "vit", "layers": 1, "width": 16, "heads": 2, "hidden": 16}, **MASKED},
        {"trunk": {"name": "resnet", "stem": 4, "depths": [1], "channels": [8]}, **MASKED},
    ],
    ids=["conv", "vit", "resnet"],
)
def test_a_plan_of_images_has_the_steps_that_the_components_make(tmp_path: Path, shape: dict[str, Any]) -> None:
    dataset, schema = (folder(tmp_path, "dataset"), Schema(ImageColumn("image", (8, 8), 255.0), "label", (0, 1)))
    (dataset / "schema.json").write_text(json.dumps(schema.as_dict()))
    for split, count in {"train": 100, "val": 30, "test": 40, "unlabelled": 130}.items():
        columns = {"row": np.arange(count), "label": np.arange(count) % 2}
        pq.write_table(pa.table(columns), dataset / f"{split}.parquet")
    sample = sample_dataset(dataset, folder(tmp_path, "sample"))
    asked = sections(
        {**shape, "epochs": 10, "batch": 13},
        {"epochs": 4, "batch": 10, "min_steps": 7},
        {"lift_labels": [5, None], "lift_seeds": 3},
    )
    plan = make_plan("digits", asked, sample, load_profiles(), threads=1, start=3.0, seconds=0.05)
    pretrain, finetune, evaluate = plan.rows
    assert (pretrain.steps, pretrain.examples, pretrain.unit, pretrain.fits) == (100, 1300, "images", 1)
    assert (finetune.steps, finetune.examples) == (40, 400)
    # both arms, 3 seeds: 7 steps of all 10 images at 5 labels a class, 40 of 10 at all labels
    assert (evaluate.fits, evaluate.steps, evaluate.examples) == (12, 6 * 47, 6 * 470)
    assert pretrain.parameters > finetune.parameters  # the decoder
    assert pretrain.tokens is None
    assert all(row.flops > 0 and row.seconds > 0 and row.activation_bytes > 0 for row in plan.rows)
    assert [cost.profile for cost in plan.costs] == list(load_profiles())
    assert json.loads(json.dumps(plan.as_dict()))["seconds"].keys() == {"pretrain", "finetune", "evaluate"}


@pytest.mark.parametrize(
    ("objective", "architecture"), [("masked_lm", "modernbert"), ("masked_lm", "bert"), ("causal_lm", "llama")]
)
def test_operations_are_those_that_the_papers_count(
    objective: str, architecture: str, text_sample: Sample, tmp_path: Path
) -> None:
    """6 a weight and token and attention (Kaplan et al., 2020), the prediction head only where it is asked."""
    trunk = {**ENCODER, "architecture": architecture}
    params = PretrainParams.model_validate(
        {"objective": {"name": objective}, "trunk": trunk, "batch_tokens": 1_000_000, "epochs": 1}
    )
    work = folder(tmp_path, "work")
    ((part, step),) = pretraining(text_sample, params, folder(tmp_path, "trunk"), work)
    assert part.fits[0].steps == 1  # all documents in one batch
    lengths = open_tokens(work / "tokens").lengths.astype(np.int64)
    found = measure(step, seconds=0.01)
    assert found.tokens == lengths.sum()
    names = {name: weight.numel() for name, weight in step.module.named_parameters() if weight.ndim == 2}
    layers = sum(size for name, size in names.items() if "layer" in name)
    asked = len(lengths.nonzero()[0]) if objective == "causal_lm" else 0
    share = (lengths.sum() - asked) if objective == "causal_lm" else 0.3 * (lengths.sum() - 2 * len(lengths))
    head = 32 * 4096 + (32 * 32 if objective == "masked_lm" else 0)
    expected = 6 * layers * lengths.sum() + 12 * 2 * 32 * (lengths**2).sum() + 6 * head * share
    assert found.flops == pytest.approx(expected, rel=0.05)


def test_memory_is_weights_gradients_and_adams_two_moments_and_grows_with_the_batch() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 1))

    def step(batch: int) -> Step:
        pixels = torch.ones(batch, 64)
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-9)
        return Step(Run(module, optimizer, lambda number: module(pixels).mean(), steps=10, warmup=0), batch)

    small, large = measure(step(10), seconds=0.0), measure(step(30), seconds=0.0)
    weights = 64 * 128 + 128 + 128 + 1
    assert small.parameters == small.trained == weights
    assert small.state_bytes == pytest.approx(4 * 4 * weights, rel=0.001)
    # forward 2 a weight and example, backward 4, but none to the input's gradient
    assert small.flops == 10 * (6 * 128 + 4 * 64 * 128)
    assert large.activation_bytes == 3 * small.activation_bytes
    assert small.activation_bytes == 4 * 10 * (64 + 128)  # the input, and what the ReLU returns
    module[0].requires_grad_(False)
    assert measure(step(10), seconds=0.0).trained == 128 + 1


def test_a_plan_of_text_counts_tokens_of_all_documents(texts: list[str], text_sample: Sample) -> None:
    plan = make_plan("pages", TEXT, text_sample, {}, threads=1, start=3.0, seconds=0.05)
    pretrain, finetune, evaluate = plan.rows
    assert pretrain.unit == finetune.unit == "documents"
    assert pretrain.tokens is not None
    assert pretrain.tokens == pytest.approx(pretrain.steps * 512, rel=0.3)
    assert pretrain.examples == pytest.approx(3 * 0.9 * len(texts), rel=0.08)  # about a tenth, by digest, is held out
    assert (finetune.steps, evaluate.fits, evaluate.steps) == (7, 4, 4 * 5)
    twice = replace(text_sample, rows=text_sample.rows | {"unlabelled": 2 * len(texts)})
    more = make_plan("pages", TEXT, twice, {}, threads=1, start=3.0, seconds=0.05).rows[0]
    assert more.examples == pytest.approx(2 * pretrain.examples, rel=0.01)
    assert more.flops == pytest.approx(2 * pretrain.flops, rel=0.05)


def test_a_run_of_few_steps_measures_the_held_out_loss_no_more_often_than_it_steps(
    text_sample: Sample, tmp_path: Path
) -> None:
    def planned(epochs: float) -> Planned:
        place = folder(tmp_path, str(epochs))
        params = TEXT.pretrain.model_copy(update={"epochs": epochs})
        return next(plan_text(text_sample, params, folder(place, "trunk"), place))

    short, long = planned(0.01), planned(100)
    assert short.steps == 1 and long.steps > 100
    assert long.answered == 17 * short.answered > 0


def test_a_large_trunk_is_planned_from_one_and_two_of_its_layers(text_sample: Sample, tmp_path: Path) -> None:
    shape = {**ENCODER, "layers": 5}
    params = PretrainParams.model_validate(
        {"objective": {"name": "masked_lm"}, "trunk": shape, "sizes": {"half": {"trunk": ENCODER}}, "batch_tokens": 512}
    )
    assert not is_large(params)
    big = params.model_copy(update={"trunk": params.trunk.model_copy(update={"width": 8192, "layers": 40})})
    assert is_large(big)
    assert layers_of(with_layers(big, 2), "") == layers_of(with_layers(big, 2), "half") == 2

    def measured(layers: int) -> Any:
        torch.manual_seed(0)
        place = folder(tmp_path, str(layers))
        steps = pretraining(text_sample, with_layers(params, layers), folder(place, "trunk"), place)
        return measure(next(steps)[1], seconds=0.0)

    whole, guess = measured(5), extend(measured(1), measured(2), 5)
    assert (guess.parameters, guess.trained) == (whole.parameters, whole.trained)
    assert guess.flops == pytest.approx(whole.flops, rel=0.001)
    assert guess.state_bytes == pytest.approx(whole.state_bytes, rel=0.001)
    assert guess.activation_bytes == pytest.approx(whole.activation_bytes, rel=0.01)


def row(**values: Any) -> Row:
    facts: dict[str, Any] = dict.fromkeys(Row.__dataclass_fields__, 0)
    facts |= {"stage": "pretrain", "model": "", "unit": "documents", "fits": 1, "apart": None}
    return Row(**(facts | values))


def test_a_pools_price_follows_from_operations_its_peak_and_its_memory() -> None:
    pool = Profile(accelerator="a", count=4, memory_gib=10, peak_tflops=100, utilisation=0.5, price_per_hour=36)
    work = row(flops=1e15, steps=10, state_bytes=8 * GIB, activation_bytes=12 * GIB)
    cost = price("pool", pool, [work], 2, 0.0)
    assert cost.seconds["pretrain"] == pytest.approx(1e15 / 200e12)
    assert cost.cost == pytest.approx(cost.total * 0.01)
    assert cost.memory_gib == pytest.approx(8 + 3)  # four share the batch, each holds the model
    assert not cost.fits
    assert price("pool", pool.model_copy(update={"memory_gib": 11}), [work], 2, 0.0).fits
    slow = pool.model_copy(update={"least_step_ms": 1000})
    assert price("pool", slow, [work], 2, 0.0).seconds["pretrain"] == 10
    cores = Profile(cores=8, memory_gib=64, price_per_hour=1)
    here = row(seconds=100.0, state_bytes=GIB, fits=3, stage="evaluate")
    cost = price("cpu", cores, [here], 2, 1.0)
    assert (cost.seconds["evaluate"], cost.memory_gib) == (2 + 25, 3)


def test_what_the_accelerators_of_a_pool_do_not_share_is_not_divided_among_them() -> None:
    pool = Profile(accelerator="a", count=4, memory_gib=10, peak_tflops=1, utilisation=1, price_per_hour=1)
    # half of the work is validation: each of the four answers all of it
    step = row(flops=8e12, answered=0.5, steps=10)
    fits = row(stage="evaluate", fits=6, flops=6e12, apart=((10, 1e12),) * 6, activation_bytes=8 * GIB)
    cost = price("pool", pool, [step, fits], 2, 0.0)
    assert cost.seconds["pretrain"] == pytest.approx(8 * (0.5 / 4 + 0.5))
    assert cost.seconds["evaluate"] == pytest.approx(2)  # six fits of a second on four devices
    assert cost.memory_gib == 8  # a fit has its whole batch on its device
    assert cost.devices["pretrain"] == "4 share each batch; what is only answered, each answers whole"
    assert cost.devices["evaluate"] == "4, one fit at a time on each"
    one = price("pool", pool.model_copy(update={"count": 1}), [step, fits], 2, 0.0)
    assert (one.devices["pretrain"], one.seconds["evaluate"]) == ("1", pytest.approx(6))
    two_trunks = price("pool", pool, [step, step, fits], 2, 0.0)
    assert two_trunks.devices["pretrain"].startswith("refused: several trunks")
    nodes = Pod(accelerators=2, nodes=2, resource="x")
    two_nodes = price("pool", pool.model_copy(update={"pod": nodes}), [step, fits], 2, 0.0)
    assert two_nodes.seconds["evaluate"] == pytest.approx(3)  # its workers are on one machine
    assert price("cpu", Profile(cores=2, memory_gib=99, price_per_hour=1), [step], 2, 0.0).devices == {}


def test_the_time_to_load_is_that_of_the_modules_that_there_are() -> None:
    """Of text's here; of images' where tests/cli/test_plan.py plans mnist."""
    text = {"trunk": {"name": "text"}, "objective": {"name": "masked_lm"}}
    assert start_seconds(PretrainParams.model_validate(text)) > 0


def test_the_shipped_profiles_are_complete_and_an_unknown_one_names_the_nearest() -> None:
    profiles = load_profiles()
    assert list(profiles) == ["cpu", "dev", "gpu-l4-spot", "gpu-a100", "gpu-h100x8"]
    assert choose(profiles, None) == profiles
    assert list(choose(profiles, "gpu-a100")) == ["gpu-a100"]
    with pytest.raises(InputError, match="did you mean 'gpu-a100'") as caught:
        choose(profiles, "gpu-a10")
    assert "expected one of cpu" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("profiles: {}", "profiles"),
        ("profiles: {a: {cores: 2, memory_gib: 1}}", "price_per_hour"),
        ("profiles: {a: {accelerator: x, memory_gib: 1, price_per_hour: 1}}", "peak_tflops goes with accelerator"),
        ("profiles: {a: {memory_gib: 1, price_per_hour: 1}}", "either cores or accelerator"),
        ("profiles: {a: {cores: 2, memory_gib: 1, price_per_hour: -1}}", "price_per_hour"),
        ("profiles: {a: {cores: 2, memory_gib: 1, price_per_hour: 1, mfu: 1}}", "mfu: unknown key"),
    ],
)
def test_a_profile_that_says_too_little_is_refused(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "profiles.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_profiles(path)
    assert str(path) in str(caught.value)
    assert says in str(caught.value)


def test_a_run_is_compared_with_the_plan_of_its_own_parameters(text_sample: Sample, tmp_path: Path) -> None:
    assert compare(tmp_path) == []
    plan = make_plan("pages", TEXT, text_sample, {}, threads=1, start=3.0, seconds=0.05)
    write_plan(plan, tmp_path)
    names = {"pretrain": "trunk", "finetune": "model", "evaluate": "evaluation"}

    def run(stage: str, parameters: dict[str, Any], threads: int) -> None:
        out = tmp_path / names[stage]
        if out.exists():
            for path in out.iterdir():
                path.unlink()
        out.mkdir(exist_ok=True)
        draft = Draft(stage, "pages", names[stage], parameters=parameters, environment={"threads": threads})
        record = write_record(out, draft)
        write_execution(out, {"record": record.sha256, "seconds": 12.5})

    values = TEXT.as_dict()
    run("pretrain", {"pretrain": values["pretrain"]}, 1)
    run("evaluate", {name: values[name] for name in ("evaluate", "finetune")}, 1)
    found = compare(tmp_path)
    assert [(c.stage, c.actual) for c in found] == [("pretrain", 12.5), ("evaluate", 12.5)]
    assert [c.estimated for c in found] == [plan.stage_seconds()[c.stage] for c in found]
    run("pretrain", {"pretrain": values["pretrain"] | {"epochs": 4.0}}, 1)
    assert [c.stage for c in compare(tmp_path)] == ["evaluate"]
    run("pretrain", {"pretrain": values["pretrain"]}, 2)
    assert [c.stage for c in compare(tmp_path)] == ["evaluate"]
    (tmp_path / FILE).write_text('{"seconds": {}}')
    with pytest.raises(InputError, match="not a plan"):
        compare(tmp_path)


HOGS = """
import os, subprocess, sys
import torch
from graftline.learning.loop import Run
from graftline.plan.measure import BUSY, Step, measure
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
try:
    torch.set_num_threads(1)
    module, pixels = torch.nn.Linear(512, 512), torch.ones(512, 512)
    run = Run(module, torch.optim.SGD(module.parameters(), lr=0.1), lambda step: module(pixels).mean(), 10, 0)
    found = measure(Step(run, 512), seconds=0.3)
    print(found.share < BUSY)
finally:
    for hog in hogs:
        hog.kill()
"""


def test_steps_that_share_their_cpu_with_others_are_told_from_slow_ones() -> None:
    done = forked.run([sys.executable, "-c", HOGS], encoding="utf-8")
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize(("share", "says"), [(0.3, True), (0.97, False)])
def test_a_plan_says_when_the_machine_is_busy(
    share: float, says: bool, text_sample: Sample, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plan = make_plan("pages", TEXT, text_sample, {}, threads=1, start=3.0, seconds=0.05)
    _show(replace(plan, share=share, load=17.0), tmp_path)
    assert (
        "this machine is busy: the steps that were timed had a CPU for 30% of the time (load 17.0)"
        in (capsys.readouterr().out)
    ) is says
