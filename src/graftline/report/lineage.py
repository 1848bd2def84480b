"""The lineage of one run as a picture: each output with its digest, and an arrow from all that it was made of."""

from __future__ import annotations

from dataclasses import dataclass

from graftline.records.model import Record

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y = 150, 52, 56, 22
_BOW = 46
"""How far an arrow bends aside for each column that it passes over."""


@dataclass(frozen=True)
class Node:
    """A box: an input from outside, or a component's output."""

    name: str
    digest: str
    """sha256 of the content, in hex."""
    made_by: str
    """The component, or an empty string for what came from outside."""
    x: int
    y: int


@dataclass(frozen=True)
class Lineage:
    """Boxes and arrows with their places, in pixels."""

    nodes: list[Node]
    edges: list[tuple[Node, Node]]
    width: int
    height: int

    def path(self, edge: tuple[Node, Node]) -> str:
        """Return an arrow's SVG path, from the right side of one box to the left side of the other.

        One that passes over other columns bends away from them, up or down by the column that it starts in.
        """
        start, end = edge
        x1, y1 = start.x + _WIDTH, start.y + _HEIGHT // 2
        x2, y2 = end.x - 5, end.y + _HEIGHT // 2
        column, passed = start.x // (_WIDTH + _GAP_X), (end.x - start.x) // (_WIDTH + _GAP_X) - 1
        bow = passed * _BOW * (1 if column % 2 else -1)
        if not passed:
            bend = (x2 - x1) // 2
            return f"M{x1},{y1} C{x1 + bend},{y1} {x2 - bend},{y2} {x2},{y2}"
        return f"M{x1},{y1} C{x1 + _WIDTH},{y1 + bow} {x2 - _WIDTH},{y2 + bow} {x2},{y2}"

    @property
    def margin(self) -> int:
        """Room above and below the boxes that bending arrows need."""
        return max(0, self.width // (_WIDTH + _GAP_X) - 2) * _BOW * 3 // 4


def lay_out(records: dict[str, Record]) -> Lineage:
    """Return the picture of `records` (by output name): what depends on a box stands to the right of it."""
    digests = {name: record.content for name, record in records.items()}
    makers = {name: record.component for name, record in records.items()}
    arrows: list[tuple[str, str]] = []
    for name, record in records.items():
        for given in record.inputs:  # what ran is the same for every box: said once, below the picture
            if given.name not in digests:
                digests[given.name], makers[given.name] = given.sha256, ""
            arrows.append((given.name, name))
    columns = _columns(list(digests), arrows)
    places = _places(columns)
    nodes = {name: Node(name, digests[name], makers[name], *places[name]) for name in digests}
    return Lineage(
        nodes=list(nodes.values()),
        edges=[(nodes[source], nodes[target]) for source, target in arrows],
        width=max(x for x, _ in places.values()) + _WIDTH,
        height=max(y for _, y in places.values()) + _HEIGHT,
    )


def _columns(names: list[str], arrows: list[tuple[str, str]]) -> list[list[str]]:
    """Return the names by column: one more than the rightmost of what each depends on."""
    column = dict.fromkeys(names, 0)
    for _ in names:  # the longest path has at most this many arrows
        for source, target in arrows:
            column[target] = max(column[target], column[source] + 1)
    return [[name for name in names if column[name] == number] for number in range(max(column.values()) + 1)]


def _places(columns: list[list[str]]) -> dict[str, tuple[int, int]]:
    tallest = max(len(column) for column in columns)
    places = {}
    for number, column in enumerate(columns):
        # every other column stands half a box lower, so that arrows over two columns do not cross a box's middle
        top = (tallest - len(column)) * (_HEIGHT + _GAP_Y) // 2 + (number % 2) * (_HEIGHT + _GAP_Y) // 2
        for row, name in enumerate(column):
            places[name] = (number * (_WIDTH + _GAP_X), top + row * (_HEIGHT + _GAP_Y))
    return places
