"""What the tests of the pages share: a store that is served and exported, and the markup that is planted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from graftline.index.opening import open_index
from graftline.store import Store
from graftline.ui.site import Site

MARK = '<img src=x onerror="window.owned=1"><script>window.owned=1</script>\'"{{ 7*7 }}'


@dataclass(frozen=True)
class Shown:
    """A store, where it is served, and where its pages were written."""

    store: Store
    site: Site
    url: str
    folder: Path


def site_of(store: Store, *folders: Path) -> Site:
    return Site(store, lambda: open_index(store), folders=folders, repository=Path(__file__).parents[2])
