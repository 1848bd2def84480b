"""OpenLineage events (https://openlineage.io/spec/2-0-2/OpenLineage.json): one run a record, one for the release.

A record holds no time, so that equal work has equal records: each event carries the time of the release. A run's id
follows from its record's digest, so sending the same events again changes nothing at the receiver.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from typing import Any

from graftline import __version__
from graftline.canonical import canonical_json
from graftline.errors import GraftlineError, InputError
from graftline.exports.facts import Facts, StoredRecord
from graftline.exports.values import parameters, uuid_of
from graftline.records.model import Dependency

PRODUCER = f"https://graftline.dev/{__version__}"
NAMESPACE = "graftline"
_SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/"
_FACETS = "https://openlineage.io/spec/facets/"
_TIMEOUT = 30.0
"""Seconds that a receiver may take for one event."""
_MODELS = ("trunk", "model", "release")


def events(facts: Facts) -> Iterator[dict[str, Any]]:
    """Yield the events of the whole chain, inputs first: START and COMPLETE of each run."""
    for step in facts.steps:
        run = {"runId": str(uuid_of("record", step.record.sha256)), "facets": _run_facets(step)}
        job = _job(step.record.task, step.record.component)
        inputs = [_input(step.record.task, given) for given in step.record.inputs]
        yield from _pair(facts.release.created, run, job, inputs, [_output(step)])
    yield from _release_events(facts)


def lines(found: Iterable[dict[str, Any]]) -> bytes:
    """Return events as JSON Lines."""
    return b"".join(canonical_json(event) + b"\n" for event in found)


def send(found: Iterable[dict[str, Any]], url: str) -> int:
    """POST each event to `url`, such as http://HOST:5000/api/v1/lineage; return how many there were.

    $OPENLINEAGE_API_KEY, if set, goes with them as a bearer token, as OpenLineage's own clients do it.

    Raises:
        InputError: the url is none of http.
        GraftlineError: the receiver refuses an event, or does not answer.
    """
    if not url.startswith(("http://", "https://")):
        raise InputError("--to", url, expected="an http:// or https:// address")
    headers = {"Content-Type": "application/json", "User-Agent": f"graftline/{__version__}"}
    if key := os.environ.get("OPENLINEAGE_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    count = 0
    for count, event in enumerate(found, start=1):
        request = urllib.request.Request(url, canonical_json(event), headers, method="POST")  # noqa: S310  (http and https only)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310  (http and https only)
                answer.read()
        except urllib.error.HTTPError as error:
            said = error.read(300).decode("utf-8", "replace").strip()
            raise GraftlineError(f"{url}: event {count}: HTTP {error.code} {said}".rstrip()) from None
        except OSError as error:
            raise GraftlineError(f"{url}: event {count}: {getattr(error, 'reason', error)}") from None
    return count


def _pair(
    at: str, run: dict[str, Any], job: dict[str, Any], inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    for kind in ("START", "COMPLETE"):
        yield {
            "eventType": kind,
            "eventTime": at,
            "producer": PRODUCER,
            "schemaURL": f"{_SPEC}RunEvent",
            "run": run,
            "job": job,
            "inputs": inputs,
            "outputs": outputs,
        }


def _release_events(facts: Facts) -> Iterator[dict[str, Any]]:
    """Yield the run of publish: its record is beside its own output, but the manifest says what went in."""
    release, task = facts.release, facts.release.task
    named = {
        "manifest": release.manifest,
        "version": release.version,
        "content": release.digest,
        "compared_with": facts.manifest["compared_with"],
        "metrics": facts.manifest["metrics"],
    }
    run = {
        "runId": str(uuid_of("manifest", release.manifest)),
        "facets": {"graftline_release": _own("RunFacet", named), **_engine()},
    }
    inputs = [
        _dataset(task, name, step.record.content, {"graftline_record": _own("DatasetFacet", {"sha256": digest})})
        for name, step, digest in ((n, s, s.record.sha256) for n, s in sorted(facts.named.items()))
    ]
    output = _dataset(task, "release", release.digest, {})
    sizes = {"size": sum(file.size for file in facts.files), "fileCount": len(facts.files)}
    output["outputFacets"] = {"outputStatistics": _facet("1-0-2", "OutputStatisticsOutputDatasetFacet", sizes)}
    yield from _pair(release.created, run, _job(task, "publish"), inputs, [output])


def _job(task: str, component: str) -> dict[str, Any]:
    kind = {"processingType": "BATCH", "integration": "GRAFTLINE", "jobType": "TASK"}
    return {
        "namespace": NAMESPACE,
        "name": f"{task}.{component}",
        "facets": {"jobType": _facet("2-0-4", "JobTypeJobFacet", kind)},
    }


def _run_facets(step: StoredRecord) -> dict[str, Any]:
    record = step.record
    own = {
        "sha256": record.sha256,
        "signed": step.envelope is not None,
        "metrics": record.metrics,
        "environment": record.environment,
        "code": record.what_ran,
        "parameters": record.parameters,
    }
    given = [{"key": name, "value": value} for name, value in sorted(parameters(step).items())]
    facet = _facet("1-0-0", "ExecutionParametersRunFacet", {"parameters": given})
    return {"graftline_record": _own("RunFacet", own), "executionParameters": facet, **_engine()}


def _engine() -> dict[str, Any]:
    version = {"version": __version__, "name": "graftline"}
    return {"processing_engine": _facet("1-1-1", "ProcessingEngineRunFacet", version)}


def _input(task: str, given: Dependency) -> dict[str, Any]:
    """Return a dependency as a dataset: its digest is the version, and its files are listed where they are known."""
    own: dict[str, Any] = {}
    if given.record:
        own["graftline_record"] = _own("DatasetFacet", {"sha256": given.record})
    if given.files:
        own["graftline_files"] = _own("DatasetFacet", {"files": [file.as_dict() for file in given.files]})
    return _dataset(task, given.name, given.sha256, own)


def _output(step: StoredRecord) -> dict[str, Any]:
    record = step.record
    own = {"graftline_record": _own("DatasetFacet", {"sha256": record.sha256})}
    output = _dataset(record.task, record.name, record.content, own)
    sizes: dict[str, Any] = {"size": sum(file.size for file in record.files), "fileCount": len(record.files)}
    if isinstance(rows := record.metrics.get("rows"), int):
        sizes["rowCount"] = rows
    output["outputFacets"] = {"outputStatistics": _facet("1-0-2", "OutputStatisticsOutputDatasetFacet", sizes)}
    return output


def _dataset(task: str, name: str, digest: str, own: dict[str, Any]) -> dict[str, Any]:
    kind = {"datasetType": "MODEL" if name in _MODELS else "FILE"}
    facets = {
        "version": _facet("1-0-1", "DatasetVersionDatasetFacet", {"datasetVersion": digest}),
        "datasetType": _facet("1-0-1", "DatasetTypeDatasetFacet", kind),
    }
    return {"namespace": NAMESPACE, "name": f"{task}/{name}", "facets": facets | own}


def _facet(version: str, name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return one of the specification's facets."""
    return {"_producer": PRODUCER, "_schemaURL": f"{_FACETS}{version}/{name}.json#/$defs/{name}", **values}


def _own(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return a facet of ours: the specification's base facet, which may hold any further property."""
    return {"_producer": PRODUCER, "_schemaURL": f"{_SPEC}{kind}", **values}
