"""What a worker process does at its start. This module is light: a worker may need nothing else."""

from __future__ import annotations

import os
import threading
from multiprocessing import parent_process


def die_with_parent() -> None:
    """End this worker process when its parent ends, however that ends."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
