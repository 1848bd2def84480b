"""What a process does at its start. This module is light: a worker may need nothing else."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

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


@contextmanager
def later(*names: str) -> Iterator[None]:
    """Within, importing one of these modules gives a stand-in, which loads the module when it is asked for something.

    For libraries that load at their top what hardly anyone of their users needs. (`importlib.util.LazyLoader` does not
    help: in Python 3.11 a second import of the module loads it.)
    """
    standing = {name: _Later(name) for name in names if name not in sys.modules}
    sys.modules.update(standing)
    try:
        yield
    finally:
        for name, module in standing.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


class _Later(ModuleType):
    """Stands for a module that is loaded when an attribute of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what importing asks of each module
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def die_with_parent() -> None:
    """End this worker process when its parent ends, however that ends."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
