"""Which release a name means, by the ledger alone: whoever changes a manifest or an alias must not end the question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graftline.errors import InputError
from graftline.releases.layout import MANIFEST, parse_reference

if TYPE_CHECKING:
    from graftline.audit.verify.inventory import Inventory
    from graftline.ledger.verification import LedgerState

UNTOLD = 0
"""Instead of a version: something is named so, and the ledger cannot tell which release."""


def find_named(inventory: Inventory, ledger: LedgerState, reference: str) -> tuple[str, int]:
    """Return task and version of what is named: of an alias, the ledger's last word.

    The version is UNTOLD where the ledger cannot say it: its entry is damaged, or the alias is not by the ledger.

    Raises:
        InputError: it is no name, or neither the ledger nor the store has anything of that name.
    """
    task, selector = parse_reference(reference)
    versions = {version for of, version in ledger.releases() if of == task}
    if isinstance(selector, int):
        if selector in versions or MANIFEST in inventory.releases.get((task, selector), ()):
            return task, selector
    elif (entry := ledger.aliases().get((task, selector))) is not None:
        return task, entry.version
    elif f"aliases/{task}/{selector}.json" in inventory.keys:
        return task, UNTOLD
    if not ledger.whole:
        return task, UNTOLD
    raise _unknown(inventory, ledger, task, selector, versions)


def _unknown(
    inventory: Inventory, ledger: LedgerState, task: str, selector: int | str, versions: set[int]
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
    what = f"no version {selector}" if isinstance(selector, int) else f"no alias '{selector}'"
    return InputError(f"task '{task}'", what, expected=f"one of the versions {', '.join(have)}")
