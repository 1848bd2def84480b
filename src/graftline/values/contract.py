"""The contract of a task's raw data, `data/<task>/expectations.yaml`: what its columns must hold."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from graftline.dataset import Schema
from graftline.errors import InputError, nearest
from graftline.raw.reader import Asked, Others, Source
from graftline.rows.blocklist import Blocklist
from graftline.tasks.parameters import Params, parse
from graftline.values.column import Column, Feature, Label, Role
from graftline.values.identity import SPLITS
from graftline.values.leakage import Measure
from graftline.values.placing import Action
from graftline.values.registry import COLUMN_TYPES, KINDS
from graftline.yamlfile import load_yaml

RESERVED = ("row", "split", "digest")
"""Names that the output adds."""


class NearDuplicates(Params):
    """When rows in two splits count as one row seen twice."""

    min_cosine: float | None = Field(default=None, gt=0.9, le=1)
    """Of images: cosine of their pixels, each image's mean taken off, from which on they do: 0.9 to 1. Of clips: cosine
    of the levels of 16 bands of frequency in 16 steps of time.

    The search finds a pair at 0.99 with probability 0.87, at 0.995 with 0.97, at 0.999 with 0.9997.
    """

    min_jaccard: float | None = Field(default=None, ge=0.8, le=1)
    """Of text: share of their runs of 5 characters that both have, from which on they do: 0.8 to 1.

    The search finds a pair at 0.8 with probability 0.95, at 0.85 with 0.99, at 0.9 with 0.9999.
    """

    action: Action = "stop"
    """stop: end the run, with all pairs in a file; quarantine: of two rows keep the labelled one, else the first, and
    go on; together: put rows that are near each other into one split, that of the first. Equal rows go with them."""

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds that are given, by name."""
        return {name: value for name in ("min_cosine", "min_jaccard") if (value := getattr(self, name)) is not None}


Hex16 = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Erased(Params):
    """Rows that must not come back; `graftline erase` fills it in."""

    rows: tuple[Hex64, ...] = ()
    """Digests of rows, as in rows.parquet."""

    subjects: tuple[Hex32, ...] = ()
    """Keyed hashes of persons' ids, as in rows.parquet."""

    key: Hex16 | None = None
    """The check value of the subjects' key: with another key nobody would be recognized."""

    def as_blocklist(self) -> Blocklist:
        return Blocklist(self.rows, self.subjects, self.key)


if TYPE_CHECKING:
    AnyColumn = Column
else:
    AnyColumn = Annotated[reduce(or_, KINDS), Field(discriminator="type")]


