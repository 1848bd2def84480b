"""Which column is what: a role and rules for each, and what only a person can tell.

`propose` is a function of what was seen and what was said; an answer to a question is one more thing said.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from graftline.errors import InputError, nearest
from graftline.intake.look import Look
from graftline.problems.recipes import head_of
from graftline.values import guesses
from graftline.values.contract import RESERVED
from graftline.values.guesses import Guess, Sampled, spelling

_INDEX = re.compile(r"|unnamed: ?\d+|__index_level_\d+__|index", re.IGNORECASE)
_LABELS = re.compile(
    r"(.+_)?(label|labels|class|target|category|sentiment|topic|intent|emotion|genre|species|diagnosis|outcome|tags?|answers?)(_name)?"
    r"|y|score|rating|stars|price|is_.+"
)
_TEXTS = re.compile(r"(.+_)?(text|texts|body|content|sentence|review|message|comment|document|gloss|question)")
_PAIRS = re.compile(r"(.*?)_?(1|2|a|b|first|second|premise|hypothesis|left|right|query|passage)")
_ASKED = re.compile(r"(.+_)?(question|query)(_text)?")
_ANSWERS = re.compile(r"(.+_)?answers?(_text)?")
_PERSONS = re.compile(
    r"(.+_)?(patient|person|user|subject|speaker|author|writer|customer|client|student|employee|participant|respondent"
    r"|reviewer|annotator|worker|e?mail|phone|ssn|member|account|voter|citizen|sender|recipient)"
    r"(_(id|ids|no|nr|number|name|key|code|address|hash))?"
)
_GROUPS = re.compile(
    r"(.+_)?(group|session|doc|document|article|title|conversation|thread|video|product|sku|site|hospital|device|camera|scan|study"
    r"|family|cluster)(_(id|no|nr|number|key|code))?"
)
_IDS = re.compile(
    r"(.+_)?(id|ids|uuid|guid|key|hash|index|row|nr|file|filename|file_name|path|url|date|time|timestamp)"
)
_SPLITS = ("split", "fold", "subset", "partition", "set")
_LEAST_GROUPS = 20
_REPEATS = 1.2
"""Rows a value on average from which on a column may group them."""


@dataclass(frozen=True)
class Wishes:
    """What was said on the command line, or answered."""

    label: str | None = None
    """"" for none."""
    features: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    group: str | None = None
    """"" for none."""
    subject: str | None = None
    """"" for none."""
    licence: str | None = None
    left_out: tuple[str, ...] = ()
    """Columns that are in the files and no part of the rows, such as ratings of histories."""
    guessing: bool = False
    """Whether the best answer is taken where there is one, and nobody asked."""


@dataclass(frozen=True)
class Chosen:
    """What becomes of a column."""

    role: str
    rules: dict[str, Any]
    """Type and rules, as in the contract, without the role."""
    why: str
    groups: bool = False
    """Whether the rows with one value of it are in one split."""


@dataclass(frozen=True)
class Question:
    """What only a person can tell."""

    about: str
    """The field of `Wishes` that answers it."""
    text: str
    flags: str
    """How the command line answers it."""
    options: tuple[str, ...] = ()
    """The answers; none where any will do."""
    best: str | None = None
    """What seems best; None if nothing does."""


@dataclass
class Proposal:
    """What becomes of each column, and what is open."""

    columns: dict[str, Chosen] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    """Columns that are left out, each with the reason."""
    questions: list[Question] = field(default_factory=list)

    def of(self, role: str) -> list[str]:
        """Return the columns with a role."""
        return [name for name, chosen in self.columns.items() if chosen.role == role]


def propose(look: Look, wishes: Wishes) -> Proposal:
    """Return what becomes of each column, as far as it can be known.

    Raises:
        InputError: a column that was named does not exist or cannot be what it was named for, or there is nothing that
            a model could see.
    """
    _check_names(look, wishes)
    made = Proposal(dropped=dict.fromkeys(wishes.left_out, "no part of a history"))
    left = _without_useless(look, wishes, made)
    _choose_split(left, made)
    _choose_features(look, left, wishes, made)
    _choose_label(look, left, wishes, made)
    _choose_subject(look, left, wishes, made)
    _choose_group(look, left, wishes, made)
    _check_reserved(look, wishes, made)
    _keep_others(look, left, made)
    if wishes.licence is None and not wishes.guessing:
        text = "The licence of the data: an SPDX identifier such as CC-BY-4.0; empty if you do not know"
        made.questions.append(Question("licence", text, "--licence ID", best="unspecified"))
    order = {name: place for place, name in enumerate(look.columns)}
    # Features in the order of the roles that they play, or as they were named: of two texts one may be read and the
    # other written.
    named = {name: place for place, name in enumerate(wishes.features)}
    seen = sorted(made.of("feature"), key=lambda name: named.get(name, 0))
    order |= dict(zip(seen, sorted(order[name] for name in seen), strict=True))
    made.columns = dict(sorted(made.columns.items(), key=lambda item: order[item[0]]))
    return made


def _check_names(look: Look, wishes: Wishes) -> None:
    known = list(look.columns)
    named: dict[str, str] = {}
    for flag, names in _named(wishes).items():
        for name in names:
            if (other := named.setdefault(name, flag)) != flag and {flag, other} != {"--group", "--subject"}:
                raise InputError(flag, f"'{name}' is named by {other} too", fix="leave one of them out")
            if name not in known:
                raise InputError(
                    flag, f"there is no column '{name}'{nearest(name, known)}", expected="one of " + ", ".join(known)
                )


def _named(wishes: Wishes) -> dict[str, list[str]]:
    """Return the columns that each flag names."""
    asked = {
        "--label": [wishes.label],
        "--text": wishes.features,
        "--ignore": wishes.ignored,
        "--group": [wishes.group],
        "--subject": [wishes.subject],
    }
    return {flag: [name for name in names if name] for flag, names in asked.items()}


def _check_reserved(look: Look, wishes: Wishes, made: Proposal) -> None:
    """Refuse a column that is needed and has a name of the dataset's own columns."""
    found = next((name for name in RESERVED if name in made.columns and made.columns[name].role != "split"), None)
    if found is None:
        return
    flag = next((flag for flag, names in _named(wishes).items() if found in names), "column")
    raise InputError(
        f"{look.path}: {flag} {found}", "the name of a column that every dataset has", fix="rename it in the file"
    )


