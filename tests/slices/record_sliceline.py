"""Which slices SliceLine's authors' method finds: tests/slices/sliceline-0.3.0.json, for test_slices.py.

python -m pip install --no-deps --target FOLDER sliceline==0.3.0 scikit-learn==1.9.1 joblib threadpoolctl
PYTHONPATH=FOLDER python tests/slices/record_sliceline.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

OUT = Path(__file__).with_name("sliceline-0.3.0.json")
ALPHA, COUNT, LEAST = 0.95, 8, 20


def main() -> None:
    import pandas
    from sliceline.slicefinder import Slicefinder

    draw = np.random.default_rng(0)
    cells = {"maker": draw.choice(["a", "b", "c"], 800), "size": draw.choice(["small", "large"], 800),
             "place": draw.choice(["n", "s", "e", "w"], 800)}  # fmt: skip
    chance = 0.1 + 0.3 * ((cells["maker"] == "b") & (cells["size"] == "large")) + 0.15 * (cells["place"] == "w")
    wrong = (draw.random(800) < chance).astype(int)
    finder = Slicefinder(alpha=ALPHA, k=COUNT, max_l=2, min_sup=LEAST, verbose=False)
    finder.fit(pandas.DataFrame(cells), wrong.astype(float))
    found = [
        " & ".join(f"{column}={value}" for column, value in zip(cells, line, strict=True) if value is not None)
        for line in finder.top_slices_
    ]
    made = {
        "cells": {name: values.tolist() for name, values in cells.items()}, "wrong": wrong.tolist(),
        "count": COUNT, "least": LEAST, "slices": found,
    }  # fmt: skip
    OUT.write_text(json.dumps(made) + "\n")


if __name__ == "__main__":
    main()
