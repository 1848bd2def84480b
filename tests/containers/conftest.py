"""Tests in real containers, of the images that `make images` built; a new machine has neither them nor docker."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path[:0] = [
    str(Path(__file__).parents[1] / folder) for folder in ("learning", "crash", "store", "containers", "federated")
]

from servers import moto_endpoint, moto_url, real_url, s3_url, store_url  # noqa: E402

from graftline.images import BUILT, Images, digest, load_images, local_tag  # noqa: E402

__all__ = ["moto_endpoint", "moto_url", "real_url", "s3_url", "store_url"]


@pytest.fixture(scope="session")
def images() -> Images:
    """The images of this work tree, by the names that docker has for them."""
    if "GRAFTLINE_TEST_CONTAINERS" not in os.environ:
        pytest.skip("no images: GRAFTLINE_TEST_CONTAINERS is not set (after `make images`, with docker at work)")
    return Images.model_construct(
        **{target: local_tag(target, digest(image)) for target, image in load_images(BUILT).model_dump().items()}
    )
