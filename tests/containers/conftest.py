"""Tests in real containers, of the images that `make images` built; a new machine has neither them nor docker."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path[:0] = [
    str(Path(__file__).parents[1] / folder)
    for folder in ("learning", "crash", "store", "tasks", "containers", "federated")
]

from servers import REAL_URL, moto_endpoint, moto_url, real_url  # noqa: E402

from graftline.engines import containers  # noqa: E402
from graftline.images import BUILT, Images, digest, load_images, local_tag  # noqa: E402

__all__ = ["moto_endpoint", "moto_url", "real_url"]

containers._CREDENTIALS = (*containers._CREDENTIALS, "GOMP_SPINCOUNT")
"""Containers of several tests share the cores: what tests/conftest.py sets for their trainings is passed on to them."""


@pytest.fixture
def s3_url(request: pytest.FixtureRequest) -> str:
    """An empty store on the real S3 server, on moto where there is none: what it stands in for, it need not prove."""
    return request.getfixturevalue("real_url" if REAL_URL else "moto_url")


@pytest.fixture(scope="session")
def images() -> Images:
    """The images of this work tree, by the names that docker has for them."""
    if "GRAFTLINE_TEST_CONTAINERS" not in os.environ:
        pytest.skip("no images: GRAFTLINE_TEST_CONTAINERS is not set (after `make images`, with docker at work)")
    return Images.model_construct(
        **{target: local_tag(target, digest(image)) for target, image in load_images(BUILT).model_dump().items()}
    )
