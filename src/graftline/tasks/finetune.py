"""Parameters of the component `finetune`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from graftline.privacy.parameters import PrivacyParams
from graftline.problems.registry import DEFAULT, AnyProblemParams
from graftline.tasks.parameters import Sparing


class FinetuneParams(Sparing):
    """The section `finetune` of a task's parameters."""

    untold = ("privacy",)

    head: AnyProblemParams = Field(default=DEFAULT, discriminator="name")
    """What is learned from labels."""
    labels_per_class: int | None = Field(default=None, ge=1)
    """How many labelled examples of each class to learn from; null for all. Where an example has no one class (a
    sentence with a tag a word, a document to generate) it is the number of examples in all."""
    epochs: int = Field(default=12, ge=1, le=100_000)
    """Passes over the labelled examples, at most."""
    min_steps: int = Field(default=80, ge=1, le=1_000_000)
    """Steps at least, however few examples there are."""
    batch: int = Field(default=64, ge=2, le=65_536)
    """Examples a step (all of them where there are fewer)."""
    learning_rate: float = Field(default=3e-3, gt=0, le=1)
    """Peak learning rate of the head, for AdamW."""
    trunk_rate: float = Field(default=1.0, gt=0, le=1)
    """The trunk's learning rate as a share of the head's, above 0 and up to 1."""
    freeze_trunk: bool = False
    """Leave the trunk as pretraining made it and learn the head only."""
    probe_below: int | None = Field(default=None, ge=1, le=1000)
    """With fewer labels a class than this, on average, leave a pretrained trunk as it is and solve the head in closed
    form (a linear probe). A trunk from scratch, as in the lift, is trained whole all the same. Null for never."""
    weight_decay: float = Field(default=0.05, ge=0, le=1)
    """Decoupled weight decay of AdamW."""
    warmup_steps: int = Field(default=10, ge=0)
    """Steps of linear warm-up."""
    joint_weight: float = Field(default=0.0, ge=0, le=100)
    """lambda in `loss = finetune + lambda * pretrain`: the pretraining objective goes on beside; 0 for off."""
    balance: Literal["none", "sampling", "loss"] = "none"
    """Of classes of very different frequency: sampling draws all classes equally often, loss weighs each class's losses
    so that all weigh the same; none leaves them as they are. Probabilities are then those of balanced classes."""
    patience: int | None = Field(default=4, ge=1)
    """Stop after so many epochs without a better primary score on val, and keep the best weights; null for never.
    Only with all labels: with `labels_per_class` no labels are held out."""
    privacy: PrivacyParams | None = None
    """Bound what the model gives away of each row that it learns from, or of each person; null for no bound."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Decides initial weights, the labelled subset, batches and warps."""

    @model_validator(mode="after")
    def _labels_are_held_out_if_needed(self) -> Self:
        if self.labels_per_class is not None and self.head.holds_out is not None:
            raise ValueError(f"head.{self.head.holds_out} needs labels held out, and labels_per_class holds none out")
        return self

    @model_validator(mode="after")
    def _head_can_be_probed(self) -> Self:
        if self.probe_below is not None and not self.head.probes:
            raise ValueError(f"probe_below needs the head image_classification, not {self.head.name}: leave it out")
        return self

    @model_validator(mode="after")
    def _joint_objective_has_steps(self) -> Self:
        if self.probe_below is not None and self.joint_weight:
            raise ValueError(
                "joint_weight does nothing where probe_below leaves the trunk as it is: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _bound_can_be_kept(self) -> Self:
        if self.privacy is None:
            return self
        if not self.head.private:
            raise ValueError(
                f"privacy needs the head image_classification or sequence_classification, not {self.head.name}"
            )
        for name, off, why in (
            ("joint_weight", 0.0, "the pretraining objective goes on without a bound"),
            ("balance", "none", "how much a class weighs depends on every row"),
            ("probe_below", None, "a head that is solved has no bound"),
        ):
            if getattr(self, name) != off:
                raise ValueError(f"privacy does not go with {name}: {why}; leave one of them out")
        return self
