"""What a cluster would be given: every overlay as kustomize builds it, and the compiled pipelines as they are."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftline.yamlfile import parse_yaml

TOOLS = Path(sys.executable).parent
"""Where the checkers of infra/requirements.lock are."""


@dataclass(frozen=True)
class Document:
    """One Kubernetes object, and where it came from."""

    source: str
    value: dict[str, Any]

    @property
    def name(self) -> str:
        metadata = self.value.get("metadata") or {}
        return f"{self.source}: {self.value.get('kind')}/{metadata.get('name')}"


def folders(root: Path) -> list[Path]:
    """Return each folder that a cluster is pointed at, relative to `root`: no base and no component by itself."""
    others = ("argocd", "argocd/applications")
    found = [*(root / "infra/overlays").iterdir(), *(root / "infra" / name for name in others)]
    return sorted(path.relative_to(root) for path in found if (path / "kustomization.yaml").is_file())


def kustomize(root: Path, folder: Path) -> str:
    """Return the YAML that `folder` builds to. Raises ValueError with kustomize's own words."""
    command = [str(TOOLS / "kubectl"), "kustomize", str(folder)]
    done = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise ValueError(f"{folder}: {done.stderr.strip()}")
    return done.stdout


def documents(text: str, source: str) -> list[Document]:
    """Return the objects in a stream of YAML documents. Raises InputError for what is no YAML of plain values."""
    parts = [parse_yaml(part, where=source) for part in re.split(r"(?m)^---$", text)]
    return [Document(source, part) for part in parts if part is not None]


def render(root: Path, out: Path) -> tuple[list[Document], list[str]]:
    """Build all that is deployed into `out`; return its objects, and what could not be built."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    found: list[Document] = []
    errors: list[str] = []
    for folder in folders(root):
        try:
            text = kustomize(root, folder)
        except ValueError as error:
            errors.append(str(error))
            continue
        (out / f"{folder.name}.yaml").write_text(text, encoding="utf-8")
        found += documents(text, str(folder))
    for path in sorted((root / "pipelines/compiled").glob("*.yaml")):
        found += documents(path.read_text(encoding="utf-8"), str(path.relative_to(root)))
    return found, errors
