import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "store")]

import prose  # noqa: E402
from servers import moto_endpoint, moto_url  # noqa: E402

from graftline.text.tokenizer import TokenizerParams, train_tokenizer  # noqa: E402

__all__ = ["moto_endpoint", "moto_url"]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return prose.paragraphs()


@pytest.fixture(scope="session", params=["wordpiece", "bpe"])
def tokenizer(request: pytest.FixtureRequest, texts: list[str]):  # type: ignore[no-untyped-def]
    """A tokenizer of each kind, trained on the texts."""
    return train_tokenizer(texts, TokenizerParams(kind=request.param, vocabulary=1000))
