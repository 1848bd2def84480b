"""The side of clips: one class a clip, by transformers' own head on the trunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from graftline.dataset import Schema, read_schema
from graftline.problems import pictures
from graftline.problems.audio import AudioModel, AudioProblem, ClipExamples
from graftline.problems.classes import ClassAnswers
from graftline.problems.classification import Classifier, name_classes
from graftline.problems.deciding import DecidingProblem
from graftline.problems.explained_clips import ExplainedClips
from graftline.problems.outputs import zero_head
from graftline.problems.problem import LABEL, Model
from graftline.problems.sequence_classification.parameters import SequenceClassificationParams
from graftline.problems.transformer import WholeModel
from graftline.values.audio import AudioColumn
from graftline.values.category import ClassLabel
from graftline.values.spectrum import spectrogram

_SIDE = 64
"""Height and width of a spectrogram, in pixels."""


class ClipClassifier(WholeModel[ClipExamples], Classifier[ClipExamples], AudioModel[ClipExamples]):
    """Clips to (n, classes) logits."""


class OnClips(DecidingProblem[ClipExamples], AudioProblem[ClipExamples, SequenceClassificationParams]):
    """Learns one class a clip."""

    roles: ClassVar = {"audio": AudioColumn, LABEL: ClassLabel}
    examples, model = ClipExamples, ClipClassifier

    @staticmethod
    def architecture() -> type:
        from transformers import AutoModelForAudioClassification

        return AutoModelForAudioClassification

    def settings(self, schema: Schema) -> dict[str, Any]:
        return {**name_classes(schema), "problem_type": "single_label_classification"}

    def build(self, trunk: Path, schema: Schema, *, scratch: bool) -> AudioModel[ClipExamples]:
        model: AudioModel[ClipExamples] = super().build(trunk, schema, scratch=scratch)
        zero_head(model.network, "classifier")
        return model

    def present(self, answers: ClassAnswers, examples: ClipExamples, dataset: Path, out: Path, mistakes: int) -> None:
        schema, worst = read_schema(dataset), answers.worst_mistakes(mistakes)
        answers.write_classes(schema, out)
        rate, names = schema.only(AudioColumn).rate, [str(name) for name in schema.classes]
        seen = [spectrogram(clip, rate, _SIDE, _SIDE) for clip in examples.take(torch.from_numpy(worst)).waves()]
        drawn = np.array(seen, np.float32).reshape(-1, 1, _SIDE, _SIDE) / 255
        pictures.plot_mistakes(drawn, answers, worst, names, out / "mistakes.png")

    def explained(
        self, folder: Path, model: Model[ClipExamples], values: list[np.ndarray], schema: Schema
    ) -> ExplainedClips:
        assert isinstance(model, ClipClassifier)
        clips = self.asked(folder, values)
        return ExplainedClips.of(model, clips, *model.chosen(clips, schema))
