import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "store")]

import small  # noqa: E402
from servers import moto_endpoint, moto_url, real_url, s3_url, store_url  # noqa: E402

__all__ = ["moto_endpoint", "moto_url", "real_url", "s3_url", "store_url"]


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.dataset(tmp_path_factory.getbasetemp())
