"""A table with a line an interaction, as `graftline new` sees it."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from owned import labelled, write_csv

from graftline.errors import InputError
from graftline.intake.draft import draft
from graftline.intake.histories import Interactions, histories, named, of_histories
from graftline.intake.look import look
from graftline.intake.roles import Wishes, propose
from graftline.yamlfile import parse_yaml


def interactions(users: int) -> list[dict[str, Any]]:
    drawn = random.Random(0)
    return [
        {"userId": user, "movieId": movie, "rating": drawn.randint(1, 5), "timestamp": drawn.randint(10**8, 10**9)}
        for user in range(users)
        for movie in drawn.sample(range(30), drawn.randint(1, 8))
    ]


def test_a_table_that_can_be_nothing_else_is_taken_for_interactions_by_its_columns_names(tmp_path: Path) -> None:
    seen = look(write_csv(tmp_path / "ratings.csv", interactions(40)))
    assert named(seen, None, None, None, Wishes()) == Interactions("userId", "movieId", "timestamp")
    assert named(seen, "movieId", "userId", None, Wishes()) == Interactions("movieId", "userId", None)


def test_a_table_of_texts_is_not_whatever_its_columns_are_called(tmp_path: Path) -> None:
    seen = look(write_csv(tmp_path / "x.csv", labelled(60, user_id=["1", "2"], product_id=["7", "8"])))
    assert named(seen, None, None, None, Wishes()) is None


def test_one_column_without_the_other_and_an_unknown_one_are_refused(tmp_path: Path) -> None:
    seen = look(write_csv(tmp_path / "x.csv", interactions(5)))
    with pytest.raises(InputError, match="one without the other"):
        named(seen, "userId", None, None, Wishes())
    with pytest.raises(InputError, match="no column 'movieid'; did you mean 'movieId'"):
        named(seen, "userId", "movieid", None, Wishes())


@pytest.mark.parametrize(
    "wishes", [Wishes(label="rating"), Wishes(label=""), Wishes(features=("movieId",)), Wishes(group="userId")]
)
def test_what_a_model_sees_or_predicts_is_taken_as_it_was_said(tmp_path: Path, wishes: Wishes) -> None:
    seen = look(write_csv(tmp_path / "x.csv", interactions(5)))
    assert named(seen, None, None, None, wishes) is None
    if wishes.label or wishes.features or wishes.group:
        with pytest.raises(InputError, match="--user and --item: given together with --"):
            named(seen, "userId", "movieId", None, wishes)


def test_columns_beside_a_history_may_be_left_out_and_its_own_are_no_other_ones(tmp_path: Path) -> None:
    seen = look(write_csv(tmp_path / "x.csv", interactions(40)))
    of = named(seen, None, None, None, Wishes(ignored=("rating", "timestamp")))
    assert of is not None and of == Interactions("userId", "movieId", None)
    wishes = of_histories(seen, of, Wishes(ignored=("rating", "timestamp"), subject="userId", licence="CC0-1.0"))
    assert {"rating", "timestamp"} <= propose(histories(seen, of), wishes).dropped.keys()
    with pytest.raises(InputError, match="'rating' has several values a user"):
        of_histories(seen, of, Wishes(subject="rating"))
    with pytest.raises(InputError, match="'timestamp' is named by --ignore too"):
        named(seen, "userId", "movieId", "timestamp", Wishes(ignored=("timestamp",)))


def test_the_task_that_is_drafted_gathers_by_user_and_recommends(tmp_path: Path) -> None:
    found = look(write_csv(tmp_path / "x.csv", interactions(200)))
    of = named(found, None, None, None, Wishes())
    assert of is not None
    seen = histories(found, of)
    assert seen.rows == 200
    wishes = Wishes(
        label="", features=("movieId",), group="", subject="userId", licence="CC0-1.0", left_out=("rating",)
    )
    made = draft("films", seen, propose(seen, wishes), "CC0-1.0")
    contract, params = parse_yaml(made.expectations, where="x"), parse_yaml(made.params, where="x")
    assert contract["source"] == {"delimiter": ",", "user": "userId", "time": "timestamp"}
    assert contract["columns"]["movieId"] == {"type": "items", "ordered": True}
    assert (contract["subject"], contract["others"]) == ("userId", "drop")
    assert made.head == "recommendation" and params["pretrain"]["trunk"] == {"name": "items"}
    alone = made.trial.by_rule["movieId.min_length"]
    assert alone == sum(len(row) == 1 for batch in seen.batches for row in batch.columns["movieId"].to_pylist()) > 0
    assert params["validate"]["max_bad_fraction"] * 200 > alone, "users with one item do not stop the first run"
    part = replace(seen, whole=False)
    made = draft("films", part, propose(part, wishes), "CC0-1.0")
    assert parse_yaml(made.params, where="x")["validate"]["max_bad_fraction"] == 0.01, "there may be more of them"
    assert any(note.startswith(f"{alone:,} users have too few items in the part") for note in made.warnings)
