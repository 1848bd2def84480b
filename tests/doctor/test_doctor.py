"""`graftline doctor`: a healthy cluster passes; each way of making it wrong is named by its own row and no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cluster_api import Api, Doctor, ended, waiting
from healthy_cluster import WORKFLOW_DEFAULTS, secret

from graftline.errors import InputError


def test_a_healthy_cluster_passes(doctor: Doctor) -> None:
    code, points = doctor()
    assert {name: point for name, point in points.items() if point["state"] != "ok"} == {}
    assert code == 0
    assert len(points) > 35