class Contract(Params):
    """The columns, and what holds across rows."""

    columns: dict[str, AnyColumn]
    """Each column by name: what a model sees (image, text, tokens or items), one label, and any others.

    Text, tokens and items may be without a label: for learning from them alone.
    """

    min_rows: int = Field(default=1, ge=1)
    """Smallest number of rows."""

    near_duplicates: NearDuplicates | None = None
    """Without it, near-duplicates across splits are not searched for."""

    subject: str | None = None
    """The column with the id of the person that a row is about. It is stored as a keyed hash and never in clear."""

    source: Source = Source()
    """How the raw data is read."""

    others: Others = "refuse"
    """Columns of the raw data that are not named here: `refuse` the data, or `drop` them, and say which."""

    erased: Erased = Erased()
    """Rows that go to the quarantine without their values, whatever the raw data brings."""

    @property
    def asked(self) -> Asked:
        """What is read of the raw data."""
        found_as = {name: column.name for name, column in self.columns.items() if column.name is not None}
        return Asked(tuple(self.columns), self.source, self.others, found_as)

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that a model sees: rows that are equal in them must not stand in two splits."""
        return tuple(name for name, column in self.columns.items() if column.role == "feature")

    @property
    def feature(self) -> tuple[str, Feature]:
        """The name of the first column that a model sees, and its rules."""
        return self.features[0], self.feature_named(self.features[0])

    def feature_named(self, name: str) -> Feature:
        """Return the rules of a column that a model sees."""
        column = self.columns[name]
        assert isinstance(column, Feature)
        return column

    @property
    def label(self) -> tuple[str, Label] | None:
        """The name of the label column and its rules; None for a task without labels."""
        name = self._with_role("label")
        if name is None:
            return None
        column = self.columns[name]
        assert isinstance(column, Label)
        return name, column

    @property
    def split(self) -> str | None:
        """The name of the column with the raw data's own split, if it brings one."""
        return self._with_role("split")

    @property
    def brings_val(self) -> bool:
        """Whether the raw data's own split has val rows; if its `classes` say that it has not, some of train are."""
        return self.split is None or "val" in (self._own_splits or SPLITS)

    @property
    def _own_splits(self) -> tuple[Any, ...]:
        column = self.columns[str(self.split)]
        assert isinstance(column, Label)
        return column.label_classes

    @property
    def group(self) -> str | None:
        """The name of the column whose equal values stay in one split."""
        return self._with_role("group")

    @property
    def time(self) -> str | None:
        """The name of the column that the split goes by: the latest rows are test."""
        return self._with_role("time")

    @property
    def weight(self) -> str | None:
        """The name of the column that says how much a row counts."""
        return self._with_role("weight")

    def _with_role(self, role: Role) -> str | None:
        return next((name for name, column in self.columns.items() if column.role == role), None)

    @property
    def settles(self) -> bool:
        """Whether some row's split is only known when all rows are."""
        return self.time is not None or (self.near_duplicates is not None and self.near_duplicates.action != "stop")

    @property
    def classes(self) -> tuple[Any, ...]:
        """The label set, in the order of class indices; empty for a task without labels or with other ones."""
        return () if self.label is None else self.label[1].label_classes

    @property
    def sorting(self) -> tuple[Any, ...]:
        """The classes that rows can be sorted by; empty where a row is of no one class."""
        return self.classes if self.label is not None and self.label[1].one_class else ()

    def measure(self) -> Measure | None:
        """Return the measure of near-duplicates, or None if they are not searched for."""
        if self.near_duplicates is None:
            return None
        _, column = self.feature
        return column.measure(self.features, getattr(self.near_duplicates, column.near))

    def schema_of_dataset(self, in_file: Collection[str] = ()) -> Schema:
        """Return what later components need to know about the columns.

        Of the columns `in_file`, the values lie in a file of their own beside the Parquet files.
        """
        first, *more = (
            stored.in_a_file() if name in in_file else stored
            for name, stored in ((name, self.feature_named(name).stored(name)) for name in self.features)
        )
        if self.label is None:
            return Schema(first, None, (), tuple(more), weight=self.weight, group=self.group)
        name, label = self.label
        return Schema(first, name, self.classes, tuple(more), label.label_type, self.weight, self.group)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.columns:
            if name in RESERVED and self.columns[name].role != "split":
                raise ValueError(f"column '{name}' has a name that the output uses: rename it")
        self._check_features()
        self._check_label()
        for name, column in self.columns.items():
            column.check(name, self)
        self._check_roles()
        self._check_near_duplicates()
        self._check_subject()
        return self

    def _check_features(self) -> None:
        known = ", ".join(kind for kind, column in COLUMN_TYPES.items() if issubclass(column, Feature))
        if not self.features:
            raise ValueError(f"no column with the role feature: a model sees a column of type {known}")
        for name in self.features:
            column = self.columns[name]
            if not isinstance(column, Feature):
                raise ValueError(f"columns.{name}: a feature is of type {known}; give it the role metadata")
            if column.nullable:
                raise ValueError(f"columns.{name}: it has the role feature and is not nullable")

    def _check_label(self) -> None:
        labels = [name for name, column in self.columns.items() if column.role == "label"]
        if len(labels) > 1:
            raise ValueError(f"exactly one column with 'role: label' is needed, found {len(labels)}")
        for name in labels:
            column = self.columns[name]
            if not isinstance(column, Label):
                known = ", ".join(kind for kind, of in COLUMN_TYPES.items() if issubclass(of, Label))
                raise ValueError(f"columns.{name}: a label is of type {known}")
            column.check_label(name)

    def _check_roles(self) -> None:
        """Refuse what cannot play a role of which there is one at most, and roles that contradict each other."""
        kinds: dict[Role, tuple[str, Callable[[Column], bool]]] = {
            "split": ("a string", lambda column: column.type == "string"),
            "group": ("a string or an integer", lambda column: column.identifies),
            "time": ("a timestamp or an integer", lambda column: column.orders),
            "weight": ("a float", lambda column: column.weighs),
        }
        for role, (kind, fits) in kinds.items():
            found = [column for column in self.columns.values() if column.role == role]
            if len(found) > 1 or any(not fits(column) or column.nullable for column in found):
                raise ValueError(f"at most one column has 'role: {role}'; it is {kind} and not nullable")
        if (
            self.split is not None
            and self._own_splits
            and not {"train", "test"} <= set(self._own_splits) <= set(SPLITS)
        ):
            raise ValueError(f"columns.{self.split}.classes: a split is of train and test, and may be of val")
        if self.time is not None and (self.split is not None or self.group is not None):
            other = "split" if self.split is not None else "group"
            raise ValueError(
                f"columns.{self.time}: the split goes by the role time or by the role {other}: give the other column "
                "the role metadata"
            )
        if self.time is not None and self.near_duplicates is not None and self.near_duplicates.action == "together":
            raise ValueError(
                "near_duplicates.action: together would move rows out of their time: choose stop or quarantine"
            )

    def _check_near_duplicates(self) -> None:
        near = self.near_duplicates
        if near is None:
            return
        _, column = self.feature
        others = [self.columns[name] for name in self.features[1:]]
        for other in others:
            assert isinstance(other, Feature)
            if not column.near_together or other.near != column.near:
                raise ValueError(
                    "near_duplicates: they are searched for in one feature, or in several of text, "
                    f"found {column.type} and {other.type}"
                )
        if set(near.bounds) != {column.near}:
            raise ValueError(f"near_duplicates: give {column.near} for a column of type {column.type}")

    def _check_subject(self) -> None:
        if self.subject is None:
            return
        column = self.columns.get(self.subject)
        if column is None:
            raise ValueError(f"subject: there is no column '{self.subject}'{nearest(self.subject, list(self.columns))}")
        if not column.identifies or column.role not in ("metadata", "group"):
            raise ValueError(
                f"subject: '{self.subject}' is a column of type string or integer with the role metadata or group"
            )
        if column.bounded:
            raise ValueError(
                f"columns.{self.subject}: a subject has no classes, no bounds and no map: they would tell of ids"
            )


