"""Pools of machines and their prices: pipelines/profiles.yaml."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from graftline.environment import ROOT
from graftline.errors import InputError, nearest
from graftline.params import Params, parse
from graftline.yamlfile import load_yaml

PROFILES = ROOT / "pipelines/profiles.yaml"


class Profile(Params):
    """One pool: processors with `cores`, or accelerators with a peak."""

    cores: int | None = Field(default=None, ge=1, le=4096)
    """CPU cores that compute; null for a pool of accelerators."""
    accelerator: str | None = Field(default=None, min_length=1, max_length=100)
    """The accelerator's name."""
    count: int = Field(default=1, ge=1, le=65_536)
    """Accelerators that train one model together."""
    memory_gib: float = Field(gt=0)
    """Memory of one accelerator, or of a machine without, in GiB."""
    peak_tflops: float | None = Field(default=None, gt=0)
    """Dense bf16 peak of one accelerator, in 10**12 operations a second."""
    utilisation: float = Field(default=0.35, gt=0, le=1)
    """Share of the peak that a training step reaches."""
    least_step_ms: float = Field(default=0.0, ge=0)
    """Least time of a step, in milliseconds."""
    price_per_hour: float = Field(ge=0)
    """Of the whole pool, in USD."""
    spot: bool = False
    """Whether the pool may be taken away: then a run takes longer than planned, and resumes."""

    @model_validator(mode="after")
    def _one_kind(self) -> Profile:
        if (self.cores is None) == (self.accelerator is None):
            raise ValueError("give either cores or accelerator")
        if (self.accelerator is None) != (self.peak_tflops is None):
            raise ValueError("peak_tflops goes with accelerator")
        return self


class _Document(Params):
    profiles: dict[str, Profile] = Field(min_length=1)


def load_profiles(path: Path = PROFILES) -> dict[str, Profile]:
    """Return the pools by name, in the file's order. Raises InputError."""
    return parse(load_yaml(path), _Document, where=str(path)).profiles


def choose(profiles: dict[str, Profile], name: str | None) -> dict[str, Profile]:
    """Return the one pool of that name, or all of them for None. Raises InputError."""
    if name is None:
        return profiles
    if name not in profiles:
        raise InputError(
            f"--profile {name}", f"no such profile{nearest(name, list(profiles))}",
            expected="one of " + ", ".join(profiles), fix=f"add it to {PROFILES.relative_to(ROOT)}",
        )  # fmt: skip
    return {name: profiles[name]}
