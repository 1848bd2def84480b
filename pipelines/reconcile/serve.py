"""Call reconcile whenever something is due: the process of the Deployment graftline-reconcile.

    python -m graftline.pipelines.reconcile.serve --checkout DIR [--revision main] [--store URL]
    python -m graftline.pipelines.reconcile.serve --healthy

Of several such processes one leads: it holds a lease in the store, and 30 s after it dies the next one does. It looks
at git every minute and reconciles, in a process of its own so that this one stays small: at its start, when a commit
or a slot has come, after a failure, and every ten minutes in any case. With a new commit it starts itself anew.
Kubeflow's token is read for each reconcile from the file that $GRAFTLINE_KFP_TOKEN_FILE names: it changes by the hour.

`--healthy` ends with 0 if the process has turned its loop in the last two minutes. That git cannot be reached does not
make it ill: its slots go on at the commit that it has.
Exit codes: 0 it was told to stop, 2 bad input, 1 anything else.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from graftline.component import exits
from graftline.errors import GraftlineError
from graftline.store.lease import SERVE, Lease, LeaseLostError
from graftline.store.opening import open_store

LOOK, ANYWAY, AGAIN = timedelta(minutes=1), timedelta(minutes=10), timedelta(seconds=45)
"""Between two looks at git; between two reconciles at most; after one that has left something to do."""
IDLE_SECONDS, ILL_SECONDS = 10.0, 120.0
GIT_SECONDS, RECONCILE_SECONDS, STOP_SECONDS = 120.0, 900.0, 15.0
"""After which a child is told to stop, and after being told so killed."""
ALIVE = Path("/tmp/graftline-reconcile-alive")  # noqa: S108  (a pod's own)
TOKEN_FILE, HOLDER = "GRAFTLINE_KFP_TOKEN_FILE", "GRAFTLINE_SERVE_HOLDER"
RECONCILE = (sys.executable, "-m", "graftline.cli", "reconcile", "--backend", "kubeflow")


class Server:
    """The loop."""

    def __init__(
        self, checkout: Path, revision: str, store: str, alive: Path, command: tuple[str, ...] = RECONCILE
    ) -> None:
        """Follow `revision` of the origin of `checkout`; `alive` is touched at every turn."""
        self._checkout, self._revision, self._alive, self._command = checkout, revision, alive, command
        self._holder = os.environ.get(HOLDER) or uuid.uuid4().hex
        self._lease = Lease(open_store(store), SERVE, self._holder)
        self._stop = threading.Event()

    def run(self) -> None:
        """Serve until SIGTERM."""
        signal.signal(signal.SIGTERM, lambda number, frame: self._stop.set())
        while not self._stop.is_set():
            try:
                if self._lease.acquire(_now()):
                    with self._lease.renewed():
                        self._lead()
                self._alive.touch()
            except LeaseLostError:
                _say("another one leads")
            except (GraftlineError, OSError) as error:
                _say(str(error))
            self._stop.wait(IDLE_SECONDS)

    def _lead(self) -> None:
        _say(f"leads at {self._git('rev-parse', 'HEAD')[1][:12]}")
        looked, due = datetime.min.replace(tzinfo=UTC), _now()
        while not self._stop.is_set():
            self._lease.check(_now())
            self._alive.touch()
            if _now() >= looked + LOOK:
                if self._follow():
                    self._start_anew()
                looked = _now()
            if _now() >= due:
                due = self._reconcile()
            wait = min(due, looked + LOOK) - _now()
            self._stop.wait(min(IDLE_SECONDS, max(0.0, wait.total_seconds())))

    def _follow(self) -> bool:
        """Bring the checkout to the newest commit; return whether that is another one."""
        before = self._git("rev-parse", "HEAD")
        fetched, line = self._git("fetch", "--quiet", "origin", self._revision)
        if fetched == 0:
            fetched, line = self._git("reset", "--quiet", "--hard", "FETCH_HEAD")
        if fetched:
            _say(f"git: {line}")
        return before != self._git("rev-parse", "HEAD")

    def _start_anew(self) -> None:
        """Go on with the code of the new commit, under the same lease."""
        _say(f"goes on with {self._git('rev-parse', 'HEAD')[1][:12]}")
        os.environ[HOLDER] = self._holder
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606

    def _reconcile(self) -> datetime:
        """Reconcile; return when to do so again."""
        began = _now()
        environment = dict(os.environ)
        if path := environment.get(TOKEN_FILE):
            environment["GRAFTLINE_KFP_TOKEN"] = Path(path).read_text(encoding="utf-8").strip()
        code, said = self._child(list(self._command), RECONCILE_SECONDS, environment)
        sys.stdout.write(said)
        sys.stdout.flush()
        again = _now() + AGAIN if code or "\nwaits " in f"\n{said}" else began + ANYWAY
        return min([again, *self._slots(began)])

    def _slots(self, after: datetime) -> list[datetime]:
        """Return the next slot of each schedule."""
        from graftline.pipelines.reconcile.schedules import load_schedules, next_slot  # pydantic: not for the probe

        try:
            schedules = load_schedules(self._checkout / "pipelines/schedules.yaml").values()
        except GraftlineError:
            return []  # reconcile has said so
        found = [next_slot(schedule, after) for schedule in schedules if not schedule.paused]
        return [slot for slot in found if slot is not None]

    def _git(self, *arguments: str) -> tuple[int, str]:
        """Return git's exit code and last line."""
        code, said = self._child(["git", "-C", str(self._checkout), *arguments], GIT_SECONDS, dict(os.environ))
        return code, (said.splitlines() or [""])[-1]

    def _child(self, command: list[str], seconds: float, environment: dict[str, str]) -> tuple[int, str]:
        """Run a command; return exit code and output. It is told to stop when this process is, or after `seconds`."""
        end, told = time.monotonic() + seconds, False
        with subprocess.Popen(
            command,
            cwd=self._checkout,
            env=environment,
            encoding="utf-8",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as child:
            lines: list[str] = []
            assert child.stdout is not None
            reader = threading.Thread(target=lambda: lines.extend(child.stdout or ()), daemon=True)
            reader.start()
            while reader.is_alive():
                reader.join(1.0)
                self._alive.touch()
                late = time.monotonic() - end
                if late > 0 and told:
                    child.kill()
                elif (self._stop.is_set() or late > 0) and not told:
                    child.terminate()
                    end, told = time.monotonic() + STOP_SECONDS, True
            return child.wait(), "".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m graftline.pipelines.reconcile.serve", description="Call reconcile whenever something is due."
    )
    parser.add_argument("--checkout", type=Path, default=Path.cwd(), help="a clone with its whole history")
    parser.add_argument("--revision", default=os.environ.get("GRAFTLINE_REVISION", "main"), help="of origin")
    parser.add_argument("--store", default=os.environ.get("GRAFTLINE_STORE", ""), help="where releases live")
    parser.add_argument("--alive", type=Path, default=ALIVE, help="touched at every turn")
    parser.add_argument("--healthy", action="store_true", help="end with 0 if the process turns")
    given = parser.parse_args(argv)
    if given.healthy:
        sys.exit(0 if given.alive.exists() and time.time() - given.alive.stat().st_mtime < ILL_SECONDS else 1)
    from graftline.settings import load_settings

    with exits("serve"):
        store = given.store or load_settings(given.checkout / "pipelines/settings.yaml").store
        Server(given.checkout, given.revision, store, given.alive).run()


def _now() -> datetime:
    return datetime.now(UTC)


def _say(line: str) -> None:
    print(f"serve: {line}", flush=True)


if __name__ == "__main__":
    main()