def load_contract(path: Path) -> Contract:
    """Return the contract in the YAML file `path`. Raises InputError."""
    document = load_yaml(path)
    if not isinstance(document, dict) or not isinstance(document.get("columns"), dict):
        raise InputError(path, "no mapping 'columns'", expected="each column's type and rules under 'columns'")
    columns = {}
    for name, values in document["columns"].items():
        where = f"{path}: columns.{name}"
        if not isinstance(name, str) or not isinstance(values, dict):
            raise InputError(where, repr(values)[:80], expected="a name, and a mapping with its type and rules")
        kind = str(values.get("type"))
        if kind not in COLUMN_TYPES:
            found = f"unknown type '{kind}'{nearest(kind, list(COLUMN_TYPES))}" if "type" in values else "no type"
            raise InputError(where, found, expected="one of " + ", ".join(COLUMN_TYPES))
        _check_all_words(values, COLUMN_TYPES[kind].words, where)
        columns[name] = parse(values, COLUMN_TYPES[kind], where=where)
    return parse({**document, "columns": columns}, Contract, where=str(path))


def _check_all_words(values: dict[str, Any], of_words: bool, where: str) -> None:
    """Refuse what YAML did not read as the words that stand there: yes, no, on, off, null, 007, 1e5, a date."""
    classes, mapping = values.get("classes"), values.get("map")
    if of_words and isinstance(classes, list):
        _check_words(classes, f"{where}.classes")
    if isinstance(mapping, dict):
        _check_words(
            [key for key in mapping if not isinstance(key, int | float) or isinstance(key, bool)], f"{where}.map"
        )
        _check_words([value for value in mapping.values() if of_words and value is not None], f"{where}.map")


def _check_words(words: list[Any], where: str) -> None:
    found = [f"{value!r} ({type(value).__name__})" for value in words if not isinstance(value, str)]
    if found:
        raise InputError(
            where,
            f"YAML reads a word here as {', '.join(found[:5])}",
            expected="words",
            fix='put it in quotes: "yes", "no", "on", "off", "null", "007"; numbers want type: integer',
        )
