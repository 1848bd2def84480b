"""What fairlearn says of some answers: tests/slices/fairlearn-0.15.0.json, which test_slices.py holds ours against.

    python -m pip install --no-deps --target FOLDER fairlearn==0.15.0 scikit-learn==1.9.1 joblib threadpoolctl
    PYTHONPATH=FOLDER python tests/slices/record_fairlearn.py

It computes with scikit-learn, which the lock leaves out; so its figures are kept and not the package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

OUT = Path(__file__).with_name("fairlearn-0.15.0.json")
CLASSES, GROUPS = ["ant", "bee", "cow"], ["x", "y", "z"]


def answers() -> dict[str, list[Any]]:
    """Return rows whose groups are of different sizes, class shares and accuracies."""
    draw = np.random.default_rng(0)
    groups = draw.choice(3, 900, p=[0.5, 0.3, 0.2])
    shares = np.array([[0.5, 0.3, 0.2], [0.3, 0.4, 0.3], [0.2, 0.2, 0.6]])
    labels = np.array([draw.choice(3, p=shares[group]) for group in groups])
    right = draw.random(900) < np.array([0.9, 0.75, 0.6])[groups]
    predicted = np.where(right, labels, draw.integers(0, 3, 900))
    weights = draw.integers(1, 5, 900) / 2
    return {name: array.tolist() for name, array in zip(
        ("group", "label", "predicted", "weight"), (groups, labels, predicted, weights), strict=True
    )}  # fmt: skip


def figures(rows: dict[str, list[Any]], weight: list[float] | None) -> dict[str, Any]:
    """Return what fairlearn measures: of all classes together, and of each against the others."""
    from fairlearn.metrics import (
        MetricFrame,
        demographic_parity_difference,
        equal_opportunity_difference,
        selection_rate,
        true_positive_rate,
    )
    from sklearn.metrics import accuracy_score

    groups = [GROUPS[group] for group in rows["group"]]

    def by_group(metric: Any, label: list[int], predicted: list[int]) -> dict[str, float]:
        more = None if weight is None else {"sample_weight": weight}
        frame = MetricFrame(
            metrics=metric, y_true=label, y_pred=predicted, sensitive_features=groups, sample_params=more
        )
        return {group: float(value) for group, value in frame.by_group.items()}

    each = {}
    for number, name in enumerate(CLASSES):
        one, other = ([int(value == number) for value in rows[of]] for of in ("label", "predicted"))
        given = {"y_true": one, "y_pred": other, "sensitive_features": groups, "sample_weight": weight}
        each[name] = {
            "equal opportunity": float(equal_opportunity_difference(**given)),
            "demographic parity": float(demographic_parity_difference(**given)),
            "true_positive_rate": by_group(true_positive_rate, one, other),
            "selection_rate": by_group(selection_rate, one, other),
        }
    return {"accuracy": by_group(accuracy_score, rows["label"], rows["predicted"]), "classes": each}


def main() -> None:
    rows = answers()
    found = {"plain": figures(rows, None), "weighted": figures(rows, rows["weight"])}
    OUT.write_text(json.dumps({"rows": rows, **found}) + "\n")


if __name__ == "__main__":
    main()
