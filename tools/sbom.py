"""The software bill of materials of an image, from the lock that it is installed from.

CycloneDX 1.6 JSON (ECMA-424). It holds nothing but the lock's content: the same lock gives the same bytes.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from graftline.digests import sha256_file
from graftline.locks import pins


def sbom(target: str, lock: Path) -> str:
    """Return the SBOM of the image `target` as JSON: its packages, each with its package URL."""
    packages = [
        Component(
            name=name, version=version, purl=PackageURL("pypi", None, name, version), bom_ref=f"{name}=={version}"
        )
        for name, version, _ in pins(lock.read_bytes())
    ]
    digest = sha256_file(lock)
    image = Component(name=f"graftline/{target}", type=ComponentType.CONTAINER, version=digest, bom_ref=target)
    bom = Bom(components=packages, serial_number=uuid.uuid5(uuid.NAMESPACE_URL, digest))
    bom.metadata.component = image
    bom.metadata.timestamp = None  # type: ignore[assignment]
    bom.register_dependency(image, packages)
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"
