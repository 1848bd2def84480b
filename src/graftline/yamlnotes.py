"""YAML for people: plain data in which any value may carry a comment that says why it is so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

WIDTH = 118


@dataclass(frozen=True)
class Said:
    """A value, and the comment that stands beside it."""

    value: Any
    why: str


def write_yaml(document: dict[str, Any]) -> str:
    """Return the document as YAML that reads back equal: mappings as blocks, lists in one line where they fit.

    A mapping inside a list, or one without comments that fits, stands in one line too.
    """
    return "\n".join(_block(document, 0)) + "\n"


def plain(value: Any) -> Any:
    """Return the value without its comments."""
    if isinstance(value, Said):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _block(mapping: dict[str, Any], depth: int) -> Iterator[str]:
    for key, given in mapping.items():
        value, why = (given.value, given.why) if isinstance(given, Said) else (given, "")
        head = "  " * depth + _flow(key) + ":"
        line = f"{head} {_flow(plain(value))}"
        section = depth == 0 and not isinstance(given, Said)
        if isinstance(value, dict) and value and (section or _speaks(value) or len(line) > WIDTH):
            yield _beside(head, why)
            yield from _block(value, depth + 1)
        elif isinstance(value, list | tuple) and len(line) > WIDTH:
            yield _beside(head, why)
            yield from (f"{'  ' * (depth + 1)}- {_flow(plain(item))}" for item in value)
        else:
            yield _beside(line, why)


def _beside(line: str, why: str) -> str:
    """Return the line with the comment, of which no line break or control character is left."""
    words = " ".join("".join(c if c.isprintable() else " " for c in why).split())
    return f"{line}  # {words}" if words else line


def _speaks(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_speaks, value.values()))
    return isinstance(value, Said)


def _flow(value: Any) -> str:
    """Return a value in one line, quoted where YAML would read it as something else."""
    text = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=float("inf"), sort_keys=False
    )
    return str(text).removesuffix("\n").removesuffix("\n...")


class _Dumper(yaml.SafeDumper):
    """Keeps a string with line breaks or other invisible characters in one line."""


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _string)