def _without_useless(look: Look, wishes: Wishes, made: Proposal) -> dict[str, Sampled]:
    """Return the columns without those that tell nothing."""
    left = {}
    named = {wishes.label, wishes.subject, wishes.group, *wishes.features}
    for name, column in look.columns.items():
        if name in wishes.ignored:
            made.dropped[name] = "--ignore"
        elif name in named:
            left[name] = column
        elif not len(column.given):
            made.dropped[name] = "no row has a value"
        elif _INDEX.fullmatch(name) and column.whole and column.distinct:
            made.dropped[name] = "the rows' numbers, as pandas writes them"
        else:
            left[name] = column
    return left


def _choose_split(left: dict[str, Sampled], made: Proposal) -> None:
    for name, column in list(left.items()):
        if spelling(name) in _SPLITS and (guess := guesses.own_split(column)) is not None:
            made.columns[name] = Chosen("split", guess.rules, guess.why)
            del left[name]
            return


def _choose_features(look: Look, left: dict[str, Sampled], wishes: Wishes, made: Proposal) -> None:
    names = list(wishes.features) or _features(left, wishes)
    if not names:
        found = ", ".join(f"{name} ({column.values.type})" for name, column in left.items())
        raise InputError(
            look.path,
            f"no column that a model can see among {found}",
            expected="text, images, clips or lists of words",
            fix="name it with --text",
        )
    for name in names:
        column = left.pop(name)
        guess = guesses.feature(column) if look.source.user is None else guesses.history(column, look.source.time)
        if guess is None:
            raise InputError(
                f"--text {name}", f"a column of {column.values.type}", expected="text, images, clips or lists of words"
            )
        why = guess.why if len(names) == 1 or wishes.features else f"{guess.why}; one of two by its name"
        made.columns[name] = Chosen("feature", guess.rules, why)


