"""The container images that everything runs in: images.lock, the one place that names them."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from graftline.environment import ROOT
from graftline.tasks.parameters import Params, parse
from graftline.yamlfile import load_yaml

LOCK = ROOT / "images.lock"
"""The images of a registry, which clusters run."""
BUILT = ROOT / "build/images.lock"
"""The images that were built on this machine."""


class Images(Params):
    """Each image's name with the digest that pins it: `NAME@sha256:<64 hex>`."""

    data: str = Field(pattern=r"^[^@\s]+@sha256:[0-9a-f]{64}$")
    """For validate, publish and what surrounds them: without torch."""
    train: str = Field(pattern=r"^[^@\s]+@sha256:[0-9a-f]{64}$")
    """For pretrain, finetune and evaluate."""


class _Document(Params):
    images: Images


def load_images(path: Path = LOCK) -> Images:
    """Return the images that the lock names. Raises InputError."""
    return parse(load_yaml(path), _Document, where=str(path)).images


def digest(image: str) -> str:
    """Return an image's `sha256:<64 hex>`."""
    return image.partition("@")[2]


def local_tag(target: str, digest: str) -> str:
    """Return the name of an image that was built here, by its id: docker keeps a digest only of what it pulled."""
    return f"graftline/{target}:{digest.removeprefix('sha256:')[:12]}"
