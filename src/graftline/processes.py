"""What a process does at its start. This module is light: a worker may need nothing else."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_MANY = 100
"""Modules: so many were not worth a look at all that lives."""


@contextmanager
def importing() -> Iterator[None]:
    """Within, Python does not look for garbage; what lives at the end it will not look at again.

    A library's import makes a million objects for good. Going through them again and again as they come was a fifth of
    the time that torch takes to load.
    """
    there, heeding = len(sys.modules), gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) - there > _MANY:
            gc.freeze()
        if heeding:
            gc.enable()


def die_with_parent() -> None:
    """End this worker process when its parent ends, however that ends."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
