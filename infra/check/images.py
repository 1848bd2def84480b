"""images.lock is the one place that names images: kustomize is told of them by a component written from it."""

from __future__ import annotations

from pathlib import Path

from graftline.errors import InputError
from graftline.yamlfile import load_yaml

COMPONENT = Path("infra/components/images/kustomization.yaml")

_HEAD = """\
# Written from images.lock by `make manifests-images`; do not edit. `make manifests` fails if the two differ.
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
images:
"""


def component(root: Path) -> str:
    """Return the component that gives `graftline-data` and `graftline-train` their names and digests.

    Raises:
        InputError: images.lock is missing, or an entry is not `NAME@sha256:<64 hex>`.
    """
    lock = root / "images.lock"
    entries = (load_yaml(lock) or {}).get("images") or {}
    return _HEAD + "".join(_entry(lock, target, str(image)) for target, image in sorted(entries.items()))


def _entry(lock: Path, target: str, image: str) -> str:
    name, at, digest = image.partition("@")
    if not (name and at and digest.startswith("sha256:") and len(digest) == 71):
        raise InputError(lock, f"images.{target} is {image}", expected="NAME@sha256:<64 hex>", fix="make images")
    return f"  - name: graftline-{target}\n    newName: {name}\n    digest: {digest}\n"


def write(root: Path) -> None:
    (root / COMPONENT).write_text(component(root), encoding="utf-8")


def drift(root: Path) -> list[str]:
    """Return one error if the component is not what images.lock says."""
    if (root / COMPONENT).read_text(encoding="utf-8") == component(root):
        return []
    return [f"{COMPONENT}: differs from images.lock; run `make manifests-images` and commit it"]
