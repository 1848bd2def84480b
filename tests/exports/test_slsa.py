"""SLSA provenance: our envelopes, judged by in-toto's own classes."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path

import pytest
from google.protobuf.json_format import ParseDict
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage
from made import COMMIT, IMAGE, LOCK_DIGEST, release

from graftline.errors import InputError
from graftline.exports.facts import Facts, read_facts
from graftline.exports.slsa import bundle
from graftline.releases.catalogue import resolve
from graftline.signing.envelope import open_envelope, signers
from graftline.signing.keyring import load_keyring
from graftline.store.opening import open_store


def test_each_line_is_a_signed_statement_that_in_toto_and_slsa_accept(facts: Facts) -> None:
    lines = bundle(facts).splitlines()
    assert len(lines) == len(facts.steps) == 4
    for line, step in zip(lines, facts.steps, strict=True):
        envelope = open_envelope(line)
        assert signers(envelope, load_keyring().public), "signed by a trusted key"
        assert json.loads(line)["payloadType"] == "application/vnd.in-toto+json"
        assert b64decode(json.loads(line)["payload"]) == step.data
        message = ParseDict(json.loads(envelope.payload), StatementMessage())
        Statement.copy_from_pb(message).validate()
        provenance = ParseDict(json.loads(envelope.payload)["predicate"], provenance_pb2.Provenance())
        definition = provenance.build_definition
        assert definition.build_type and provenance.run_details.builder.id
        digests = {value for d in definition.resolved_dependencies for value in d.digest.values()}
        assert {COMMIT, IMAGE, LOCK_DIGEST} <= digests
        assert {given.sha256 for given in step.record.inputs} <= digests
        (subject,) = message.subject
        assert subject.digest["sha256"] == step.record.content


def test_what_goes_into_a_step_stands_before_it(facts: Facts) -> None:
    assert [step.record.name for step in facts.steps] == ["dataset", "trunk", "model", "evaluation"]


def test_an_unsigned_record_is_refused_by_name(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    release(store, tmp_path / "run", signed=False)
    with pytest.raises(InputError, match=r"digits@1: records without a signature: dataset \(\w{12}\), trunk"):
        bundle(read_facts(store, resolve(store, "digits")))


@pytest.mark.parametrize("prefix", ["records/", "releases/digits/1/records/", "releases/digits/1/manifest"])
def test_changed_bytes_are_refused_before_anything_is_written(tmp_path: Path, prefix: str) -> None:
    store = open_store(str(tmp_path / "store"))
    release(store, tmp_path / "run")
    found = resolve(store, "digits")
    for key in store.list(prefix):
        path = tmp_path / "store" / key
        path.write_bytes(path.read_bytes().replace(b"0.97", b"0.99").replace(b"validate", b"validatf"))
    if prefix == "records/":  # a release holds its own copy of its records
        assert len(read_facts(store, found).steps) == 4
    else:
        with pytest.raises(InputError, match="the store was changed"):
            read_facts(store, found)