def _features(left: dict[str, Sampled], wishes: Wishes) -> list[str]:
    """Return the columns that a model sees: images, clips, sentences, a question and a text, two texts, or the text."""
    kinds: dict[str, list[str]] = {}
    for name, column in left.items():
        if name in (wishes.label, wishes.subject, wishes.group):
            continue
        if (guess := guesses.feature(column)) is not None:
            kinds.setdefault(str(guess.rules["type"]), []).append(name)
    for kind in guesses.ALONE:
        if found := kinds.get(kind):
            return found[:1]
    for words in kinds.get("tokens", []):
        if any(guesses.tags_of(left[words], column) for column in left.values()):
            return [words]
    texts = [name for name in kinds.get("text", []) if not _names_things(name)]
    reading = [name for name in texts if guesses.reads_like_text(left[name])]
    if (asked := _asked(left, texts)) is not None:
        return asked
    pairs = [name for name in reading if _PAIRS.fullmatch(spelling(name))]
    if len(pairs) == 2:
        return pairs
    named = [name for name in texts if _TEXTS.fullmatch(spelling(name))]
    rest = [name for name in texts if len(left[name].counts) > len(left[name].given) / 2]
    for some in ([name for name in reading if name in named], reading, named, rest):
        if some:
            return [max(some, key=lambda name: left[name].words)]
    return kinds.get("tokens", [])[:1]


def _asked(left: dict[str, Sampled], texts: list[str]) -> list[str] | None:
    """Return the columns of questions and of the texts that answers stand in; None if there are none."""
    questions = [name for name in texts if _ASKED.fullmatch(spelling(name))]
    answers = [column for name, column in left.items() if _ANSWERS.fullmatch(spelling(name))]
    others = [name for name in texts if name not in questions]
    about = [name for name in others if any(guesses.span_of(left[name], column) for column in answers)]
    return [questions[0], about[0]] if questions and about else None


def _choose_label(look: Look, left: dict[str, Sampled], wishes: Wishes, made: Proposal) -> None:
    if wishes.label == "":
        return
    seen = [look.columns[name] for name in made.of("feature")]
    if wishes.label:
        guess = _label(seen, left[wishes.label], asked=True)
        if guess is None:
            count = len(left[wishes.label].counts)
            raise InputError(
                f"--label {wishes.label}",
                f"{count} different values in the rows that were looked at, of type {left[wishes.label].values.type}",
                expected="classes, numbers, transcripts, or lists of words, that go with what the model sees",
            )
        _label_is(left, wishes.label, guess, "named", made)
        return
    found = {name: guess for name, column in left.items() if (guess := _label(seen, column)) and _may_be_label(column)}
    named = [name for name in found if _LABELS.fullmatch(spelling(name))]
    best = (named or list(found))[:1]
    if len(named) == 1 or len(found) == 1 or (named and wishes.guessing):
        reason = "by its name" if named else "the only column that can be one"
        if len(named) > 1:
            reason += f", the first of {', '.join(named)}"
        _label_is(left, best[0], found[best[0]], reason, made)
    elif found:
        made.questions.append(
            Question(
                "label",
                "Which column is the label",
                "--label COLUMN, or --no-label",
                options=(*found, ""),
                best=best[0] if named else None,
            )
        )
    elif unfit := next((name for name in left if _LABELS.fullmatch(spelling(name))), None):
        text = f"No column can be the label: '{unfit}' has {len(left[unfit].counts):,} different values. Is there none"
        made.questions.append(Question("label", text, "--no-label, or --label COLUMN", options=("",)))
    elif head_of([made.columns[name].rules["type"] for name in made.of("feature")], None) is None:
        raise InputError(
            look.path,
            f"no column that can be the label among {', '.join(left) or 'none'}",
            expected="classes, numbers, or lists of words",
            fix="name it with --label",
        )


def _label_is(left: dict[str, Sampled], name: str, guess: Guess, reason: str, made: Proposal) -> None:
    column = left.pop(name)
    rules = dict(guess.rules)
    why = f"the label, {reason}; {guess.why}"
    if column.missing:
        rules["nullable"] = True
        why += f"; {column.missing:,} rows have none and serve pretraining only"
    made.columns[name] = Chosen("label", rules, why)


