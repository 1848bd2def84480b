"""The `graftline` command. Each command's own module imports what it needs only when it runs."""

from __future__ import annotations

import io
import sys

import typer

from graftline.cli import keys, ledger
from graftline.cli.compile import compile_pipeline
from graftline.cli.diff import diff
from graftline.cli.doctor import doctor
from graftline.cli.embed import embed
from graftline.cli.erase import erase
from graftline.cli.evidence import evidence
from graftline.cli.export import export
from graftline.cli.fetch import fetch
from graftline.cli.impact import impact
from graftline.cli.import_data import import_data
from graftline.cli.index import index
from graftline.cli.plan import plan
from graftline.cli.predict import predict
from graftline.cli.reconcile import drift, reconcile
from graftline.cli.releases import releases, rollback
from graftline.cli.reproduce import reproduce
from graftline.cli.run import run
from graftline.cli.schema import schema
from graftline.cli.submit import submit
from graftline.cli.trace import trace
from graftline.cli.ui import ui
from graftline.cli.verify import verify
from graftline.errors import GraftlineError

app = typer.Typer(
    name="graftline",
    help="Retrain pretrained models, and prove where every model came from.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("run")(run)
app.command("plan")(plan)
app.command("predict")(predict)
app.command("embed")(embed)
app.command("releases")(releases)
app.command("fetch")(fetch)
app.command("rollback")(rollback)
app.command("import")(import_data)
app.command("compile")(compile_pipeline)
app.command("submit")(submit)
app.command("reconcile")(reconcile)
app.command("drift")(drift)
app.command("doctor")(doctor)
app.command("schema")(schema)
for question in (trace, impact, verify, diff, reproduce, erase, evidence, export, index, ui):
    app.command(question.__name__, rich_help_panel="Lineage and audit")(question)
app.add_typer(keys.app, name="keys", rich_help_panel="Lineage and audit")
app.add_typer(ledger.app, name="ledger", rich_help_panel="Lineage and audit")


def main() -> None:
    """Run the command and exit: 0 done, 2 bad input, 3 refused, 75 try again, 130 interrupted, 1 otherwise."""
    from graftline.component import fail, from_os_error

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what is printed is UTF-8, whatever the locale
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        app()
    except GraftlineError as error:
        sys.exit(fail("graftline", error))
    except OSError as error:
        sys.exit(fail("graftline", from_os_error(error)))
    except KeyboardInterrupt:
        sys.exit(130)
