"""The names of methods and measures, in metrics.json, the gate and tables; without torch, for parameters name them."""

from __future__ import annotations

from graftline.score import Score, ratio

INTEGRATED_GRADIENTS, OCCLUSION, ROLLOUT = METHODS = ("integrated_gradients", "occlusion", "attention_rollout")

COMPREHENSIVENESS = Score("comprehensiveness", "comprehensiveness", ratio, lowest=-1.0)
SUFFICIENCY = Score("sufficiency", "sufficiency", ratio, higher=False, lowest=-1.0)
DELETION = Score("deletion", "area under the deletion curve", ratio, higher=False)
MEASURES = (COMPREHENSIVENESS, SUFFICIENCY, DELETION)


def title(method: str) -> str:
    """Return a method's name for people."""
    return method.replace("_", " ")


def metric(method: str, what: str) -> str:
    """Return the name of a method's figure in metrics.json."""
    return f"explain_{method}_{what}"


MARGINS = tuple(
    Score(metric(method, "margin"), f"by how much {title(method)} is surely better than chance", lowest=-1.0)
    for method in METHODS
)
"""What the gate may ask for: the lower of the low ends of both comparisons; above 0 a method tells of this model."""
