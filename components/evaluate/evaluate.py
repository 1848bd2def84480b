"""Measure a model, the lift of its pretraining and the champion; decide whether to publish."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graftline import environment
from graftline.components.evaluate import plots, tables
from graftline.components.evaluate.champion import Comparison, compare_with_champion
from graftline.components.evaluate.gate import decide
from graftline.components.evaluate.lift import Experiment, Lift, measure_lift
from graftline.components.evaluate.params import EvaluateParams
from graftline.components.evaluate.predict import Predictions, predict
from graftline.components.evaluate.quality import Quality, assess
from graftline.components.finetune.params import FinetuneParams
from graftline.dataset import Images, Schema, read_images, read_schema
from graftline.records import Dependency
from graftline.training.randomness import seed_everything

if TYPE_CHECKING:
    from graftline.component import Context


def run(context: Context) -> None:
    """Write the evaluation of the model into `context.out`."""
    params = context.section("evaluate", EvaluateParams)
    seed_everything(params.seed, threads=1)  # as in the lift's workers: nothing depends on the number of CPUs
    dataset = context.paths["dataset"]
    schema, test = read_schema(dataset), read_images(dataset, "test")
    answers = predict(context.paths["model"], test)
    quality = assess(answers)
    champion = _compare(context, params, schema, test, answers)
    lift = _lift(context, params)
    metrics = quality.metrics() | lift.metrics() | (champion.metrics() if champion else {})

    _write_answers(context.out, schema, test, answers, quality)
    plots.plot_mistakes(
        test.pixels,
        answers,
        answers.worst_mistakes(params.mistakes),
        _names(schema),
        context.out / "mistakes.png",
    )
    tables.write_lift(lift, context.out)
    plots.plot_lift(lift, context.out / "lift.png")
    tables.write_json(metrics, context.out / "metrics.json")
    tables.write_json(decide(params.gate, metrics, champion), context.out / "decision.json")
    context.draft.metrics = metrics
    context.draft.environment = environment.determinism(1)


def _compare(
    context: Context, params: EvaluateParams, schema: Schema, test: Images, answers: Predictions
) -> Comparison | None:
    """Compare with the store's champion, and record that it was used."""
    comparison = compare_with_champion(
        context.store(),
        context.task,
        schema,
        test,
        answers,
        resamples=params.bootstrap_resamples,
        seed=params.seed,
    )
    if comparison:
        context.draft.dependencies.append(Dependency("champion", comparison.digest))
    return comparison


def _lift(context: Context, params: EvaluateParams) -> Lift:
    finetune = context.section("finetune", FinetuneParams)
    if params.lift_epochs is not None:
        finetune = finetune.model_copy(update={"epochs": params.lift_epochs})
    experiment = Experiment(context.paths["dataset"], context.paths["trunk"], finetune, context.work)
    seeds = range(params.seed, params.seed + params.lift_seeds)
    return measure_lift(experiment, params.lift_labels, seeds, context.threads)


def _write_answers(out: Path, schema: Schema, test: Images, answers: Predictions, quality: Quality) -> None:
    tables.write_predictions(answers, test, schema, out / "predictions.parquet")
    tables.write_confusion(answers, schema, out / "confusion.csv")
    tables.write_classes(quality, schema, out / "classes.json")
    plots.plot_reliability(quality.calibration, out / "reliability.png")
    plots.plot_confusion(quality.matrix, _names(schema), out / "confusion.png")


def _names(schema: Schema) -> list[str]:
    return [str(name) for name in schema.classes]
