"""PROV-JSON, read by the library of the standard and written by it again."""

from __future__ import annotations

from datetime import datetime

import pytest
from made import COMMIT, RAW
from prov.model import (
    ProvActivity,
    ProvAssociation,
    ProvDerivation,
    ProvDocument,
    ProvEntity,
    ProvGeneration,
    ProvMembership,
    ProvUsage,
)

from graftline.exports.facts import Facts
from graftline.exports.prov import _local, document


@pytest.fixture(scope="module")
def read(facts: Facts) -> ProvDocument:
    made: ProvDocument = ProvDocument.deserialize(content=document([facts]).decode(), format="json")
    return made


def attribute(element: ProvEntity, name: str) -> object:
    return next(value for key, value in element.attributes if str(key) == name)


def test_the_library_reads_it_and_reads_the_same_from_what_it_writes(read: ProvDocument) -> None:
    again = ProvDocument.deserialize(content=read.serialize(format="json"), format="json")
    assert again == read
    assert read.unified() == again.unified()


def test_every_step_generates_its_output_and_uses_its_inputs(read: ProvDocument, facts: Facts) -> None:
    generated = {tuple(map(str, one.args[:2])) for one in read.get_records(ProvGeneration)}
    used = {tuple(map(str, one.args[:2])) for one in read.get_records(ProvUsage)}
    derived = {tuple(map(str, one.args[:2])) for one in read.get_records(ProvDerivation)}
    for step in facts.steps:
        activity, output = f"graftline:record-{step.record.sha256}", f"sha256:{step.record.content}"
        assert (output, activity) in generated
        inputs = {f"sha256:{given.sha256}" for given in step.record.inputs}
        assert {(activity, one) for one in inputs} <= used
        assert {(output, one) for one in inputs} <= derived
        assert (activity, f"git:{COMMIT}") in used
        assert (f"graftline:release-{facts.release.manifest}", output) in derived
    assert len(list(read.get_records(ProvAssociation))) == 4
    members = {str(one.args[1]) for one in read.get_records(ProvMembership)}
    assert members == {f"sha256:{file.sha256}" for file in RAW}


def test_parameters_and_metrics_are_attributes(read: ProvDocument, facts: Facts) -> None:
    of = {str(one.identifier): one for one in read.get_records((ProvEntity, ProvActivity))}
    model = of[f"graftline:record-{facts.named['model'].record.sha256}"]
    assert attribute(model, "graftline:parameter-finetune.learning_rate") == "0.003"
    release = of[f"graftline:release-{facts.release.manifest}"]
    assert attribute(release, "graftline:metric-accuracy") == 0.97
    assert str(attribute(release, "graftline:metric-n_test")).startswith('"941"')
    generated = attribute(release, "prov:generatedAtTime")
    assert isinstance(generated, datetime) and generated == datetime.fromisoformat(facts.release.created)


def test_a_name_that_is_no_name_stays_one_in_the_document() -> None:
    assert _local("a:b c<&\u00e9") == "a-x3a-b-x20-c-x3c--x26--xe9-"
