"""What the tests of TrainJobs share: a job, and a launch of it in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from kubernetes_server import Backend, serve

from graftline.kubernetes_api import Kubernetes
from graftline.pipelines.trainjob import follow as follow_module
from graftline.pipelines.trainjob.cluster import Cluster
from graftline.pipelines.trainjob.follow import Launch
from graftline.pipelines.trainjob.handover import Handover
from graftline.pipelines.trainjob.manifest import Job
from graftline.profiles import Pod, Retries
from graftline.store.opening import open_store

IMAGE = "registry.example/graftline/train@sha256:" + "1" * 64
RUN = "0123456789abcdef" * 4
POD = Pod(nodes=2, retries=Retries(limit=1, preemptions=3, backoff_seconds=7))
JOB = Job(
    run=RUN,
    task="digits",
    component="pretrain",
    image=IMAGE,
    pod=POD,
    arguments=["--store", "s3://bucket/place", "--", "pretrain"],
    environment={"GRAFTLINE_RUN": RUN},
)


class Launcher:
    """A launch in a thread of its own, with what it says and how long it wanted to sleep."""

    store = ""
    """Where all of a test's launchers hand over."""

    def __init__(self, url: str, job: Job = JOB) -> None:
        from kubernetes import client

        configuration = client.Configuration(host=url)
        configuration.retries = False
        self.said: list[str] = []
        self.slept: list[float] = []
        api = Cluster(Kubernetes(client.ApiClient(configuration)), "graftline", pause_seconds=0.01)

        def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            time.sleep(0.02)

        handover = Handover(open_store(self.store), job.run, job.component)
        self.launch = Launch(api, job, handover, say=self.said.append, look_seconds=0.5, sleep=sleep)
        self.code: int | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.code = self.launch.run()
        except BaseException as error:  # noqa: BLE001  (shown by `end`)
            self.error = error

    def end(self) -> int:
        self._thread.join(60)
        assert not self._thread.is_alive(), self.said
        if self.error:
            raise self.error
        assert self.code is not None
        return self.code


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def url(backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Launcher, "store", str(tmp_path / "hand-over"))
    monkeypatch.setattr(follow_module, "_AGAIN_SECONDS", 0.05)
    with serve(backend) as address:
        yield address


def attempt(backend: Backend, number: int) -> str:
    """Wait for an attempt's job; return its name."""
    name = replace(JOB, attempt=number).name
    backend.wait_for(lambda: name in backend.jobs)
    return name
