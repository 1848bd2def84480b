"""Shift of the data against what the present champion learnt from."""

from __future__ import annotations

from typing import Any

from graftline.canonical import read_json
from graftline.component import Context
from graftline.releases.catalogue import champion
from graftline.releases.fetching import fetch
from graftline.tasks.validate import ValidateParams
from graftline.values import profile

PROFILE = "profile.json"
"""In a dataset and in the release made from it."""


def drift_warnings(context: Context, described: dict[str, Any], params: ValidateParams) -> list[str]:
    """Compare with the champion's profile; note the figures as observed, and return what to warn of.

    They are no part of the dataset: the same rows must give the same dataset whichever champion there is.
    """
    store = context.store()
    release = champion(store, context.task)
    if release is None:
        return []
    path = fetch(store, release) / PROFILE
    if not path.is_file():
        return [f"{release.name} holds no {PROFILE}: drift is not measured"]
    drift = profile.drift(described, read_json(path))
    context.observed["drift"] = {"champion": release.name, "limit": params.drift_warning, "index": drift}
    return [
        f"'{name}' has shifted against {release.name}: "
        + (
            "its bins or classes are others, so no index can be computed"
            if value is None
            else f"population stability index {value:.3f}, above {params.drift_warning:g}"
        )
        for name, value in sorted(drift.items())
        if value is None or value > params.drift_warning
    ]
