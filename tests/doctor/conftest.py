"""What the tests of `graftline doctor` share: a cluster to make wrong, and the command against it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "store"))

from cluster_api import Api, Doctor, serve
from healthy_cluster import healthy
from servers import moto_endpoint, moto_url

from graftline import settings
from graftline.cli import doctor as command

__all__ = ["moto_endpoint", "moto_url"]


@pytest.fixture
def cluster() -> Api:
    """A healthy one; a test makes it wrong before it asks."""
    return healthy()


@pytest.fixture
def address(cluster: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The cluster is that of kubectl's context."""
    with serve(cluster) as url:
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": url}}],
            "users": [{"name": "test", "user": {}}],
        }
        (tmp_path / "kubeconfig").write_text(json.dumps(document))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        yield url


@pytest.fixture
def doctor(cluster: Api, address: str, moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Run `graftline doctor --json`; return its exit code and the points by name."""
    from typer.testing import CliRunner

    from graftline.cli.app import app

    data = cluster.find("ConfigMap", "graftline-settings")["data"]
    if data.get("GRAFTLINE_STORE") == settings.load_settings().store:
        data["GRAFTLINE_STORE"] = moto_url

    def ask(*arguments: str, **changes: Any) -> tuple[int, dict[str, dict[str, Any]]]:
        changed = settings.load_settings().model_copy(update=changes)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(command, "load_settings", lambda: changed)
            done = CliRunner().invoke(
                app, ["doctor", "--json", "--store", moto_url, "--endpoint", f"{address}/kfp", *arguments]
            )
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        said = json.loads(done.stdout)["points"]
        points = {point["name"]: point for point in said}
        assert len(points) == len(said), "two points of one name"
        return done.exit_code, points

    return ask
