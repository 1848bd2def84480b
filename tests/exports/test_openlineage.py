"""OpenLineage events, judged by the classes of its own client, and sent to a real server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from made import COMMIT, IMAGE, LOCK_DIGEST, METRICS, RAW
from openlineage.client import event_v2
from openlineage.client.generated.base import DatasetFacet, OutputDatasetFacet, RunFacet
from openlineage.client.generated.dataset_type_dataset import DatasetTypeDatasetFacet
from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet
from openlineage.client.generated.execution_parameters_run import ExecutionParameter, ExecutionParametersRunFacet
from openlineage.client.generated.job_type_job import JobTypeJobFacet
from openlineage.client.generated.output_statistics_output_dataset import OutputStatisticsOutputDatasetFacet
from openlineage.client.generated.processing_engine_run import ProcessingEngineRunFacet
from openlineage.client.serde import Serde

from graftline.errors import GraftlineError, InputError
from graftline.exports.facts import Facts
from graftline.exports.openlineage import PRODUCER, events, lines, send

FACETS: dict[str, Any] = {
    "version": DatasetVersionDatasetFacet,
    "datasetType": DatasetTypeDatasetFacet,
    "outputStatistics": OutputStatisticsOutputDatasetFacet,
    "processing_engine": ProcessingEngineRunFacet,
    "executionParameters": ExecutionParametersRunFacet,
    "jobType": JobTypeJobFacet,
}


def facet(name: str, value: dict[str, Any], base: Any) -> Any:
    """Return the library's facet for ours. It raises TypeError for a field that the specification does not have."""
    fields = {key: inner for key, inner in value.items() if not key.startswith("_")}
    if name in FACETS:
        if name == "executionParameters":
            fields["parameters"] = [ExecutionParameter(**one) for one in fields["parameters"]]
        return FACETS[name](producer=value["_producer"], **fields)
    assert name.startswith("graftline_"), f"{name} is no facet of the specification and not marked as ours"
    return base(producer=value["_producer"]).with_additional_properties(**fields)


def facets(values: dict[str, Any], base: Any) -> dict[str, Any]:
    return {name: facet(name, value, base) for name, value in values.items()}


def dataset(value: dict[str, Any], kind: Any) -> Any:
    value = dict(value) | {"facets": facets(value["facets"], DatasetFacet)}
    if "outputFacets" in value:
        value["outputFacets"] = facets(value["outputFacets"], OutputDatasetFacet)
    return kind(**value)


def as_library(event: dict[str, Any]) -> Any:
    """Return the event as the client's own class, made from the dictionary as a strict reader would."""
    run, job = event["run"], event["job"]
    made = event_v2.RunEvent(
        eventTime=event["eventTime"],
        producer=event["producer"],
        eventType=event_v2.RunState(event["eventType"]),
        run=event_v2.Run(run["runId"], facets(run["facets"], RunFacet)),
        job=event_v2.Job(job["namespace"], job["name"], facets(job["facets"], RunFacet)),
        inputs=[dataset(value, event_v2.InputDataset) for value in event["inputs"]],
        outputs=[dataset(value, event_v2.OutputDataset) for value in event["outputs"]],
    )
    assert event["schemaURL"] == made.schemaURL
    return made


def without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: without_empty(inner) for key, inner in value.items()}
        return {key: inner for key, inner in kept.items() if inner not in ({}, [], None)}
    return [without_empty(inner) for inner in value] if isinstance(value, list) else value


def test_the_librarys_own_events_say_the_same(facts: Facts) -> None:
    for event in events(facts):
        theirs = json.loads(Serde.to_json(as_library(event)))
        assert without_empty(theirs) == without_empty(event)


def test_each_run_starts_and_completes_and_its_id_follows_from_the_record(facts: Facts) -> None:
    found = list(events(facts))
    assert [event["eventType"] for event in found] == ["START", "COMPLETE"] * 5
    assert len({event["run"]["runId"] for event in found}) == 5
    assert found == list(events(facts))
    assert lines(found).count(b"\n") == 10


def test_digests_parameters_metrics_and_edges_are_in_the_events(facts: Facts) -> None:
    found = {event["job"]["name"]: event for event in events(facts) if event["eventType"] == "COMPLETE"}
    assert list(found) == [f"digits.{name}" for name in ("validate", "pretrain", "finetune", "evaluate", "publish")]
    for step in facts.steps:
        event = found[f"digits.{step.record.component}"]
        own = event["run"]["facets"]["graftline_record"]
        assert (own["sha256"], own["metrics"], own["signed"]) == (step.record.sha256, step.record.metrics, True)
        assert own["code"] == {"code": COMMIT, "requirements.lock": LOCK_DIGEST, "image": IMAGE}
        versions = {d["name"]: d["facets"]["version"]["datasetVersion"] for d in event["inputs"]}
        assert versions == {f"digits/{i.name}": i.sha256 for i in step.record.inputs}
        assert event["outputs"][0]["facets"]["version"]["datasetVersion"] == step.record.content
        assert event["producer"] == PRODUCER
    given = found["digits.finetune"]["run"]["facets"]["executionParameters"]["parameters"]
    assert {"key": "finetune.learning_rate", "value": "0.003"} in given
    raw = next(d for d in found["digits.validate"]["inputs"] if d["name"] == "digits/raw")
    assert [file["sha256"] for file in raw["facets"]["graftline_files"]["files"]] == [file.sha256 for file in RAW]
    publish = found["digits.publish"]
    assert publish["run"]["facets"]["graftline_release"]["manifest"] == facts.release.manifest
    assert publish["run"]["facets"]["graftline_release"]["metrics"] == METRICS
    assert len(publish["inputs"]) == 4


class Receiver(BaseHTTPRequestHandler):
    received: list[dict[str, Any]]
    status = 201

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append({"path": self.path, "headers": dict(self.headers), "event": json.loads(body)})
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[tuple[str, type[Receiver]]]:
    handler = type("Handler", (Receiver,), {"received": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api/v1/lineage", handler
        server.shutdown()
        thread.join()


def test_events_are_posted_in_order_with_the_key(
    facts: Facts, receiver: tuple[str, type[Receiver]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, handler = receiver
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "key-of-the-tests")
    assert send(events(facts), url) == 10
    assert [one["event"] for one in handler.received] == list(events(facts))
    assert {one["path"] for one in handler.received} == {"/api/v1/lineage"}
    assert {one["headers"]["Authorization"] for one in handler.received} == {"Bearer key-of-the-tests"}


def test_a_receiver_that_refuses_ends_the_command_with_its_status(
    facts: Facts, receiver: tuple[str, type[Receiver]]
) -> None:
    url, handler = receiver
    handler.status = 422
    with pytest.raises(GraftlineError, match="event 1: HTTP 422"):
        send(events(facts), url)
    with pytest.raises(InputError, match="expected an http:// or https:// address"):
        send(events(facts), "file:///etc/passwd")
    with pytest.raises(GraftlineError, match=r"event 1: .*refused"):
        send(events(facts), "http://127.0.0.1:1/")
