"""Champion against challenger: the released model and the new one on the same test rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graftline.canonical import read_json
from graftline.components.evaluate.predict import Predictions, predict
from graftline.components.evaluate.statistics import Estimate, paired_bootstrap

if TYPE_CHECKING:
    from pathlib import Path

    from graftline.dataset import Images, Schema
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
    schema: Schema,
    test: Images,
    challenger: Predictions,
    *,
    resamples: int,
    seed: int,
) -> Comparison | None:
    """Return the challenger against the store's champion of `task`; None if the store has no champion.

    Args:
        store: of releases.
        task: whose champion.
        schema: of the dataset that `test` is from.
        test: the rows that both answer.
        challenger: its answers on them.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    from graftline.releases.catalogue import champion
    from graftline.releases.fetching import fetch

    release = champion(store, task)
    if release is None:
        return None
    folder = fetch(store, release)
    if obstacle := _obstacle(folder, release, schema):
        return Comparison(release.version, release.digest, None, obstacle=obstacle)
    answers = predict(folder, test)
    difference = paired_bootstrap(challenger.correct, answers.correct, resamples=resamples, seed=seed)
    return Comparison(release.version, release.digest, difference, answers.accuracy)


def _obstacle(folder: Path, release: Release, schema: Schema) -> str:
    """Return why the release's model cannot answer rows of `schema`, or an empty string."""
    config = read_json(folder / "config.json")
    for what, theirs, ours in (
        ("classes", config.get("classes"), list(schema.classes)),
        ("image shape", config.get("image_shape"), list(schema.image.shape)),
    ):
        if theirs != ours:
            return f"cannot compare with {release.name}: its {what} are {theirs}, the dataset's are {ours}"
    return ""
