"""README.md of a new task: the facts that were seen, and the questions that only its owner can answer."""

from __future__ import annotations

from collections.abc import Iterator

from graftline.intake.draft import UNKNOWN_LICENCE, Draft

_SHOWN_CLASSES = 40
_QUESTIONS = (
    "Who made the data, when, and for what? Who may say what is done with it?",
    "How were the labels made, by whom, and how often do two people agree?",
    "What was cleaned, resized or left out before it came here?",
    "Whom or what does it not cover, and where must a model of it not be used? (`publish.intended_use` says so too)",
    "Does it hold names or other personal data? (`subject` in expectations.yaml keeps a person's id as a hash)",
)


def datasheet(draft: Draft, source: str) -> str:
    """Return the page; `source` is what the raw data was called."""
    look, made = draft.look, draft.made
    licence = draft.licence if draft.licence != UNKNOWN_LICENCE else "not known"
    features, labels = made.of("feature"), made.of("label")
    # Without a label a model writes: the second text of the first, or what comes next.
    seen, told = (features, labels) if labels else (features[:1], features[1:])
    learn = " and ".join(f"`{name}`" for name in told) or "what comes next"
    see = " and ".join(f"`{name}`" for name in seen)
    files = f"{len(look.files):,} file{'s' if len(look.files) > 1 else ''}"
    lines = [
        f"# {draft.task}: {_amount(draft)}",
        "",
        "| | |",
        "| --- | --- |",
        f"| Source | `{_cell(source)}`: {files}, {look.size:,} bytes; their digests are in raw.dvc |",
        f"| Licence | {_cell(licence)} |",
        f"| Task | tell {_cell(learn)} from {_cell(see)} |",
        "",
        "## What it holds",
        "",
        f"`graftline new` looked at {look.seen}. What it guessed, and from what:",
        "",
        "| column | type | role | from |",
        "| --- | --- | --- | --- |",
        *(
            f"| `{_cell(name)}` | `{chosen.rules['type']}` | {chosen.role} | {_cell(chosen.why)} |"
            for name, chosen in made.columns.items()
        ),
        *(f"| `{_cell(name)}` | | left out | {_cell(why)} |" for name, why in made.dropped.items()),
        "",
        *_classes(draft),
        *(f"- {_cell(warning)}" for warning in draft.warnings),
        "",
        "## Split",
        "",
        _split(draft),
        "",
        "## Open questions",
        "",
        "Answer them here, and take the mark away:",
        "",
        *(f"- OPEN: {question}" for question in _open(draft)),
    ]
    return "\n".join(lines) + "\n"


def _classes(draft: Draft) -> Iterator[str]:
    counts = dict(zip(map(str, draft.contract.classes), draft.trial.class_rows.tolist(), strict=True))
    if not counts:
        return
    most = sorted(counts.items(), key=lambda item: -item[1])
    amount = draft.contract.label[1].counted if draft.contract.label else ""
    yield from (f"| class | {amount} looked at |", "| --- | --- |")
    yield from (f"| `{_cell(name)}` | {count:,} |" for name, count in most[:_SHOWN_CLASSES])
    if len(most) > _SHOWN_CLASSES:
        yield f"| {len(most) - _SHOWN_CLASSES} more | {sum(count for _, count in most[_SHOWN_CLASSES:]):,} |"
    yield ""


def _split(draft: Draft) -> str:
    if draft.contract.split is not None:
        return f"The data brings its own: the column `{_cell(draft.contract.split)}`."
    test, val = draft.fractions
    return (
        f"`validate` splits by a sha256 of what a model sees: about {test:.0%} of the labelled rows are test, "
        f"{val:.0%} val, the others train. Rows that are added later move none of these."
    )


def _open(draft: Draft) -> Iterator[str]:
    if draft.licence == UNKNOWN_LICENCE:
        yield "What is the licence of the data? (`publish.licence` in params.yaml is the model's)"
    yield from _QUESTIONS


def _cell(text: str) -> str:
    """Return the text for a table of Markdown: one line, without marks of its own."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split()).replace("|", "\\|").replace("`", "'")


def _amount(draft: Draft) -> str:
    about = "" if draft.look.whole else "about "
    return f"{about}{draft.look.rows:,} rows"
