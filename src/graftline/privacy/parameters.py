"""Parameters of `finetune.privacy` and `evaluate.membership`, and the names of what is measured; without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from graftline.score import Score
from graftline.tasks.parameters import Params

Unit = Literal["row", "subject"]
Noise = Literal["secure", "seeded"]
Accountant = Literal["prv", "rdp"]

EPSILON = Score("epsilon", "epsilon", higher=False, share=False)
DELTA = Score("delta", "delta", higher=False)
BOUND = (EPSILON, DELTA)
"""What the gate may ask for of a model that was fine-tuned privately."""

MEMBERSHIP_AUC = Score("membership_auc", "area of the membership attack", higher=False)
MEMBERSHIP_TPR = Score("membership_tpr", "members found at 1% of false alarms", higher=False)
SHADOW_AUC = Score("membership_shadow_auc", "area of the attack with shadow models", higher=False)
SHADOW_TPR = Score("membership_shadow_tpr", "members that it finds at 1% of false alarms", higher=False)
ATTACKS = (MEMBERSHIP_AUC, MEMBERSHIP_TPR, SHADOW_AUC, SHADOW_TPR)


MOST_DELTA = 0.5
"""Not even for two units a promise: delta is below 1 over their number."""
LEAST_ROWS = 20
"""Of either kind, to say anything of an attack."""


class PrivacyParams(Params):
    """Fine-tuning with differential privacy: DP-SGD (Abadi et al., 2016, arXiv:1607.00133)."""

    epsilon: float = Field(gt=0, le=1000)
    """The bound: whether one unit was learned from changes no odds by more than a factor of e to this."""
    delta: float = Field(gt=0, lt=MOST_DELTA)
    """Probability with which that may fail; below 1 over the number of units."""
    unit: Unit = "row"
    """What is protected: a row, or with `subject` all rows of a person (the contract's `subject`) as one."""
    clip: float = Field(default=1.0, gt=0, le=1e6)
    """Largest norm of what a unit adds to a step's gradient (max_grad_norm)."""
    subject_rows: int = Field(default=32, ge=1, le=65_536)
    """Rows of one subject in a step, at most; of more, others each time."""
    noise: Noise = "secure"
    """`secure`: batches and noise are drawn by a secure generator whose key nobody keeps, so no run has the bits of
    another. `seeded`: by the seed, for tests; whoever knows the seed can take the noise off again."""
    accountant: Accountant = "prv"
    """How epsilon is counted: `prv` is tight (Gopi et al., 2021, arXiv:2106.02848), `rdp` looser (Mironov et al., 2019,
    arXiv:1908.10530)."""


class MembershipParams(Params):
    """How an attacker tells rows that were learned from and rows that were not."""

    rows: int = Field(default=2000, ge=LEAST_ROWS, le=100_000)
    """Training rows and test rows that are told apart, a fixed sample of each, 20 to 100,000."""
