import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "store")]

from servers import moto_endpoint, moto_url  # noqa: E402

__all__ = ["moto_endpoint", "moto_url"]


@pytest.fixture(scope="session", autouse=True)
def _kfp_asks_for_its_caller_only() -> Iterator[None]:
    """kfp learns its caller's name from inspect.stack(), fifty times a pipeline. That looks for the source of every
    frame among all modules: a moment in a process of ours, four seconds among those that the tests have imported.
    """
    from kfp.dsl import pipeline_task

    quick = SimpleNamespace(**vars(inspect))
    quick.stack = lambda: inspect.stack(0)[1:]
    plain, pipeline_task.inspect = pipeline_task.inspect, quick  # type: ignore[attr-defined]
    yield
    pipeline_task.inspect = plain  # type: ignore[attr-defined]
