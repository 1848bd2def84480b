"""The training loop: schedule, metrics, resume, and ends that are not a success."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from graftline.errors import GraftlineError, InputError
from graftline.learning.checkpoint import Checkpoints
from graftline.learning.guard import PATIENCE, WINDOW
from graftline.learning.loop import Desk, Run, linear, schedule, train
from graftline.learning.metrics import MetricsLog, read_metrics
from graftline.learning.randomness import generator

STEPS = 120


class KilledError(Exception):
    """Stands for kill -9 where one process must go on to look."""


class Watch:
    """Raises after `kill_after` steps; stops the run after `stop_after`; counts, as a state of its own."""

    def __init__(self, kill_after: int | None = None, stop_after: int | None = None) -> None:
        self.kill_after, self.stop_after, self.looks = kill_after, stop_after, 0

    def after_step(self, step: int) -> bool:
        if step == self.kill_after:
            raise KilledError
        self.looks += 1
        return step == self.stop_after

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        return {"looks": torch.tensor(self.looks)}, {"looks": self.looks}

    def restore(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        assert tensors["looks"].item() == facts["looks"]
        self.looks = facts["looks"]


def make_run(watch: Watch | None = None, *, harm: dict[int, float] | None = None, steepen: int | None = None) -> Run:
    """Return a regression with a batch norm; `harm` multiplies the loss of some steps, `steepen` breaks a slope."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))

    def loss(step: int) -> torch.Tensor:
        inputs = torch.randn(16, 6, generator=generator(0, step, "inputs"))
        value = nn.functional.mse_loss(module(inputs)[:, 0], inputs.sin().sum(dim=1))
        if step == steepen:
            value = value + (module[0].weight * 0).sum().sqrt()  # adds 0, with a slope that is NaN
        return value * (harm or {}).get(step, 1.0)

    optimizer = torch.optim.AdamW(module.parameters(), lr=0.02, fused=True)
    return Run(module, optimizer, loss, STEPS, warmup=10, watcher=watch or Watch())


def make_desk(folder: Path, every_seconds: float = 0) -> Desk:
    checkpoints = Checkpoints(folder / "checkpoints", "identity", every_seconds)
    return Desk("a run", folder / "metrics.jsonl", checkpoints, batch=16)


