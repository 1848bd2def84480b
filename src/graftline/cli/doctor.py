"""`graftline doctor`: is the cluster as Graftline needs it?"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from graftline.cli.stores import ENDPOINT, STORE_OF_CLUSTER
from graftline.doctor import capacity, namespace, platform, reach
from graftline.doctor.cluster import Cluster, examine
from graftline.doctor.points import Point, exit_code
from graftline.images import load_images
from graftline.kubernetes_api import connect
from graftline.profiles import parse_choices, placement
from graftline.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def doctor(
    profiles: Annotated[
        list[str] | None,
        typer.Option(
            "--profile",
            metavar="[STEP=]NAME",
            help="ask for runs with this pool, as `graftline submit` would; repeatable",
        ),
    ] = None,
    store: Annotated[str, STORE_OF_CLUSTER] = "",
    endpoint: Annotated[str, ENDPOINT] = "",
    no_pod: Annotated[bool, typer.Option("--no-pod", help="start no pod in the cluster")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Ask the cluster of kubectl's current context what a run needs; say what was found, what is needed, what to do.

    It changes nothing but for one key in the store and one or two pods that live for seconds; both are removed.
    Exit codes: 0 all is as needed (notes say what works and is less than it could be); 2 a point is wrong, or an
    essential one could not be looked at, or the cluster does not answer.
    """
    settings = load_settings()
    cluster = Cluster(
        connect(),
        settings,
        store or settings.store,
        placement(parse_choices(profiles or [])),
        load_images(),
        endpoint,
        0.0 if no_pod else Cluster.wait_seconds,
    )
    checks = (
        *platform.CHECKS,
        *namespace.CHECKS,
        *capacity.CHECKS,
        reach.STORE,
        *(reach.NO_POD if no_pod else reach.POD),
    )
    looks = examine(cluster, checks)
    points = list(looks if as_json else _shown(looks))
    if as_json:
        _print_json(points)
    else:
        counted = sum(point.counts for point in points)
        typer.echo(f"{len(points)} points, {counted} wrong" if counted else f"{len(points)} points, none wrong")
    raise typer.Exit(exit_code(points))


def _shown(points: Iterable[Point]) -> Iterator[Point]:
    """Print each point as soon as it is known: what, found, needed, what to do."""
    for point in points:
        bad = point.state not in ("ok", "skipped")
        more = [f"needed: {point.needed}"] if bad and point.needed else []
        more += [f"do: {point.do}"] if bad and point.do else []
        typer.echo(f"{point.state:8}{point.name:26} {'; '.join([point.found, *more])}")
        yield point


def _print_json(points: list[Point]) -> None:
    rows = [asdict(point) | {"counts": point.counts} for point in points]
    typer.echo(json.dumps({"points": rows, "wrong": sum(point.counts for point in points)}, indent=2))
