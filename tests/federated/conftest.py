import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "learning")]

import small  # noqa: E402


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.dataset(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.trunk(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def table(dataset: Path) -> pa.Table:
    """600 digits, 60 of each class."""
    return pq.read_table(dataset.parent / "raw" / "images.parquet")