def same_bits(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_rate_rises_from_near_zero_to_its_peak_and_ends_near_zero() -> None:
    factors = [schedule(step, 1000, 100) for step in range(1000)]
    assert factors[0] == pytest.approx(0.01, rel=1e-3)
    assert max(factors) == factors[99] > 0.97
    assert factors[99:] == sorted(factors[99:], reverse=True)
    assert 0 < factors[-1] < 1e-5


def test_without_warm_up_the_first_step_has_the_whole_rate() -> None:
    assert schedule(0, 100, 0) == 1.0
    assert schedule(50, 100, 0) == pytest.approx(0.5)


def test_the_linear_rate_falls_in_a_straight_line() -> None:
    factors = [linear(step, 1000, 100) for step in range(1000)]
    assert factors[:101] == pytest.approx([(step + 1) / 100 for step in range(100)] + [1.0])
    assert factors[100:] == pytest.approx([1 - step / 900 for step in range(900)])


def test_a_run_follows_its_own_schedule(tmp_path: Path) -> None:
    run = make_run()
    run.schedule = lambda step: linear(step, STEPS, 10)
    train(run, make_desk(tmp_path))
    rates = [line["learning_rate"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert rates == pytest.approx([0.02 * linear(step, STEPS, 10) for step in range(STEPS)])


def make_run_of_two(watch: Watch | None = None) -> Run:
    """Return the run with Muon for its matrices, AdamW for the rest, and a gradient that is cut."""
    run = make_run(watch)
    weights = list(run.module.parameters())
    muon = torch.optim.Muon([weight for weight in weights if weight.ndim == 2], lr=0.02)
    adamw = torch.optim.AdamW([weight for weight in weights if weight.ndim != 2], lr=0.01)
    run.optimizer, run.clip = [muon, adamw], 0.1
    return run


def test_a_run_with_two_optimizers_resumes_to_the_same_bits(tmp_path: Path) -> None:
    unbroken, resumed = make_run_of_two(), make_run_of_two()
    train(unbroken, make_desk(tmp_path / "unbroken"))
    with pytest.raises(KilledError):
        train(make_run_of_two(Watch(60)), make_desk(tmp_path / "broken"))
    train(resumed, make_desk(tmp_path / "broken"))
    assert same_bits(unbroken.module, resumed.module)
    lines = read_metrics(tmp_path / "broken/metrics.jsonl")
    assert lines == read_metrics(tmp_path / "unbroken/metrics.jsonl")
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_a_clipped_gradient_has_the_norm_that_was_asked_for() -> None:
    run = make_run()
    start = [weight.detach().clone() for weight in run.module.parameters()]
    run.optimizer = torch.optim.SGD(run.module.parameters(), lr=1.0)
    run.steps, run.warmup, run.clip = 1, 0, 0.01
    train(run)
    moved = [(w.detach() - s).square().sum() for w, s in zip(run.module.parameters(), start, strict=True)]
    assert torch.stack(moved).sum().sqrt().item() == pytest.approx(0.01, rel=1e-3)


def test_a_tied_parameter_is_stored_once_and_restored_twice(tmp_path: Path) -> None:
    def tied(watch: Watch) -> Run:
        torch.manual_seed(0)
        first, last = nn.Linear(6, 6), nn.Linear(6, 6)
        last.weight = first.weight
        module = nn.Sequential(first, nn.Tanh(), last)
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.02)
        return Run(module, optimizer, lambda step: module(torch.ones(1, 6)).square().sum(), 8, 0, watch)

    unbroken, resumed = tied(Watch()), tied(Watch())
    train(unbroken)
    with pytest.raises(KilledError):
        train(tied(Watch(4)), make_desk(tmp_path))
    train(resumed, make_desk(tmp_path))
    assert same_bits(unbroken.module, resumed.module)
    assert resumed.module[0].weight is resumed.module[2].weight


def test_the_rate_that_is_shown_counts_what_the_steps_held(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counted: list[int] = []
    desk = make_desk(tmp_path)
    desk.batch, desk.unit = lambda step: counted.append(step) or 10, "tokens"  # type: ignore[func-returns-value]
    train(make_run(), desk)
    assert counted == list(range(STEPS))
    assert "tokens/s" in capsys.readouterr().err


def test_a_run_learns_and_writes_a_line_a_step(tmp_path: Path) -> None:
    run = make_run()
    assert train(run, make_desk(tmp_path, every_seconds=1e9)) == STEPS
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert lines[-1]["loss"] < lines[0]["loss"] / 2
    assert lines[0]["learning_rate"] == pytest.approx(0.02 * schedule(0, STEPS, 10))
    assert not (tmp_path / "checkpoints").exists(), "no checkpoint was due"


def test_a_desk_does_not_change_the_bits(tmp_path: Path) -> None:
    alone, watched = make_run(), make_run()
    train(alone)
    train(watched, make_desk(tmp_path))
    assert same_bits(alone.module, watched.module)


@pytest.mark.parametrize("kills", [(1,), (2,), (60,), (120,), (7, 8, 50, 51, 119)])
def test_a_killed_run_that_is_run_again_ends_with_the_same_bits_and_metrics(
    tmp_path: Path, kills: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    unbroken = make_run()
    train(unbroken, make_desk(tmp_path / "unbroken"))
    for kill in kills:
        with pytest.raises(KilledError):
            train(make_run(Watch(kill)), make_desk(tmp_path / "broken"))
    capsys.readouterr()
    resumed = make_run()
    assert train(resumed, make_desk(tmp_path / "broken")) == STEPS
    said = f"a run: going on from step {kills[-1] - 1} of {STEPS}"
    assert (said in capsys.readouterr().err) == (kills[-1] > 1)
    assert same_bits(unbroken.module, resumed.module)
    assert isinstance(resumed.watcher, Watch)
    assert resumed.watcher.looks == STEPS
    assert (tmp_path / "broken/metrics.jsonl").read_bytes() == (tmp_path / "unbroken/metrics.jsonl").read_bytes()


def test_a_run_that_falls_back_to_the_checkpoint_before_ends_with_the_same_bits(tmp_path: Path) -> None:
    unbroken = make_run()
    train(unbroken, make_desk(tmp_path / "unbroken"))
    with pytest.raises(KilledError):
        train(make_run(Watch(60)), make_desk(tmp_path / "broken"))
    (tmp_path / "broken/checkpoints/00000059/state.safetensors").write_bytes(b"")
    resumed = make_run()
    train(resumed, make_desk(tmp_path / "broken"))
    assert same_bits(unbroken.module, resumed.module)
    assert (tmp_path / "broken/metrics.jsonl").read_bytes() == (tmp_path / "unbroken/metrics.jsonl").read_bytes()


def test_a_run_that_its_watcher_ended_stays_ended(tmp_path: Path) -> None:
    first = make_run(Watch(stop_after=30))
    assert train(first, make_desk(tmp_path)) == 30
    again = make_run(Watch(stop_after=30))
    assert train(again, make_desk(tmp_path)) == 30
    assert same_bits(first.module, again.module)
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 30


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_run_and_names_the_step(tmp_path: Path, value: float) -> None:
    with pytest.raises(GraftlineError, match=rf"the loss is {value} at step 34;"):
        train(make_run(harm={33: value}), make_desk(tmp_path, every_seconds=1e9))


def test_the_rows_of_a_bad_step_and_the_last_good_checkpoint_are_named(tmp_path: Path) -> None:
    run = make_run(Watch(), harm={33: math.nan})
    run.rows = lambda step: range(100 * step, 100 * step + 64)
    with pytest.raises(GraftlineError) as caught:
        train(run, make_desk(tmp_path))
    line = str(caught.value)
    path = tmp_path / "rows-of-step-34.txt"
    rows = ", ".join(str(row) for row in range(3300, 3310))
    folder = tmp_path / "checkpoints/00000033"
    assert f"the loss is nan at step 34; its rows: {rows} and 54 more, all in {path}" in line
    assert f"; the last good checkpoint is of step 33, in {folder}; lower the learning rate" in line
    assert path.read_text().splitlines() == [str(row) for row in range(3300, 3364)]
    assert max(path.name for path in (tmp_path / "checkpoints").iterdir()) == "00000033"


def test_broken_weights_are_not_checkpointed(tmp_path: Path) -> None:
    """The slope of step 60 is NaN and its loss is not: the weights are NaN before any loss is."""
    with pytest.raises(GraftlineError, match=r"NaN or infinite after step 60; the last good checkpoint is of step 59"):
        train(make_run(steepen=59), make_desk(tmp_path))
    assert max(path.name for path in (tmp_path / "checkpoints").iterdir()) == "00000059"


def spiking(watch: Watch | None = None) -> Run:
    """Return a run whose loss jumps at step 105 and stays there."""
    run = make_run(watch, harm=dict.fromkeys(range(104, STEPS), 1e4))
    run.schedule, run.spike_factor = lambda step: 1e-3, 10.0
    return run


def test_a_loss_that_stays_high_ends_the_run_and_nothing_after_the_rise_is_kept(tmp_path: Path) -> None:
    assert WINDOW < 104 < STEPS - PATIENCE
    with pytest.raises(GraftlineError, match=r"rose above .* at step 105 .* at step 114; .* good .* of step 104"):
        train(spiking(), make_desk(tmp_path))
    assert max(path.name for path in (tmp_path / "checkpoints").iterdir()) == "00000104"


def test_a_resumed_run_stops_at_the_same_spike(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        train(spiking(Watch(90)), make_desk(tmp_path))
    with pytest.raises(GraftlineError, match=r"rose above .* at step 105 "):
        train(spiking(), make_desk(tmp_path))


@pytest.mark.parametrize("with_desk", [True, False])
def test_harm_in_the_last_step_is_seen_though_no_loss_shows_it(tmp_path: Path, with_desk: bool) -> None:
    run = make_run(steepen=STEPS - 1)
    with pytest.raises(GraftlineError, match=f"NaN or infinite after step {STEPS}"):
        train(run, make_desk(tmp_path) if with_desk else None)


def test_the_metrics_file_is_cut_where_the_checkpoint_saw_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, None)
    log.add(1, torch.tensor(0.5), 0.1)
    size = log.sync()
    log.add(2, torch.tensor(0.25), 0.1)
    log.close()
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"step": 3, "lo')  # a kill in the middle of a line
    log = MetricsLog(path, size)
    assert path.read_bytes() == whole[:size]
    log.add(2, torch.tensor(0.25), 0.1)
    log.close()
    assert path.read_bytes() == whole
    assert json.loads(whole.splitlines()[1]) == {"step": 2, "loss": 0.25, "learning_rate": 0.1}


def test_a_metrics_file_that_lost_lines_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("{}\n")
    with pytest.raises(InputError, match=r"3 bytes; expected at least 100; delete its folder, run again"):
        MetricsLog(path, 100)
    assert path.read_text() == "{}\n"
