"""W3C PROV-JSON (https://www.w3.org/submissions/2013/SUBM-prov-json-20130424/): entities, activities, who acted.

Each output and input is an entity by its digest, each record's component run an activity. Records hold no times, so
activities have none; the release's entity has the time at which it was generated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from graftline.canonical import canonical_json
from graftline.exports.facts import Facts, StoredRecord
from graftline.exports.values import numbers, parameters
from graftline.records.model import CODE, Dependency

PREFIXES = {"graftline": "https://graftline.dev/prov/", "sha256": "urn:sha256:", "git": "urn:git:commit:"}
_BUILDER = "graftline:builder"


@dataclass
class Document:
    """A PROV document while it is filled: each relation once."""

    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, kind: str, name: str, **attributes: Any) -> str:
        """Add an entity, activity or agent; return its identifier."""
        known = self.parts.setdefault(kind, {}).setdefault(name, {})
        known |= {key.replace("__", ":"): value for key, value in attributes.items() if value is not None}
        return name

    def relate(self, kind: str, *, role: str | None = None, **ends: str) -> None:
        """Add a relation between `ends`, such as activity="..." and entity="..."."""
        name = f"_:{kind}-{'-'.join(ends.values())}" + (f"-{role}" if role else "")
        value = {f"prov:{end}": identifier for end, identifier in ends.items()}
        self.parts.setdefault(kind, {})[name] = value | ({"prov:role": role} if role else {})

    def data(self) -> bytes:
        return canonical_json({"prefix": PREFIXES, **self.parts})


def document(facts: list[Facts]) -> bytes:
    """Return the provenance of these releases as one document."""
    made = Document()
    made.add("agent", _BUILDER, prov__type=_type("prov:SoftwareAgent"), prov__label="graftline")
    for one in facts:
        for step in one.steps:
            _add_step(made, step)
        _add_release(made, one)
    return made.data()


def _add_step(made: Document, step: StoredRecord) -> None:
    record = step.record
    activity = made.add(
        "activity",
        f"graftline:record-{record.sha256}",
        prov__type=_type(f"graftline:{_local(record.component)}"),
        prov__label=f"{record.task} {record.component}",
        graftline__record=record.sha256,
        graftline__signed=step.envelope is not None,
    )
    attributes = made.parts["activity"][activity]
    attributes |= {f"graftline:parameter-{_local(name)}": value for name, value in parameters(step).items()}
    output = made.add("entity", f"sha256:{record.content}", prov__label=f"{record.task} {record.name}")
    made.parts["entity"][output] |= {
        f"graftline:metric-{_local(name)}": _number(value) for name, value in numbers(record.metrics).items()
    }
    made.relate("wasGeneratedBy", entity=output, activity=activity)
    made.relate("wasAssociatedWith", activity=activity, agent=_BUILDER)
    for given in record.inputs:
        used = _add_input(made, record.task, given)
        made.relate("used", activity=activity, entity=used, role=given.name)
        made.relate("wasDerivedFrom", generatedEntity=output, usedEntity=used, activity=activity)
    for name, digest in record.what_ran.items():
        plan = made.add("entity", f"{'git' if name == CODE else 'sha256'}:{_local(digest)}", prov__label=name)
        made.relate("used", activity=activity, entity=plan, role=name)


def _add_input(made: Document, task: str, given: Dependency) -> str:
    whole = made.add("entity", f"sha256:{_local(given.sha256)}", prov__label=f"{task} {given.name}")
    for file in given.files:
        part = made.add(
            "entity", f"sha256:{_local(file.sha256)}", prov__label=file.path, graftline__bytes=_number(file.size)
        )
        made.relate("hadMember", collection=whole, entity=part)
    return whole


def _add_release(made: Document, facts: Facts) -> None:
    release = facts.release
    entity = made.add(
        "entity",
        f"graftline:release-{release.manifest}",
        prov__label=release.name,
        prov__type=_type("graftline:Release"),
        graftline__manifest=release.manifest,
        graftline__content=release.digest,
        prov__generatedAtTime={"$": release.created, "type": "xsd:dateTime"},
    )
    made.parts["entity"][entity] |= {
        f"graftline:metric-{_local(name)}": _number(value) for name, value in numbers(facts.manifest["metrics"]).items()
    }
    for step in facts.named.values():
        made.relate("wasDerivedFrom", generatedEntity=entity, usedEntity=f"sha256:{step.record.content}")


def _type(name: str) -> dict[str, str]:
    return {"$": name, "type": "prov:QUALIFIED_NAME"}


def _number(value: Any) -> Any:
    """Return a number with its type: JSON alone would leave it to the reader."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    return {"$": repr(value), "type": "xsd:double" if isinstance(value, float) else "xsd:long"}


def _local(name: str) -> str:
    """Return `name` as the local part of a qualified name: what is no letter, digit, `.`, `_` or `-` in hex."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else f"-x{ord(c):x}-" for c in name)
