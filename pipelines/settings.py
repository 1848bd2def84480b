"""What the compiled pipelines are told besides the task: pipelines/settings.yaml."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from graftline.environment import ROOT
from graftline.tasks.parameters import Params, parse
from graftline.yamlfile import load_yaml

SETTINGS = ROOT / "pipelines/settings.yaml"


class Settings(Params):
    """A fork's own addresses, and how runs are kept in the cluster."""

    repository: str = Field(min_length=1)
    """Where a cluster clones the data's pointers from; the versions' `codeSourceURL`."""
    store: str = Field(min_length=1)
    """Where releases live."""
    region: str = ""
    """Of the store; "" where its service has none."""
    namespace: str = "graftline"
    """Of the runs."""
    multi_user: bool = True
    """Whether Kubeflow Pipelines is a multi-user installation: what is made there lies in `namespace`."""
    service_account: str = "graftline-run"
    """Of the runs' pods."""
    store_secret: str = "graftline-store"  # noqa: S105  (the name of one)
    """Kubernetes secret with the store's credentials."""
    signing_secret: str = "graftline-signing"  # noqa: S105
    """Kubernetes secret with the keyring that the stages sign with (docs/cluster.md)."""
    git_secret: str = "graftline-git"  # noqa: S105
    """Kubernetes secret with `token`, to clone a private repository over https; it may be missing."""
    user: int = Field(default=10001, ge=1)
    """The images' user and group."""
    ttl_days: int = Field(default=7, ge=1, le=3650)
    """How long a finished run's pods stay in the cluster."""
    deadline_hours: int = Field(default=72, ge=1, le=24 * 365)
    """A run that takes longer is stopped."""
    checkpoint_seconds: float = Field(default=30.0, ge=1, le=3600)
    """Between the checkpoints of a stage that trains in a pod of the run's: a cancelled one lives under a second, so
    this is what it may lose. A TrainJob's pods have time for a last checkpoint."""

    @property
    def api_namespace(self) -> str:
        """The namespace that Kubeflow's API is called with; "" for a standalone installation."""
        return self.namespace if self.multi_user else ""


def load_settings(path: Path = SETTINGS) -> Settings:
    """Return the settings. Raises InputError."""
    return parse(load_yaml(path), Settings, where=str(path))
