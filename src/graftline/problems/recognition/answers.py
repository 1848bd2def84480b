"""What was heard in clips, and what that is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graftline.problems.answers import Answers
from graftline.problems.recognition.decoding import Heard
from graftline.problems.recognition.scores import CER, WER, error_rows
from graftline.score import RowStatistics, Score

if TYPE_CHECKING:
    from graftline.dataset import Schema


@dataclass(frozen=True, eq=False)
class Transcribed(Answers):
    """A text a clip; a clip is a row."""

    said: Sequence[str]
    """n transcripts."""
    heard: Sequence[Heard]

    @property
    def texts(self) -> list[str]:
        """What was heard in each clip."""
        return [one.text for one in self.heard]

    def statistics(self, score: Score) -> RowStatistics:
        return error_rows(score, self.rows, self.said, self.texts)

    def columns(self, schema: Schema) -> dict[str, Any]:
        edits = {f"{score.name}_edits": self.statistics(score).statistics[:, 0].astype("int64") for score in (CER, WER)}
        return {"said": list(self.said), "heard": self.texts, **edits}
