"""`graftline ui`: look at models, releases and their lineage in a browser."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from threading import Thread
from typing import Annotated

import typer

from graftline.cli.shown import counting
from graftline.cli.stores import STORE, open_given
from graftline.environment import ROOT
from graftline.index.opening import open_index
from graftline.ui.export import export
from graftline.ui.server import Server
from graftline.ui.site import Site


def ui(
    store: Annotated[str, STORE] = "",
    port: Annotated[int, typer.Option("--port", help="0 for any that is free")] = 8765,
    host: Annotated[
        str, typer.Option("--host", help="where to listen; anything but this machine shows the store to others")
    ] = "127.0.0.1",
    export: Annotated[
        Path | None, typer.Option("--export", metavar="DIR", help="write the pages as files instead of serving")
    ] = None,
    newest: Annotated[
        int, typer.Option("--newest", metavar="N", min=1, help="releases of a task that are listed and exported")
    ] = 200,
    outputs: Annotated[
        Path | None, typer.Option("--outputs", metavar="DIR", help="of runs on this machine, for their reports")
    ] = None,
) -> None:
    """Serve pages over the store's index: models, releases, lineage, what changed, what data reached. Read-only."""
    site = _site(store, outputs, newest)
    if export is not None:
        _export(site, export)
        return
    with counting("indexing") as advance:
        open_index(site.store, progress=advance).close()
    with Server(site, host, port) as server:
        _serve(server)


def _site(store: str, outputs: Path | None, newest: int) -> Site:
    opened = open_given(store)
    folder = outputs or ROOT / "outputs"
    return Site(
        opened, lambda: open_index(opened), folders=(folder,) if folder.is_dir() else (), repository=ROOT, newest=newest
    )


def _serve(server: Server) -> None:
    """Serve until Ctrl-C or SIGTERM, which both end it in order."""

    def stop(*_: object) -> None:
        Thread(target=server.shutdown).start()  # from this thread it would wait for itself

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if server.is_open:
        print("other machines can reach this server and read the store through it", file=sys.stderr)
    print(f"{server.site.store.url} on {server.url}  (Ctrl-C ends it)", flush=True)
    server.serve_forever(poll_interval=0.2)
    print("stopped")


def _export(site: Site, out: Path) -> None:
    with counting("indexing") as advance:
        open_index(site.store, progress=advance).close()
    with counting("writing pages") as advance:
        count = export(site, out, advance)
    print(f"{count} pages of {site.store.url} in {out}: open {out / 'index.html'}")
