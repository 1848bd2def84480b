"""Runs the rounds of the sites in a folder, to be killed: `python runner.py FOLDER DATASET TRUNK`."""

from __future__ import annotations

import sys
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "learning")]

from parts import coordinator, federate, model_digest, quiet  # noqa: E402

from graftline.component import exits  # noqa: E402
from graftline.federated import workers  # noqa: E402
from graftline.federated.sites import read_sites  # noqa: E402

if __name__ == "__main__":
    folder, dataset, trunk = map(Path, sys.argv[1:])
    # This process is a fork that has the libraries and has computed nothing: a server would load them once more.
    for name in workers.LOADED:
        import_module(name)
    workers._context = get_context("fork")
    with exits("federate"):
        run = federate(coordinator(folder / "c", dataset, trunk), read_sites(folder / "sites.yaml"), say=quiet, jobs=3)
    print(model_digest(run))
