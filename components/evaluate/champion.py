"""Champion against challenger: the released model and the new one on the same test rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graftline.components.evaluate.predict import Predictions, predict
from graftline.errors import InputError
from graftline.evaluation.statistics import Estimate, paired_bootstrap

if TYPE_CHECKING:
    from pathlib import Path

    from graftline.releases.catalogue import Release
    from graftline.store import Store


@dataclass(frozen=True)
class Comparison:
    """The challenger against one release."""

    version: int
    digest: str
    """Content digest of the champion's release."""
    difference: Estimate | None
    """Accuracy of the challenger less the champion's, by paired bootstrap; None if they do not compare."""
    accuracy: float | None = None
    """The champion's, on the same rows."""
    obstacle: str = ""
    """Why they do not compare."""

    def metrics(self) -> dict[str, float]:
        """Return the flat metrics; none if the models do not compare."""
        if self.difference is None or self.accuracy is None:
            return {}
        return {
            "champion_accuracy": self.accuracy,
            "champion_difference": self.difference.value,
            "champion_difference_low": self.difference.low,
            "champion_difference_high": self.difference.high,
        }


def compare_with_champion(
    store: Store,
    task: str,
    dataset: Path,
    model: Path,
    challenger: Predictions,
    *,
    resamples: int,
    seed: int,
) -> Comparison | None:
    """Return the challenger against the store's champion of `task`; None if the store has no champion.

    Args:
        store: of releases.
        task: whose champion.
        dataset: with the test rows that both answer.
        model: the challenger's folder.
        challenger: its answers.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    from graftline.releases.catalogue import champion
    from graftline.releases.fetching import fetch

    release = champion(store, task)
    if release is None:
        return None
    folder = fetch(store, release)
    if obstacle := _obstacle(folder, release, model):
        return Comparison(release.version, release.digest, None, obstacle=obstacle)
    answers = predict(folder, dataset).answers
    difference = paired_bootstrap(challenger.answers.correct, answers.correct, resamples=resamples, seed=seed)
    return Comparison(release.version, release.digest, difference, answers.accuracy)


def _obstacle(folder: Path, release: Release, model: Path) -> str:
    """Return why the release and the model do not answer the same questions, or an empty string."""
    from graftline.problems.model import read_facts

    try:
        theirs = read_facts(folder)
    except InputError as error:  # whole, for its files were verified: made by another version of Graftline
        return f"cannot compare with {release.name}: {error.found}"
    ours = _questions(read_facts(model))
    for what, found in _questions(theirs).items():
        if found != ours[what]:
            return f"cannot compare with {release.name}: its {what} {found}, the dataset's {ours[what]}"
    return ""


def _questions(facts: dict[str, Any]) -> dict[str, object]:
    """Return what of a model's head.json decides which questions it answers."""
    return {
        "head is": facts["head"]["name"],
        "classes are": facts["classes"],
        "image shape is": facts["feature"].get("shape"),
        "vocabulary is": facts.get("vocabulary"),
    }
