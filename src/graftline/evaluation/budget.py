"""Quality against training budget: the trunks that pretraining made for comparison, each fine-tuned alike.

How a user chooses a model by quality and cost: what a smaller trunk, or a shorter training, would have lost.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.canonical import read_json
from graftline.errors import InputError
from graftline.evaluation.lift import TRUNK, Experiment, Fit, run_fit
from graftline.evaluation.workers import run_all
from graftline.plots import ACCENT, INK, MUTED, WARN, figure, legend, save
from graftline.score import Estimate, Score, t_interval
from graftline.tasks.evaluate import label_name
from graftline.trunks import SIZES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BUDGET = "budget.json"
MAIN = "main"
_COLOURS = (ACCENT, WARN, "#3b6ea5", "#8a5a9e", "#b08d2e", MUTED)
_STYLES = ("-", "--", ":", "-.")
"""Of the trunks of one size, whose colour is the same."""


@dataclass(frozen=True)
class Trained:
    """One trunk: what it cost and what it is good for."""

    name: str
    parameters: int
    """All weights."""
    tokens: int
    """Trained on, repeated ones counted each time."""
    flops: int
    """Of its pretraining."""
    held_out: list[tuple[int, float]]
    """(tokens trained on, loss on held-out documents in nats) while it was trained."""
    value: Estimate
    """The primary score on the test rows after fine-tuning, mean and 95% t interval over the seeds."""


def trunks(folder: Path) -> dict[str, Path]:
    """Return the folders of a pretrain output's trunks by name; nothing if there is only one to look at."""
    others = {path.name: path for path in sorted((folder / SIZES).glob("*")) if (path / BUDGET).is_file()}
    return {MAIN: folder, **others} if others else {}


def measure_budget(experiment: Experiment, labels: int, seeds: range, workers: int) -> list[Trained]:
    """Fine-tune each trunk with `labels` labels a class, once a seed, and return them in the order of their cost.

    A trunk whose score is not defined on the test rows is left out.

    The experiment's arrays must be unpacked: all trunks share one tokenizer.

    Raises:
        InputError: a budget.json is not one.
    """
    folders = trunks(experiment.trunk)
    fits = [
        Fit(replace(experiment, trunk=folder), labels, seed, TRUNK) for folder in folders.values() for seed in seeds
    ]
    runs = iter(run_all(run_fit, fits, workers=max(1, min(workers, len(fits))), done=lambda run: None))
    found = []
    for name, folder in folders.items():
        values = [next(runs).value for _ in seeds]
        found.append(_trained(name, read_json(folder / BUDGET), folder, t_interval(values)))
    return sorted((trained for trained in found if trained.value.finite), key=lambda trained: trained.flops)


def _trained(name: str, budget: Any, folder: Path, value: Estimate) -> Trained:
    try:
        curve = [(int(tokens), float(loss)) for tokens, loss in budget["held_out"]]
        return Trained(name, budget["parameters"], budget["tokens"], budget["flops"], curve, value)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(folder / BUDGET, f"not a budget ({error!r})", fix="run pretrain again") from None


def as_dict(found: list[Trained], labels: int, score: Score) -> dict[str, Any]:
    """Return what budget.json of the evaluation holds."""
    return {"labels": labels, "score": score.name, "trunks": [asdict(trained) for trained in found]}


def plot_budget(found: list[Trained], labels: int, amount: str, score: Score, path: Path) -> None:
    """Draw the score against FLOPs of pretraining, and held-out loss against tokens (log scales)."""
    plot = figure(9.2, 3.8)
    left, right = plot.subplots(1, 2)
    colours = {size: _COLOURS[n % len(_COLOURS)] for n, size in enumerate(sorted({t.parameters for t in found}))}
    for parameters, colour in colours.items():
        _draw(left, right, score, [t for t in found if t.parameters == parameters], colour)
    left.set(xscale="log", xlabel="FLOPs of pretraining", ylabel=f"test {score.title}")
    left.set_title(f"With {label_name(labels)} {amount}")
    left.margins(x=0.15, y=0.15)
    right.set(xscale="log", xlabel="tokens", ylabel="nats a predicted token", title="Held-out loss")
    legend(plot, columns=2)
    save(plot, path)


def _draw(left: Axes, right: Axes, score: Score, same: list[Trained], colour: str) -> None:
    """Draw trunks of one size: their budgets differ."""
    values = [trained.value.value for trained in same]
    spread = [
        [value - max(score.lowest, trained.value.low) for value, trained in zip(values, same, strict=True)],
        [min(score.highest, trained.value.high) - value for value, trained in zip(values, same, strict=True)],
    ]
    flops = [trained.flops for trained in same]
    left.errorbar(flops, values, spread, color=colour, marker="o", markersize=5, capsize=3, linewidth=1.6)
    for trained, value, style in zip(same, values, cycle(_STYLES)):
        left.annotate(  # below on the right, where a line that rises is not
            trained.name, (trained.flops, value), xytext=(5, -5), textcoords="offset points", color=INK, fontsize=8,
            va="top",
        )  # fmt: skip
        name = f"{trained.name}: {trained.parameters:,} weights"
        tokens, losses = zip(*trained.held_out, strict=True)
        right.plot(tokens, losses, color=colour, linestyle=style, linewidth=1.6, label=name)
