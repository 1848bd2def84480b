"""Measure a model, the lift of its pretraining and the champion; decide whether to publish."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graftline import environment
from graftline.components.evaluate import plots, tables
from graftline.components.evaluate.champion import Comparison, compare_with_champion
from graftline.components.evaluate.gate import decide
from graftline.components.evaluate.predict import Predictions, predict
from graftline.components.evaluate.quality import Quality, assess
from graftline.dataset import Schema, read_schema
from graftline.learning import budget
from graftline.learning.lift import Experiment, measure_lift
from graftline.learning.randomness import seed_everything
from graftline.records import COMPARED, Dependency
from graftline.tasks.evaluate import EvaluateParams
from graftline.tasks.finetune import FinetuneParams
from graftline.values.image import ImageColumn

if TYPE_CHECKING:
    from graftline.component import Context


def run(context: Context) -> None:
    """Write the evaluation of the model into `context.out`."""
    params = context.section("evaluate", EvaluateParams)
    seed_everything(params.seed, threads=1)  # as in the lift's workers: nothing depends on the number of CPUs
    dataset = context.paths["dataset"]
    schema, predictions = read_schema(dataset), predict(context.paths["model"], dataset)
    quality = assess(predictions.answers)
    champion = _compare(context, params, predictions)
    experiment = _experiment(context, params)
    seeds = range(params.seed, params.seed + params.lift_seeds)
    lift = measure_lift(experiment, params.lift_labels, seeds, context.threads)
    _measure_budget(context, params, experiment)
    metrics = quality.metrics() | lift.metrics() | (champion.metrics() if champion else {})

    _write_answers(context.out, schema, predictions, quality)
    _write_mistakes(context, params, schema, predictions)
    if samples := predictions.head.samples(predictions.model, params.seed):
        tables.write_json(samples, context.out / "samples.json")
    tables.write_lift(lift, context.out)
    plots.plot_lift(lift, context.out / "lift.png")
    tables.write_json(metrics, context.out / "metrics.json")
    tables.write_json(decide(params.gate, metrics, champion), context.out / "decision.json")
    context.draft.metrics = metrics
    context.draft.environment = environment.determinism(1) | predictions.head.environment()


def _compare(context: Context, params: EvaluateParams, predictions: Predictions) -> Comparison | None:
    """Compare with the store's champion, and record that it was used."""
    comparison = compare_with_champion(
        context.store(),
        context.task,
        context.paths["dataset"],
        context.paths["model"],
        predictions,
        resamples=params.bootstrap_resamples,
        seed=params.seed,
    )
    if comparison:
        context.draft.dependencies.append(Dependency(COMPARED, comparison.digest))
    return comparison


def _experiment(context: Context, params: EvaluateParams) -> Experiment:
    finetune = context.section("finetune", FinetuneParams)
    if params.lift_epochs is not None:
        finetune = finetune.model_copy(update={"epochs": params.lift_epochs})
    dataset, trunk = context.paths["dataset"], context.paths["trunk"]
    return Experiment(dataset, trunk, finetune, context.work, params.lift_test_rows, params.seed)


def _measure_budget(context: Context, params: EvaluateParams, experiment: Experiment) -> None:
    """Compare the trunks that pretraining made for comparison, if there are any and it is asked for."""
    if params.budget_labels is None or not budget.trunks(experiment.trunk):
        return
    seeds = range(params.seed, params.seed + params.budget_seeds)
    found = budget.measure_budget(experiment, params.budget_labels, seeds, context.threads)
    tables.write_json(budget.as_dict(found, params.budget_labels), context.out / "budget.json")
    amount = experiment.head.amount
    budget.plot_budget(found, params.budget_labels, amount, context.out / "budget.png")


def _write_answers(out: Path, schema: Schema, predictions: Predictions, quality: Quality) -> None:
    tables.write_predictions(predictions, schema, out / "predictions.parquet")
    plots.plot_reliability(quality.calibration, out / "reliability.png")
    if quality.classes is not None:
        tables.write_confusion(predictions.answers, schema, out / "confusion.csv")
        tables.write_classes(quality.classes, schema, out / "classes.json")
        plots.plot_confusion(quality.classes.matrix, _names(schema), out / "confusion.png")


def _write_mistakes(
    context: Context, params: EvaluateParams, schema: Schema, predictions: Predictions
) -> None:
    """Show the most confident mistakes: images as a picture, texts as a table."""
    if predictions.answers.probabilities is None:
        return
    worst = predictions.answers.worst_mistakes(params.mistakes)
    if isinstance(schema.feature, ImageColumn):
        pixels, path = predictions.examples.arrays()["pixels"], context.out / "mistakes.png"
        plots.plot_mistakes(pixels, predictions.answers, worst, _names(schema), path)
    else:
        texts = predictions.head.show(context.paths["dataset"], "test", predictions.examples, worst)
        tables.write_mistakes(predictions, texts, worst, schema, context.out / "mistakes.json")


def _names(schema: Schema) -> list[str]:
    return [str(name) for name in schema.classes]
