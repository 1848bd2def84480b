"""What stands between a container and a step, as Kubeflow's launcher does; the container engine mounts this file.

    python launcher.py LOG COMMAND...

It passes on and keeps (LOG) what the command says, and ends with 1 however the command failed. On SIGTERM it dies at
once, and with it, a moment later, the container: in that moment the step, signalled too, has no reader left. So it was
recorded, 0.05 to 0.9 s.

Only the standard library: it runs in whatever image the step has.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

LIVES_SECONDS = (0.05, 0.9)


def main(log: str, *command: str) -> None:
    """Run the command and exit with 0 or 1."""
    # In a group of its own, as argoexec starts what it runs: a signal reaches the step once.
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    assert child.stdout
    said = child.stdout.fileno()

    def die(number: int, _: FrameType | None) -> None:
        os.close(said)
        child.send_signal(number)
        time.sleep(random.uniform(*LIVES_SECONDS))  # noqa: S311  (no secret)
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, die)
    with Path(log).open("wb") as kept:
        while data := os.read(said, 65_536):
            os.write(1, data)
            kept.write(data)
            kept.flush()
    sys.exit(1 if child.wait() else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