def _label(seen: list[Sampled], column: Sampled, *, asked: bool = False) -> Guess | None:
    """Return what the column is if what the model sees goes with it as the label."""
    guess = guesses.beside(seen, column) or guesses.label(column, asked=asked)
    kinds = [str(found.rules["type"]) for each in seen if (found := guesses.feature(each))]
    return guess if guess is not None and head_of(kinds, str(guess.rules["type"])) else None


def _may_be_label(column: Sampled) -> bool:
    if _names_things(column.name):
        return False
    return bool(_LABELS.fullmatch(spelling(column.name))) or not (column.distinct and column.whole)


def _names_things(name: str) -> bool:
    """Return whether the values of a column of this name name things or persons."""
    return bool(_PERSONS.fullmatch(spelling(name)) or _IDS.fullmatch(spelling(name)))


def _choose_subject(look: Look, left: dict[str, Sampled], wishes: Wishes, made: Proposal) -> None:
    if wishes.subject == "":
        return
    if wishes.subject:
        name, why = wishes.subject, "a person's id, as was said"
    else:
        ids = [name for name, column in left.items() if guesses.identifies(column)]
        names = [name for name in ids if _PERSONS.fullmatch(spelling(name))]
        if not names:
            return
        name, why = names[0], "a person's id, by its name"
        if not wishes.guessing:
            text = f"Is '{name}' the id of a person (it is then kept as a keyed hash, never in clear)"
            flags = f"--subject '{name}', or --no-subject"
            made.questions.append(Question("subject", text, flags, options=(name, ""), best=name))
    column = left.pop(name)
    if name == wishes.group:
        _check_group(look, column)
    groups = name == wishes.group or (_repeats(column) and not wishes.group and not made.of("split"))
    why += "; kept as a keyed hash" + ("; the rows of one person are in one split" if groups else "")
    made.columns[name] = Chosen("subject", _kept(column), why, groups)


def _choose_group(look: Look, left: dict[str, Sampled], wishes: Wishes, made: Proposal) -> None:
    if wishes.group == "" or any(chosen.groups for chosen in made.columns.values()):
        return
    if made.of("split") and not wishes.group:
        return
    found = [wishes.group] if wishes.group else [name for name in left if _groups(left[name])]
    for name in found[:1]:
        column = left.pop(name)
        _check_group(look, column)
        why = "named" if wishes.group else "groups rows, by its name"
        count = f"{len(column.counts):,} groups"
        made.columns[name] = Chosen("group", _kept(column), f"{why}; {count}: the rows of one are in one split", True)


def _check_group(look: Look, column: Sampled) -> None:
    if column.missing:
        raise InputError(
            f"{look.path}: --group {column.name}",
            f"{column.missing:,} of the {len(column.values):,} rows that were looked at have no value there",
            expected="a value in each row: it says which rows stay together",
            fix="fill them in, or leave --group out",
        )


def _groups(column: Sampled) -> bool:
    return bool(_GROUPS.fullmatch(spelling(column.name)) and guesses.identifies(column) and _repeats(column))


def _repeats(column: Sampled) -> bool:
    """Return whether the column groups rows, into enough groups to divide them."""
    values = len(column.counts)
    return not column.missing and values >= _LEAST_GROUPS and len(column.given) >= _REPEATS * values


def _keep_others(look: Look, left: dict[str, Sampled], made: Proposal) -> None:
    for name, column in left.items():
        guess = guesses.metadata(column)
        if name in RESERVED or not name.strip():
            made.dropped[name] = "the name is one that the output uses" if name.strip() else "it has no name"
        elif guess is None:
            made.dropped[name] = f"no kind of column holds {column.values.type}"
        else:
            rules = {**guess.rules, **({"nullable": True} if column.missing or not look.whole else {})}
            made.columns[name] = Chosen("metadata", rules, f"{guess.why}; only kept")


def _kept(column: Sampled) -> dict[str, Any]:
    guess = guesses.metadata(column)
    if guess is None or not guesses.identifies(column):
        raise InputError(f"column '{column.name}'", f"of type {column.values.type}", expected="words or whole numbers")
    return {**guess.rules, **({"nullable": True} if column.missing else {})}
