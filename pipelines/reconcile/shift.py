"""How far a task's present data has moved from what its champion learnt from, measured before anything is trained."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from graftline.canonical import canonical_json
from graftline.errors import GraftlineError
from graftline.records.folder import read_execution
from graftline.releases.catalogue import champion
from graftline.store.documents import stored_json
from graftline.store.opening import open_store
from graftline.tasks.parameters import load_document, section
from graftline.tasks.validate import ValidateParams


@dataclass(frozen=True)
class Shift:
    """How far the present data is from what the champion learnt from."""

    champion: str
    """The release that it is compared with, `task@version`."""
    limit: float
    """validate.drift_warning of the task."""
    index: Mapping[str, float | None]
    """The population stability index by column; None where it cannot be computed."""

    @property
    def beyond(self) -> dict[str, float | None]:
        """What has shifted beyond the limit."""
        return {name: value for name, value in self.index.items() if value is None or value > self.limit}


def measure_shift(task: str, data_digest: str, store_url: str, root: Path) -> Shift | None:
    """Return the shift of the task's data in the checkout; None if nothing was released, or it holds no profile.

    The component `validate` measures it, in a process of its own, and its index is kept in the store: the same data and
    champion are compared once. The limit is the one that the parameters say now.

    Args:
        task: the folder under data/.
        data_digest: names the data, for the figures' key.
        store_url: where releases live.
        root: the checkout.

    Raises:
        GraftlineError: the data breaks its contract, so that nothing could be measured.
    """
    store = open_store(store_url)
    release = champion(store, task)
    if release is None:
        return None
    key = f"runs/shifts/{task}/{data_digest[:16]}-{release.version}.json"
    found = stored_json(store, key)
    if found is None:
        observed = _validate(task, store_url, root)
        index = observed["index"] if observed else None
        store.put_if_absent(key, canonical_json({"index": index}) + b"\n")
    else:
        index = found[0].get("index")
    if index is None:
        return None
    return Shift(release.name, _limit(root / "data" / task / "params.yaml"), index)


def _limit(params: Path) -> float:
    """Return `validate.drift_warning` of a task."""
    return section(*load_document(params), "validate", ValidateParams).drift_warning


def _validate(task: str, store_url: str, root: Path) -> dict[str, Any]:
    """Return what validate observed of drift; empty if the champion has nothing to compare with."""
    from graftline.engines.local import pull_raw

    pull_raw(task)
    folder = root / "data" / task
    with TemporaryDirectory(prefix="graftline-shift-") as scratch:
        out = Path(scratch, "dataset")
        done = subprocess.run(
            [
                sys.executable, "-m", "graftline.components.validate",
                "--params", str(folder / "params.yaml"), "--in-raw", str(folder / "raw"),
                "--in-expectations", str(folder / "expectations.yaml"), "--out-dataset", str(out),
                "--store", store_url,
            ],
            stdout=sys.stderr, check=False,
        )  # fmt: skip
        if done.returncode:
            raise GraftlineError(
                f"data/{task}: its shift could not be measured, validate ended with code {done.returncode}"
            )
        found = read_execution(out).get("drift")
    return found if isinstance(found, dict) else {}
