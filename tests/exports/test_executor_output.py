"""What Kubeflow's pages show of an artifact: its digests, who signed, and where its record is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.protobuf.json_format import ParseDict
from kfp.pipeline_spec import pipeline_spec_pb2
from made import make_step

from graftline.canonical import canonical_json
from graftline.digests import ENVELOPE
from graftline.errors import InputError
from graftline.executor_output import write_executor_output
from graftline.signing.keyring import load_keyring

METRICS = {"loss": 0.25, "sha256": "a metric of this name hides nothing", "curve": [1, 2]}


@pytest.mark.parametrize(
    ("given", "variable", "expected"),
    [
        ("s3://bucket/team", "s3://other", "s3://bucket/team/records/{}.json"),
        ("", "s3://bucket/team/", "s3://bucket/team/records/{}.json"),
        ("", "", None),
    ],
)
def test_digests_signer_and_link_of_the_record_are_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, variable: str, expected: str | None
) -> None:
    monkeypatch.setenv("GRAFTLINE_STORE", variable)
    record = make_step(tmp_path / "trunk", {"model.safetensors": b"x"}, component="pretrain", metrics=METRICS)
    write_executor_output(tmp_path / "output.json", "trunk", tmp_path / "trunk", record, store=given)
    value = json.loads((tmp_path / "output.json").read_bytes())
    ParseDict(value, pipeline_spec_pb2.ExecutorOutput())
    (artifact,) = value["artifacts"]["trunk"]["artifacts"]
    metadata = artifact["metadata"]
    assert (metadata["sha256"], metadata["record"]) == (record.content, record.sha256)
    assert metadata["signed_by"] == load_keyring().signer().keyid
    assert metadata.get("record_url") == (expected and expected.format(record.sha256))
    assert metadata["loss"] == 0.25 and "curve" not in metadata
    assert value["parameterValues"] == {"record": record.sha256}


def test_a_signer_that_did_not_sign_is_not_shown(tmp_path: Path) -> None:
    record = make_step(tmp_path / "trunk", {"model.safetensors": b"x"}, component="pretrain")
    envelope = tmp_path / "trunk" / ENVELOPE
    value = json.loads(envelope.read_bytes())
    value["signatures"].append({"keyid": "a" * 64, "sig": "AAAA"})
    envelope.write_bytes(canonical_json(value))
    with pytest.raises(InputError, match=r"record\.dsse\.json: signed by key a{64}, which is not known here"):
        write_executor_output(tmp_path / "output.json", "trunk", tmp_path / "trunk", record)
    assert not (tmp_path / "output.json").exists()
    envelope.unlink()
    write_executor_output(tmp_path / "output.json", "trunk", tmp_path / "trunk", record)
    assert "signed_by" not in (tmp_path / "output.json").read_text()
