"""Which release a name means, by the ledger alone: whoever changes a manifest or an alias must not end the question."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from graftline.errors import InputError
from graftline.releases.layout import ALIAS, MANIFEST, check_task

if TYPE_CHECKING:
    from graftline.audit.verify_inventory import Inventory
    from graftline.audit.verify_ledger import LedgerState

CHAMPION = "champion"
_VERSION = re.compile(r"[0-9]{1,15}")
UNTOLD = 0
"""Instead of a version: something is named so, and the ledger cannot tell which release."""


def parse_name(reference: str) -> tuple[str, str]:
    """Return task and version, or task and alias, of `task@version`, `task@alias` or `task`. Raises InputError."""
    task, at, selector = reference.partition("@")
    check_task(task)
    selector = selector if at else CHAMPION
    if not _VERSION.fullmatch(selector) and not ALIAS.fullmatch(selector):
        raise InputError(f"release '{reference}'", f"'{selector}'", expected="task@version or task@alias")
    return task, selector


def find_named(inventory: Inventory, ledger: LedgerState, reference: str) -> tuple[str, int]:
    """Return task and version of what is named: of an alias, the ledger's last word.

    The version is UNTOLD where the ledger cannot say it: its entry is damaged, or the alias is not by the ledger.

    Raises:
        InputError: it is no name, or neither the ledger nor the store has anything of that name.
    """
    task, selector = parse_name(reference)
    versions = {version for of, version in ledger.releases() if of == task}
    if _VERSION.fullmatch(selector):
        version = int(selector)
        if version in versions or MANIFEST in inventory.releases.get((task, version), ()):
            return task, version
    elif (entry := ledger.aliases().get((task, selector))) is not None:
        return task, entry.version
    elif f"aliases/{task}/{selector}.json" in inventory.keys:
        return task, UNTOLD
    if not ledger.whole:
        return task, UNTOLD
    raise _unknown(inventory, ledger, task, selector, versions)


def _unknown(
    inventory: Inventory, ledger: LedgerState, task: str, selector: str, versions: set[int]
) -> InputError:
    if not versions:
        tasks = sorted({of for of, _ in ledger.releases()})
        named = f", which has {', '.join(tasks)}" if tasks else ""
        return InputError(f"task '{task}'", f"no release in {inventory.store.url}{named}")
    aliases = {alias: entry.version for (of, alias), entry in ledger.aliases().items() if of == task}
    have = [
        f"{version}" + "".join(f" ({alias})" for alias, to in sorted(aliases.items()) if to == version)
        for version in sorted(versions)
    ]
    what = f"no version {int(selector)}" if selector.isdigit() else f"no alias '{selector}'"
    return InputError(f"task '{task}'", what, expected=f"one of the versions {', '.join(have)}")
