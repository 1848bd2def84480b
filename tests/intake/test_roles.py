"""Which column is what: guessed from names and values, asked for where only a person can tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import owned
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graftline.errors import InputError
from graftline.intake.look import look
from graftline.intake.roles import Proposal, Wishes, propose

SAID = Wishes(licence="CC0-1.0")


def proposed(tmp_path: Path, rows: list[dict[str, Any]], wishes: Wishes = SAID) -> Proposal:
    return propose(look(owned.write_jsonl(tmp_path / "x.jsonl", rows)), wishes)


def roles(made: Proposal) -> dict[str, str]:
    return {name: chosen.role for name, chosen in made.columns.items()}


def asked(made: Proposal) -> list[str]:
    return [question.about for question in made.questions]


def test_a_text_and_a_label_are_known_by_their_values(tmp_path: Path) -> None:
    rows = [{"a": row["text"], "b": row["label"]} for row in owned.labelled(100)]
    made = proposed(tmp_path, rows)
    assert roles(made) == {"a": "feature", "b": "label"}
    assert made.columns["b"].rules == {"type": "string", "classes": ["ham", "spam"]}
    assert "the only column that can be one" in made.columns["b"].why
    assert asked(made) == []


def test_of_several_columns_that_may_be_the_label_the_one_so_called_is(tmp_path: Path) -> None:
    made = proposed(tmp_path, owned.labelled(100, source=["web", "mail"], size=[1, 2, 3]))
    assert roles(made) == {"text": "feature", "label": "label", "source": "metadata", "size": "metadata"}


def test_which_column_is_the_label_is_asked_where_no_name_tells(tmp_path: Path) -> None:
    rows = [{**row, "label": None} for row in owned.labelled(100, source=["web", "mail"], kind=["x", "y"])]
    made = proposed(tmp_path, rows)
    (question,) = made.questions
    assert (question.about, question.options, question.best) == ("label", ("source", "kind", ""), None)
    assert "--label" in question.flags
    assert made.dropped == {"label": "no row has a value"}
    assert roles(proposed(tmp_path, rows, Wishes(label="kind", licence="CC0-1.0")))["kind"] == "label"
    assert "label" not in roles(proposed(tmp_path, rows, Wishes(label="", licence="CC0-1.0"))).values()


def test_a_column_that_is_called_the_label_and_cannot_be_is_not_passed_over(tmp_path: Path) -> None:
    rows = [{**row, "label": f"word{number}"} for number, row in enumerate(owned.labelled(100))]
    made = proposed(tmp_path, rows)
    (question,) = made.questions
    assert "'label' has 100 different values" in question.text and "--no-label" in question.flags
    assert asked(proposed(tmp_path, rows, Wishes(label="", licence="CC0-1.0"))) == []


def test_images_without_anything_to_tell_of_them_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"pixels": [[n % 256] * 64 for n in range(60)]}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match="no column that can be the label"):
        propose(look(tmp_path / "x.parquet"), SAID)


def test_a_persons_id_is_asked_for_and_kept_as_a_hash_until_it_is_denied(tmp_path: Path) -> None:
    rows = owned.labelled(100, patientID=[f"p{number}" for number in range(20)])
    made = proposed(tmp_path, rows)
    assert asked(made) == ["subject"]
    assert roles(made)["patientID"] == "subject"
    denied = proposed(tmp_path, rows, Wishes(subject="", licence="CC0-1.0"))
    assert asked(denied) == []
    assert roles(denied)["patientID"] == "metadata"
    granted = proposed(tmp_path, rows, Wishes(subject="patientID", licence="CC0-1.0"))
    assert (asked(granted), roles(granted)["patientID"]) == ([], "subject")


@pytest.mark.parametrize("subject", [None, "patient_id"])
@pytest.mark.parametrize("own", [{}, {"split": ["train", "test"]}], ids=["drawn", "own split"])
def test_a_person_may_be_named_as_the_group(tmp_path: Path, subject: str | None, own: dict[str, list[str]]) -> None:
    rows = owned.labelled(100, patient_id=[f"p{number}" for number in range(20)], **own)
    made = proposed(tmp_path, rows, Wishes(group="patient_id", subject=subject, licence="CC0-1.0", guessing=True))
    assert (roles(made)["patient_id"], made.columns["patient_id"].groups) == ("subject", True)


def test_a_group_that_is_named_is_kept_beside_the_datas_own_split(tmp_path: Path) -> None:
    rows = owned.labelled(100, scan=[f"s{number}" for number in range(20)], split=["train", "test"])
    assert roles(proposed(tmp_path, rows))["scan"] == "metadata"
    assert roles(proposed(tmp_path, rows, Wishes(group="scan", licence="CC0-1.0")))["scan"] == "group"


def test_the_licence_is_asked_for(tmp_path: Path) -> None:
    assert asked(proposed(tmp_path, owned.labelled(50), Wishes())) == ["licence"]
    assert asked(proposed(tmp_path, owned.labelled(50), Wishes(guessing=True))) == []


def test_rows_of_a_group_are_known_by_its_name_and_repeats(tmp_path: Path) -> None:
    rows = owned.labelled(200, product_id=[f"sku-{number}" for number in range(40)])
    assert roles(proposed(tmp_path, rows))["product_id"] == "group"
    assert roles(proposed(tmp_path, rows, Wishes(group="", licence="CC0-1.0")))["product_id"] == "metadata"
    assert (
        roles(proposed(tmp_path, [row | {"product_id": f"sku-{n}"} for n, row in enumerate(rows)]))["product_id"]
        == "metadata"
    ), "a group of one row each groups nothing"


def test_the_rows_numbers_are_left_out(tmp_path: Path) -> None:
    rows = [{"": number, **row} for number, row in enumerate(owned.labelled(50))]
    path = owned.write_csv(tmp_path / "x.csv", rows, delimiter=";")
    made = propose(look(path), SAID)
    assert made.dropped == {"": "the rows' numbers, as pandas writes them"}
    assert roles(made) == {"text": "feature", "label": "label"}


@pytest.mark.parametrize(
    ("values", "rules"),
    [
        ([0, 1, 2], {"type": "integer", "classes": [0, 1, 2]}),
        ([0.5, 1.5, 2.25, 7.125], {"type": "float"}),
        ([True, False], {"type": "string", "classes": ["false", "true"]}),
        (["yes", "no", "null", "007"], {"type": "string", "classes": ["007", "no", "null", "yes"]}),
        ([["a"], ["a", "b"], []], {"type": "labels", "classes": ["a", "b"]}),
    ],
    ids=["whole numbers", "numbers", "booleans", "words", "sets"],
)
def test_a_label_is_of_the_kind_that_its_values_are(tmp_path: Path, values: list[Any], rules: dict[str, Any]) -> None:
    rows = [{"text": text, "label": values[n % len(values)]} for n, (text, _) in enumerate(owned.texts(80))]
    assert proposed(tmp_path, rows).columns["label"].rules == rules


def test_many_different_whole_numbers_are_a_number_to_tell(tmp_path: Path) -> None:
    rows = [{"text": text, "price": n * 7 % 1009} for n, (text, _) in enumerate(owned.texts(300))]
    assert proposed(tmp_path, rows).columns["price"].rules == {"type": "float"}


def test_numbers_in_csv_are_read_as_such_but_not_with_zeros_before_them(tmp_path: Path) -> None:
    rows = owned.labelled(60, words=[1, 20], zip=["01234", "99999"], share=["0.5", "1e-3"])
    made = propose(look(owned.write_csv(tmp_path / "x.csv", rows)), SAID)
    kinds = {name: chosen.rules["type"] for name, chosen in made.columns.items()}
    assert kinds == {"text": "text", "label": "string", "words": "integer", "zip": "string", "share": "float"}


def test_two_texts_with_names_of_a_pair_are_one(tmp_path: Path) -> None:
    rows = [
        {"sentence1": one, "sentence2": other, "label": mark}
        for (one, mark), (other, _) in zip(owned.texts(80), owned.texts(80, seed=5), strict=True)
    ]
    assert roles(proposed(tmp_path, rows)) == {"sentence1": "feature", "sentence2": "feature", "label": "label"}


def test_words_with_a_tag_each_are_a_sentence_and_its_label(tmp_path: Path) -> None:
    rows = [
        {"words": text.split(), "tags": ["N" if word in owned.WORDS[:9] else "V" for word in text.split()]}
        for text, _ in owned.texts(80)
    ]
    made = proposed(tmp_path, rows)
    assert roles(made) == {"words": "feature", "tags": "label"}
    assert made.columns["tags"].rules == {"type": "tags", "classes": ["N", "V"]}


def test_texts_alone_are_to_be_written(tmp_path: Path) -> None:
    assert roles(proposed(tmp_path, [{"text": text} for text, _ in owned.texts(60)])) == {"text": "feature"}


def test_the_datas_own_split_is_known_by_its_values(tmp_path: Path) -> None:
    made = proposed(tmp_path, owned.labelled(100, split=["train", "val", "test"]))
    assert (roles(made)["split"], made.columns["split"].rules) == ("split", {"type": "string"})
    made = proposed(tmp_path, owned.labelled(100, split=["train", "test"]))
    assert made.columns["split"].rules == {"type": "string", "classes": ["train", "test"]}
    made = proposed(tmp_path, owned.labelled(100, split=["Train", "test", "validation"]))
    assert made.columns["split"].rules == {"type": "string", "map": {"Train": "train", "validation": "val"}}
    assert roles(proposed(tmp_path, owned.labelled(100, fold=["1", "2"])))["fold"] == "metadata"


def test_a_label_in_several_spellings_is_one_word_and_said_to_be(tmp_path: Path) -> None:
    rows = owned.labelled(100)
    rows[0]["label"], rows[1]["label"] = " spam ", "SPAM"
    made = proposed(tmp_path, rows).columns["label"]
    assert made.rules == {"type": "string", "classes": ["ham", "spam"], "trim": True, "map": {"SPAM": "spam"}}
    assert "white space" in made.why and "SPAM" in made.why


def test_lists_of_as_many_numbers_as_a_square_are_images(tmp_path: Path) -> None:
    table = pa.table({"pixels": [[n % 256] * 64 for n in range(60)], "digit": [n % 3 for n in range(60)]})
    pq.write_table(table, tmp_path / "x.parquet")
    made = propose(look(tmp_path / "x.parquet"), SAID)
    assert made.columns["pixels"].rules == {"type": "image", "shape": [8, 8]}
    assert roles(made)["digit"] == "label"


def test_rows_without_a_label_make_it_nullable(tmp_path: Path) -> None:
    rows = [{**row, "label": None if n % 3 else row["label"]} for n, row in enumerate(owned.labelled(90))]
    made = proposed(tmp_path, rows)
    assert made.columns["label"].rules["nullable"] is True
    assert "60 rows have none" in made.columns["label"].why


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        (Wishes(label="lable"), "--label: there is no column 'lable'; did you mean 'label'"),
        (Wishes(features=("body",)), "--text: there is no column 'body'"),
        (Wishes(label="id"), "--label id: 60 different values"),
        (Wishes(ignored=("text",)), "no column that a model can see"),
        (Wishes(label="label", ignored=("label",)), "--ignore: 'label' is named by --label too"),
    ],
)
def test_a_wish_that_cannot_be_is_one_line(tmp_path: Path, wishes: Wishes, says: str) -> None:
    rows = [{"id": f"i{n:03}", **row} for n, row in enumerate(owned.labelled(60))]
    with pytest.raises(InputError) as refused:
        proposed(tmp_path, rows, wishes)
    assert says in str(refused.value)


def test_numbers_that_stand_for_classes_get_the_names_that_a_saved_data_set_holds() -> None:
    saved = Path(__file__).parents[1] / "raw/recordings/saved"
    found = propose(look(saved), Wishes(label="label", features=("text",)))
    assert found.columns["label"].rules == {"type": "string", "classes": ["ham", "spam"], "map": {0: "ham", 1: "spam"}}


def refused(tmp_path: Path, rows: list[dict[str, Any]], wishes: Wishes) -> str:
    with pytest.raises(InputError) as caught:
        proposed(tmp_path, rows, wishes)
    return str(caught.value)


@pytest.mark.parametrize("flag", ["group", "subject"])
def test_a_group_of_which_rows_lack_a_value_is_refused_by_the_flag_that_named_it(tmp_path: Path, flag: str) -> None:
    rows = [{**row, "user": f"u{n}" if n % 9 else None} for n, row in enumerate(owned.labelled(100))]
    said = refused(tmp_path, rows, Wishes(group="user", subject="user" if flag == "subject" else "", guessing=True))
    place = f"{tmp_path / 'x.jsonl'}: --group user"
    assert said.startswith(f"{place}: 12 of the 100 rows that were looked at have no value")


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        (Wishes(label="row", guessing=True), "--label row"),
        (Wishes(features=("digest",), label="label", guessing=True), "--text digest"),
        (Wishes(label="label", guessing=True), "column digest"),
    ],
)
def test_a_column_that_is_called_as_the_datasets_own_are_is_named_with_the_persons_file(
    tmp_path: Path, wishes: Wishes, said: str
) -> None:
    rows = [{"digest": row["text"], "row": row["label"], "label": row["label"]} for row in owned.labelled(100)]
    assert refused(tmp_path, rows, wishes) == (
        f"{tmp_path / 'x.jsonl'}: {said}: the name of a column that every dataset has; rename it in the file"
    )
