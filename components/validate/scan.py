"""One pass over the raw rows: judge each, quarantine the bad ones, write the others, count."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graftline.components.validate import identity, leakage, profile, report
from graftline.components.validate.columns import ColumnBatch, fact_frame, read_columns, shorten
from graftline.components.validate.contract import Contract
from graftline.components.validate.outputs import Outputs
from graftline.components.validate.params import ValidateParams
from graftline.components.validate.suite import Failure, Judge, row_rules, unique_rules
from graftline.digests import sha256_bytes
from graftline.tables import RawBatch

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


NAMED_ROWS = 5
"""How many rows an error names."""


@dataclass
class Tally:
    """What is counted over all rows."""

    rows: int = 0
    bad_rows: int = 0
    by_rule: Counter[str] = field(default_factory=Counter)
    """Failing rows by rule."""
    first_rows: dict[str, list[int]] = field(default_factory=dict)
    """The first failing rows of each rule."""
    examples: list[tuple[int, str, str]] = field(default_factory=list)
    """The first lines of the quarantine."""
    nulls: Counter[str] = field(default_factory=Counter)
    """Missing values by column."""

    def add(self, batch_rows: int, lines: list[tuple[int, str, str]]) -> None:
        self.rows += batch_rows
        self.bad_rows += len({row for row, _, _ in lines})
        for row, rule, _ in lines:
            self.by_rule[rule] += 1
            named = self.first_rows.setdefault(rule, [])
            if len(named) < NAMED_ROWS:
                named.append(row)
        self.examples += lines[: report.QUARANTINE_ROWS - len(self.examples)]

    @property
    def bad_fraction(self) -> float:
        return self.bad_rows / self.rows if self.rows else 0.0


class Validation:
    """One pass over the raw rows."""

    def __init__(self, contract: Contract, params: ValidateParams, outputs: Outputs) -> None:
        self.contract, self.params, self.outputs = contract, params, outputs
        self.tally, self.index = Tally(), leakage.Index()
        self.profile = profile.Profile(contract)
        self.samples = report.Samples(contract)
        self.rules, self.unique = Judge(row_rules(contract)), unique_rules(contract)
        self.unique_judge = Judge(self.unique) if self.unique else None
        self.seen = {
            name: identity.SeenValues() for name, column in contract.columns.items() if column.unique
        }

    def add(self, batch: RawBatch) -> None:
        """Judge a batch, quarantine its bad rows, write the others."""
        import numpy as np

        columns = read_columns(batch, self.contract)
        frame = fact_frame(batch, columns, len(self.contract.columns))
        for name in columns:
            self.tally.nulls[name] += int(frame[f"{name}.given"].isna().sum())
        failures = self.rules.judge(frame)
        lines = [self._line(failure, batch, columns) for failure in failures]
        good = np.ones(batch.rows, bool)
        good[[failure.index - batch.first_row for failure in failures]] = False
        taken = {name: column.take(good) for name, column in columns.items()}
        rows = np.arange(batch.first_row, batch.first_row + batch.rows)[good]
        if self.unique_judge is not None and len(rows):
            repeated, keep = self._repeated(self.unique_judge, taken, rows)
            lines = sorted(lines + repeated)
            taken, rows = {name: values.filter(keep) for name, values in taken.items()}, rows[keep]
        self.tally.add(batch.rows, lines)
        self.outputs.add_failures(lines)
        if len(rows):
            self._add_good(rows, taken)

    def _line(
        self, failure: Failure, batch: RawBatch, columns: dict[str, ColumnBatch]
    ) -> tuple[int, str, str]:
        row = int(failure.index)
        rule = self.rules.rules[failure.rule]
        if rule.shows == "raw":
            value = columns[rule.name.rpartition(".")[0]].as_found(row - batch.first_row)
        else:
            value = show(failure.value)
        return row, failure.rule, value

    def _repeated(
        self, judge: Judge, taken: dict[str, pa.Array], rows: np.ndarray
    ) -> tuple[list[tuple[int, str, str]], np.ndarray]:
        """Return the quarantine lines of good rows that repeat a unique value, and a mask of the others."""
        import numpy as np
        import pandas as pd

        cells = {name: identity.cell_bytes(taken[name]) for name in self.seen}
        facts = {f"{name}.repeats": seen.add(cells[name]) for name, seen in self.seen.items()}
        lines = []
        keep = np.ones(len(rows), bool)
        for failure in judge.judge(pd.DataFrame(facts, index=rows)):
            position = int(np.searchsorted(rows, failure.index))
            name = failure.rule.rpartition(".")[0]
            is_image = name == self.contract.image[0]
            value = (
                f"sha256 {sha256_bytes(cells[name][position])}"
                if is_image
                else str(taken[name][position].as_py())
            )
            lines.append((int(failure.index), failure.rule, shorten(value)))
            keep[position] = False
        return lines, keep

    def _add_good(self, rows: np.ndarray, columns: dict[str, pa.Array]) -> None:
        import numpy as np

        of_features, of_rows = identity.row_digests(columns, self.contract)
        labels = self._class_indices(columns)
        splits = self._splits(columns, of_features, labels)
        self.outputs.add_rows(rows, columns, of_rows, splits)
        pixels = columns[self.contract.image[0]].flatten().to_numpy().reshape(len(rows), -1)
        self.profile.add(columns, pixels)
        self.samples.add(pixels, labels, splits)
        self.index.rows.append(rows)
        self.index.splits.append(splits)
        self.index.features.append(np.ascontiguousarray(of_features[:, :16]).view(np.uint64))
        self.index.labels.append(labels)
        if self.contract.near_duplicates is not None:
            self.index.signatures.append(leakage.signatures(pixels))

    def _class_indices(self, columns: dict[str, pa.Array]) -> np.ndarray:
        """Return (n,) int32 indices into the classes, -1 without a label."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        labels = columns[self.contract.label[0]]
        found = pc.index_in(labels, pa.array(self.contract.classes, labels.type))
        indices: np.ndarray = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        return indices

    def _splits(self, columns: dict[str, pa.Array], digests: np.ndarray, labels: np.ndarray) -> np.ndarray:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.contract.split is not None:
            names = pa.array(identity.SPLIT_NAMES)
            splits = (
                pc.index_in(columns[self.contract.split], names)
                .to_numpy(zero_copy_only=False)
                .astype(np.uint8)
            )
        else:
            splits = identity.split_by_digest(digests, self.params.test_fraction, self.params.val_fraction)
        return np.where(labels < 0, identity.UNLABELLED, splits).astype(np.uint8)


def show(value: Any) -> str:
    """Return a failing value as the quarantine shows it."""
    if value is None or value != value:
        return "null"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return shorten(str(value))
