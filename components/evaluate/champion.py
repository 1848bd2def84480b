"""Champion against challenger: the released model and the new one on the same test rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from graftline.components.evaluate.predict import predict
from graftline.errors import InputError
from graftline.gate import Comparison
from graftline.problems.model import read_facts, what_is_asked
from graftline.releases.catalogue import Release, champion
from graftline.releases.fetching import fetch
from graftline.score import difference

if TYPE_CHECKING:
    from pathlib import Path

    from graftline.problems.answers import Answers
    from graftline.store import Store


def compare_with_champion(
    store: Store, task: str, dataset: Path, model: Path, challenger: Answers, *, resamples: int, seed: int
) -> Comparison | None:
    """Return the challenger against the store's champion of `task`; None if the store has no champion.

    Only the champion's model is asked, never its metrics, so releases of any version compare.

    Args:
        store: of releases.
        task: whose champion.
        dataset: with the test rows that both answer.
        model: the challenger's folder.
        challenger: its answers.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    release = champion(store, task)
    if release is None:
        return None
    score, folder = challenger.scores[0], fetch(store, release)
    if obstacle := _obstacle(folder, release, model):
        return Comparison(score, release.version, release.digest, None, obstacle=obstacle)
    answers = predict(folder, dataset).answers
    if obstacle := _unequal(answers, release, challenger):
        return Comparison(score, release.version, release.digest, None, obstacle=obstacle)
    found = difference(challenger.primary, answers.primary, resamples=resamples, seed=seed)
    if not found.finite:
        obstacle = (
            f"cannot compare with {release.name}: the difference in {score.name} is not defined on these test rows"
        )
        return Comparison(score, release.version, release.digest, None, obstacle=obstacle)
    return Comparison(score, release.version, release.digest, found, answers.value)


def _unequal(theirs: Answers, release: Release, ours: Answers) -> str:
    """Return why the answers are not about the same units of the same rows, or an empty string.

    Where one model cuts texts off sooner than the other, it answers for fewer tokens, and those are other ones.
    """
    if np.array_equal(theirs.rows, ours.rows):
        return ""
    found = f"it answers for {len(theirs)} units of the test rows, this model for {len(ours)}"
    return f"cannot compare with {release.name}: {found}; `max_tokens` may differ"


def _obstacle(folder: Path, release: Release, model: Path) -> str:
    """Return why the release and the model are not asked the same, or an empty string."""
    try:
        theirs = read_facts(folder)
    except InputError as error:  # whole, for its files were verified: made by another version of Graftline
        return f"cannot compare with {release.name}: {error.found}"
    its, ours = _questions(theirs), _questions(read_facts(model))
    for what in its | ours:
        if its.get(what) != ours.get(what):
            return f"cannot compare with {release.name}: its {what} {its.get(what)}, the dataset's {ours.get(what)}"
    return ""


def _questions(facts: dict[str, Any]) -> dict[str, object]:
    """Return what of a model's head.json decides what it is asked."""
    return {"head is": facts["head"]["name"], **what_is_asked(facts), "vocabulary is": facts.get("vocabulary")}
