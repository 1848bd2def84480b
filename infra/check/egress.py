"""Whether the network policies let pods reach the addresses that the settings name.

The store's endpoint is known here only where the settings have it: in the secret `graftline doctor` looks for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from check.render import Document

_ADDRESSES = ("GRAFTLINE_REPOSITORY", "GRAFTLINE_KFP", "AWS_ENDPOINT_URL")
_PORTS = {"http": 80, "https": 443, "ssh": 22, "git": 9418}
_SCP = re.compile(r"[\w.-]+@[\w.-]+:(?!//)")
"""git's short form of an ssh address: git@HOST:PATH."""


def shut(found: Iterable[Document]) -> list[str]:
    """Return one error for each address of an overlay's settings whose port no policy of that overlay opens."""
    overlays: dict[str, list[dict[str, Any]]] = {}
    for document in found:
        overlays.setdefault(document.source, []).append(document.value)
    return [
        f"{source}: {name} is {address}: no network policy opens port {port}; add it to infra/components/egress, and "
        "that to the overlay"
        for source, objects in overlays.items()
        for name, address, port in addresses(objects)
        if port not in set(opened(objects))
    ]


def addresses(objects: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str, int]]:
    """Yield the name, the address and the port of what the settings' config map names."""
    for value in objects:
        if value.get("kind") == "ConfigMap" and value["metadata"]["name"] == "graftline-settings":
            data = value.get("data") or {}
            yield from ((name, data[name], port(data[name])) for name in _ADDRESSES if name in data)


def port(address: str) -> int:
    """Return the port that an address is asked at; 0 where its scheme says nothing."""
    if _SCP.match(address):
        return _PORTS["ssh"]
    parts = urlsplit(address)
    return parts.port or _PORTS.get(parts.scheme, 0)


def opened(objects: Iterable[dict[str, Any]]) -> Iterator[int]:
    for value in objects:
        if value.get("kind") == "NetworkPolicy":
            for rule in value["spec"].get("egress", []):
                yield from (item["port"] for item in rule.get("ports", []))
