import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "learning"))

import small
import small_text


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="session")
def dataset(home: Path) -> Path:
    return small.dataset(home)


@pytest.fixture(scope="session")
def trunk(home: Path) -> Path:
    return small.trunk(home)


@pytest.fixture(scope="session")
def texts(home: Path) -> Path:
    return small_text.dataset(home)


@pytest.fixture(scope="session")
def text_trunk(home: Path) -> Path:
    return small_text.trunk(home)
