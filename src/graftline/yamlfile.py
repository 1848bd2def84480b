"""YAML from people, read with limits: plain data only, a bounded size, no duplicated keys.

Aliases are allowed, but their expansion is counted before it is made, so that a file of a few hundred bytes
cannot grow to gigabytes ("billion laughs").
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from graftline.errors import InputError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 100_000

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Makes plain data only."""


def load_yaml(path: Path) -> Any:
    """Return the plain data in the YAML file `path`.

    Raises:
        InputError: the file is missing, no regular file, not UTF-8, too large, too deep, not YAML, or repeats a key.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # a device or a pipe may never end
            raise InputError(path, "not a regular file", expected="a YAML file")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(path, f"{size} bytes", expected=f"at most {MAX_BYTES}", fix="keep data in Parquet")
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise InputError(path, "the file is missing", fix="check the path") from None
    except IsADirectoryError:
        raise InputError(path, "this is a folder", expected="a YAML file") from None
    except UnicodeDecodeError as error:
        raise InputError(path, f"byte {error.start} is not UTF-8", expected="UTF-8 text") from None
    return parse_yaml(text, where=path)


def parse_yaml(text: str, *, where: object) -> Any:
    """Return the plain data in YAML `text`; `where` names it in errors. Raises InputError."""
    try:
        _check_depth(text, where)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_nodes(node, where)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(where, f"{line}not YAML ({problem})", expected="YAML of plain values") from None
    except ValueError as error:  # a date that does not exist, a number of thousands of digits
        raise InputError(where, f"not YAML ({error})", expected="YAML of plain values") from None


def parse_json(text: str, *, where: object) -> Any:
    """Return the JSON value in `text`, under the same limits; `where` names it in errors. Raises InputError.

    YAML is no full superset of JSON: it reads 1e5 as text and has no escapes of two parts, such as an emoji's.
    """
    if len(text) > MAX_BYTES:
        raise InputError(where, f"{len(text)} characters", expected=f"at most {MAX_BYTES}", fix="give a file")
    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, where))
        json.dumps(value, ensure_ascii=False).encode()  # half an escape of two parts is no text
    except RecursionError:
        raise InputError(where, f"nested deeper than {MAX_DEPTH} levels", fix="flatten it") from None
    except ValueError as error:
        raise InputError(where, f"not JSON ({error})", expected="a JSON object") from None
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        nested = [inner for inner in level if isinstance(inner, list | dict)]
        level = [item for inner in nested for item in (inner.values() if isinstance(inner, dict) else inner)]
    if level:
        raise InputError(where, f"nested deeper than {MAX_DEPTH} levels", fix="flatten it")
    return value


def _unique(pairs: list[tuple[str, Any]], where: object) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InputError(where, f"key '{key}' stands twice", fix="delete one of them")
        found[key] = value
    return found


def _check_depth(text: str, where: object) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):  # a flat stream of events: deep nesting cannot exhaust the stack
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else 0
                raise InputError(where, f"line {line}: nested deeper than {MAX_DEPTH} levels", fix="flatten it")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_nodes(root: yaml.Node, where: object) -> None:
    """Count nodes with aliases expanded, each distinct node visited once; refuse too many and repeated keys."""
    counted: dict[int, int] = {}
    open_nodes: set[int] = set()

    def count(node: yaml.Node) -> int:
        if id(node) in counted:
            return counted[id(node)]
        if id(node) in open_nodes:
            raise InputError(where, "an alias refers to the value that it is in", fix="write the value out")
        open_nodes.add(id(node))
        total = 1
        if isinstance(node, yaml.MappingNode):
            _check_keys(node, where)
            total += sum(count(key) + count(value) for key, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            total += sum(count(item) for item in node.value)
        open_nodes.discard(id(node))
        if total > MAX_NODES:
            raise InputError(where, f"more than {MAX_NODES} values once aliases are expanded", fix="write less")
        counted[id(node)] = total
        return total

    count(root)


def _check_keys(node: yaml.MappingNode, where: object) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                line = key.start_mark.line + 1
                raise InputError(where, f"line {line}: key '{key.value}' stands twice", fix="delete one of them")
            seen.add(key.value)
