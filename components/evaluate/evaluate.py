"""Measure a model, the lift of its pretraining and the champion; decide whether to publish."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graftline import environment
from graftline.components.evaluate import plots, tables
from graftline.components.evaluate.champion import compare_with_champion
from graftline.components.evaluate.predict import Predictions, predict
from graftline.dataset import read_schema
from graftline.evaluation import budget, membership
from graftline.evaluation.lift import Experiment, load_split, measure_lift
from graftline.evaluation.shifts import measuring, showing
from graftline.explain.explaining import Faithfulness, measure_faithfulness
from graftline.explain.showing import sections
from graftline.gate import DECISION, Comparison, decide
from graftline.jsonfile import write_json
from graftline.learning.randomness import seed_everything
from graftline.privacy.promise import metrics as bound_metrics
from graftline.privacy.promise import outside, read_promise, told
from graftline.problems.reading import alike, lost_tokens, read_examples
from graftline.problems.sections import Section, add_sections
from graftline.problems.weighing import answer
from graftline.records.model import COMPARED, Dependency
from graftline.score import as_metrics, estimates
from graftline.slices import slicing
from graftline.slices.slicing import Sliced
from graftline.tasks.evaluate import EvaluateParams, SlicesParams
from graftline.tasks.finetune import FinetuneParams

if TYPE_CHECKING:
    from graftline.component import Context
    from graftline.problems.answers import Answers
    from graftline.problems.problem import Examples


def run(context: Context) -> None:
    """Write the evaluation of the model into `context.out`."""
    params = context.section("evaluate", EvaluateParams)
    seed_everything(params.seed, threads=1)  # as in the lift's workers: nothing depends on the number of CPUs
    finetune = context.section("finetune", FinetuneParams)
    params.check_head(finetune.head, context.where, finetune.privacy)
    dataset, out = context.paths["dataset"], context.out
    experiment = _experiment(context, params, finetune)
    shifts = measuring.begin(params.shifts, experiment, params.seed)  # what does not apply is refused at once
    predictions = predict(context.paths["model"], dataset)
    answers, problem = predictions.answers, predictions.problem
    sliced, explained = _slice(context, params, predictions), _explain(context, params)
    champion = _compare(context, params, answers)
    folder, model = context.paths["model"], predictions.model
    promised = read_promise(folder)
    asked = measuring.spoil(shifts, experiment, folder, model) if shifts else experiment
    attacked = membership.begin(params.membership, experiment, params.lift_labels, params.seed, folder, model)
    if attacked:
        asked = replace(asked, shadow_labels=attacked.shadow_labels)
    seeds = range(params.seed, params.seed + params.lift_seeds)
    lift = measure_lift(asked, params.lift_labels, seeds, context.threads)
    _measure_budget(context, params, experiment)
    metrics = _measure(params, answers) | lift.metrics() | (champion.metrics() if champion else {})
    if shifts:
        measuring.take(shifts, lift, experiment, seeds, context.threads)
        metrics |= shifts.metrics()
    metrics |= bound_metrics(promised) if promised else {}
    if attacked:
        membership.take(attacked, lift)
        metrics |= attacked.metrics()
    metrics |= _as_read(problem.plural, predictions.examples, load_split(experiment, "train"))
    metrics |= (sliced.metrics() if sliced else {}) | (explained.metrics() if explained else {})

    tables.write_predictions(predictions, read_schema(dataset), out / "predictions.parquet")
    problem.present(answers, predictions.examples, dataset, out, params.mistakes)
    if params.explain and explained:
        write_json(explained.as_dict(), out / "explain.json")
        add_sections(sections(explained, params.explain.shown, out), out)
    if sliced:
        write_json(sliced.as_dict(), out / "slices.json")
        add_sections(slicing.sections(sliced), out)
    if shifts:
        showing.write(shifts, problem.amount, out)
    if promised:
        add_sections(
            [Section("What it promises", " ".join([*told(promised), "It says nothing about:", *outside(promised)]))],
            out,
        )
    if attacked:
        membership.write(attacked, problem.amount, out)
    if samples := problem.samples(predictions.model, params.seed):
        write_json(samples, out / "samples.json")
    tables.write_lift(lift, out)
    plots.plot_lift(lift, out / "lift.png")
    write_json(metrics, out / "metrics.json")
    write_json(decide(params.gate, metrics, champion).as_dict(), out / DECISION)
    context.draft.metrics = metrics
    context.draft.environment = environment.determinism(1) | problem.environment(context.paths["trunk"])


def _measure(params: EvaluateParams, answers: Answers) -> dict[str, Any]:
    """Return every score of the problem on the test rows with its interval, and how many rows and answers there are."""
    measured = [answers.drawn(score) for score in answers.scores]
    found = estimates(measured, resamples=params.bootstrap_resamples, seed=params.seed)
    told = as_metrics(dict(zip(answers.scores, found, strict=True)))
    return {"n_test": len(answers), "n_test_rows": len(answers.primary.rows), **told}


def _as_read(plural: str, test: Examples, train: Examples) -> dict[str, float]:
    """Return, and say, how much of the test rows the model does not see, and how many are to it as a training row."""
    lost, seen = lost_tokens(test), alike(test, train)
    if lost and lost.examples:
        print(f"test: {lost.told(plural)}", file=sys.stderr)
    if seen and seen.examples:
        print(f"test: {seen.told(plural, 'one of train')}", file=sys.stderr)
    return (lost.metrics("test") if lost else {}) | (seen.metrics("test_seen") if seen else {})


def _explain(context: Context, params: EvaluateParams) -> Faithfulness | None:
    """Return what the model looks at in test rows, if that is asked for."""
    if params.explain is None:
        return None
    model, dataset, resamples = context.paths["model"], context.paths["dataset"], params.bootstrap_resamples
    return measure_faithfulness(model, dataset, params.explain.rows, resamples=resamples, seed=params.seed)


def _slice(context: Context, params: EvaluateParams, predictions: Predictions) -> Sliced | None:
    """Return the scores of slices of the test rows, if any are asked for."""
    if params.slices is None and not params.gate.slices:
        return None
    model, dataset = context.paths["model"], context.paths["dataset"]

    def on_val() -> Answers:
        found: Answers = answer(predictions.model, read_examples(predictions.problem, dataset, "val", model))
        return found

    return slicing.measure_slices(
        predictions.answers, on_val, dataset, params.slices or SlicesParams(), params.gate.slices,
        resamples=params.bootstrap_resamples, seed=params.seed,
    )  # fmt: skip


def _compare(context: Context, params: EvaluateParams, answers: Answers) -> Comparison | None:
    """Compare with the store's champion, and record that it was used."""
    comparison = compare_with_champion(
        context.store(),
        context.task,
        context.paths["dataset"],
        context.paths["model"],
        answers,
        resamples=params.bootstrap_resamples,
        seed=params.seed,
    )
    if comparison:
        context.draft.dependencies.append(Dependency(COMPARED, comparison.digest))
    return comparison


def _experiment(context: Context, params: EvaluateParams, finetune: FinetuneParams) -> Experiment:
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
    amount, score = experiment.problem.amount, experiment.params.head.scores[0]
    write_json(budget.as_dict(found, params.budget_labels, score), context.out / "budget.json")
    budget.plot_budget(found, params.budget_labels, amount, score, context.out / "budget.png")
