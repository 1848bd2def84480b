"""What a page is before it is markup: the template, the values for it, and where it stands on the site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graftline.audit.verify.verifying import Verdict
    from graftline.index.queries import Index
    from graftline.store import Store


class NoPageError(Exception):
    """There is nothing under the address; the message says what was looked for."""


@dataclass(frozen=True)
class Ask:
    """What a view may look at to answer one request."""

    index: Index
    store: Store
    folders: Sequence[Path] = ()
    """Folders of outputs, for reports of runs that were made on this machine."""
    repository: Path = Path()
    """Where the commits are looked up that two models differ in."""
    query: Mapping[str, str] = field(default_factory=dict)
    verdict: Verdict | None = None
    """What verify said of the whole store when the site was exported."""
    served: bool = True
    """Whether there is a server that answers more than the pages that were written."""
    newest: int = 200
    """Releases of a task that lists show and an export holds; older ones are counted."""


@dataclass(frozen=True)
class View:
    """One page."""

    template: str
    title: str
    section: str
    """The entry of the navigation that it belongs to."""
    crumbs: Sequence[tuple[str, str | None]] = ()
    """The way to it: label and page."""
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class File:
    """Bytes that are handed on as they are."""

    data: bytes
    media_type: str
    framed: bool = False
    """Whether it is a page of its own that is shown in a frame, where nothing of it may run."""
