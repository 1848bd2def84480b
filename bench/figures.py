"""What a measurement gives: a figure, the target it is held against, and the command that measures it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from operator import ge, gt, le, lt
from pathlib import Path

COMPARISONS: dict[str, Callable[[float, float], bool]] = {"<=": le, "<": lt, ">=": ge, ">": gt}


@dataclass(frozen=True)
class Figure:
    """One measured number."""

    name: str
    measured: float
    comparison: str
    """How `measured` must stand to `target`: one of COMPARISONS."""
    target: float
    unit: str
    command: str

    @property
    def met(self) -> bool:
        return COMPARISONS[self.comparison](self.measured, self.target)


def write_figures(figures: list[Figure], path: Path) -> None:
    """Write the figures as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = [asdict(figure) | {"met": figure.met} for figure in figures]
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def print_figures(figures: list[Figure]) -> None:
    """Print one table, and below it each command once."""
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "target", "measured", "met")
    for figure in figures:
        target = f"{figure.comparison} {figure.target:g} {figure.unit}"
        table.add_row(figure.name, target.strip(), f"{figure.measured:.4g}", "yes" if figure.met else "NO")
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    for command in dict.fromkeys(figure.command for figure in figures):
        console.print(command)
