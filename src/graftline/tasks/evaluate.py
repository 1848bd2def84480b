"""The parameters of `evaluate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from graftline.errors import InputError
from graftline.evaluation.shifts.parameters import ShiftParams
from graftline.explain.names import MARGINS
from graftline.gate import Gate
from graftline.privacy.parameters import ATTACKS, BOUND, MembershipParams, PrivacyParams
from graftline.problems.scores import MACRO_F1, ProblemParams, no_explanation
from graftline.score import Score
from graftline.slices.conditions import parse_slice
from graftline.slices.measuring import GAPS, gap_metric
from graftline.tasks.parameters import Params, Sparing

LabelCount = Annotated[int, Field(ge=1)]

ALL = "all"


def label_name(count: int | None) -> str:
    """Return the name of a label count in metrics, rules and tables: `5` or, for None, `all`."""
    return ALL if count is None else str(count)


class ExplainParams(Params):
    """How test rows are explained, by every method of graftline/explain that applies."""

    rows: int = Field(default=200, ge=20, le=10_000)
    """Test rows on which the explanations' faithfulness is measured, a fixed sample of them, 20 to 10,000."""
    shown: int = Field(default=6, ge=0, le=24)
    """How many of them the report shows, 0 to 24."""


class SlicesParams(Params):
    """Whose scores are looked at apart."""

    columns: tuple[str, ...] = ()
    """Columns of the contract whose values are groups, such as `[designer]`: each is a slice, and the largest
    differences between two of them are measured."""
    expressions: tuple[str, ...] = ()
    """Slices by conditions, such as `["language=tr & length(text)>20", "page~tr-*"]`; length counts words of a text."""
    find: int = Field(default=0, ge=0, le=50)
    """How many slices of one or two conditions to find by themselves, 0 to 50: on val, to be measured on test."""
    least_rows: int = Field(default=30, ge=5)
    """Rows below which a slice is too small to judge, at least 5."""

    def scores(self, of_head: Sequence[Score]) -> Iterator[Score]:
        """Yield what the gate may name, given the head's scores: figures of metrics.json."""
        yield Score("slices_worse", "slices that are surely worse than the other rows", higher=False, share=False)
        for column in self.columns if MACRO_F1 in of_head else ():
            for kind in GAPS:
                name = gap_metric(column, kind)
                yield Score(name, f"{kind}: the largest difference between two of {column}", higher=False)
                yield Score(f"{name}_low", f"{kind}: what it surely is", higher=False, lowest=-1.0)

    @field_validator("expressions")
    @classmethod
    def _are_slices(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            parse_slice(text)
        return texts


class EvaluateParams(Sparing):
    """What to measure, and what the measures must be."""

    untold = ("explain", "slices", "shifts", "membership")

    lift_labels: tuple[LabelCount | None, ...] = Field((5, 10, 50, None), min_length=1)
    """Labels a class at which the lift of pretraining is measured, each at least 1; null is all of them. Where an
    example has no one class they are examples in all, as in `finetune.labels_per_class`."""
    lift_seeds: int = Field(4, ge=2, le=100)
    """Paired fine-tunings per label count, 2 to 100; with fewer than 4 the intervals say little."""
    lift_epochs: int | None = Field(None, ge=1)
    """Epochs of each of those fine-tunings, at least 1; null is as `finetune.epochs`."""
    lift_test_rows: LabelCount | None = None
    """Test rows on which those fine-tunings are scored, a fixed sample of them; null for all."""
    budget_labels: LabelCount | None = None
    """Labels a class at which the trunks of `pretrain.sizes` are compared with the main one; null compares nothing."""
    budget_seeds: int = Field(2, ge=2, le=100)
    """Fine-tunings of each of those trunks, 2 to 100."""
    bootstrap_resamples: int = Field(10_000, ge=1000, le=1_000_000)
    """Resamples of the test rows for intervals and the comparison with the champion, 1,000 to 1,000,000."""
    mistakes: int = Field(24, ge=1, le=100)
    """How many of the most confident mistakes to show, 1 to 100."""
    explain: ExplainParams | None = None
    """What the model looks at, and how far that can be believed; null measures nothing."""
    slices: SlicesParams | None = None
    """Whom the model fails: scores of slices of the test rows; null looks at those only that the gate names."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of the bootstrap, and the first of the lift's seeds (the others follow it), 0 to 2**31 - 1."""
    shifts: ShiftParams | None = None
    """What to measure on data that are not as those learned from; null for nothing."""
    membership: MembershipParams | None = None
    """Attack the model: can the rows that it learned from be told? Null measures nothing."""
    gate: Gate = Gate()
    """What decides whether the model is released."""

    def check_with(self, sections: Mapping[str, Any], where: str) -> None:
        """Return if the problem that is learned has what is to be measured and what the gate names."""
        self.check_head(sections["finetune"].head, where, sections["finetune"].privacy)

    def check_head(self, head: ProblemParams, where: str, privacy: PrivacyParams | None = None) -> None:
        """Return if a problem has what is to be measured and what the gate names. Raises InputError."""
        if self.membership is not None and not head.odds:
            raise InputError(
                f"{where}: evaluate.membership", f"the head {head.name}, whose answers do not say how sure they are",
                expected="one that tells a class of each row", fix="leave it out",
            )  # fmt: skip
        if self.shifts is not None and self.shifts.data and privacy is not None and privacy.unit == "subject":
            raise InputError(
                f"{where}: evaluate.shifts.data", "finetune.privacy.unit is subject", fix="leave one of them out",
                expected="none: the rows of one source that fits learn from have no subjects",
            )  # fmt: skip
        if self.explain is not None and not head.explains:
            raise no_explanation(head, f"{where}: evaluate.explain")
        self.gate.check_names(self.measured(head.scores, private=privacy is not None), where, head.scores)

    def measured(self, of_head: Sequence[Score], *, private: bool = False) -> tuple[Score, ...]:
        """Return what the gate may name, the primary score first: the head's scores, and what is asked for beside.

        A model that is fine-tuned privately has the bound's epsilon and delta, too.
        """
        asked = [part.scores(of_head) for part in (self.shifts, self.slices) if part]
        return (
            *of_head, *(score for scores in asked for score in scores), *(MARGINS if self.explain else ()),
            *(BOUND if private else ()), *(ATTACKS if self.membership else ()),
        )  # fmt: skip

    @field_validator("lift_labels")
    @classmethod
    def _no_count_twice(cls, counts: tuple[int | None, ...]) -> tuple[int | None, ...]:
        if len(set(counts)) != len(counts):
            raise ValueError("a label count stands twice")
        return counts

    @model_validator(mode="after")
    def _shifts_have_fits(self) -> EvaluateParams:
        if self.shifts is not None and self.shifts.labels not in self.lift_labels:
            name, measured = label_name(self.shifts.labels), ", ".join(map(label_name, self.lift_labels))
            raise ValueError(f"shifts.labels is {name}, which is not in lift_labels ({measured})")
        return self

    @model_validator(mode="after")
    def _lift_floors_are_measured(self) -> EvaluateParams:
        measured = [label_name(count) for count in self.lift_labels]
        for name in self.gate.min_lift:
            if name not in measured:
                raise ValueError(f"gate.min_lift names '{name}', which is not in lift_labels ({', '.join(measured)})")
        return self
