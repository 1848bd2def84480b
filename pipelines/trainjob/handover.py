"""Folders between the pipeline's step and the pods of its job, by way of the store: they share no disk.

    handover/<run>/<component>/in.<input>.<its record's sha256>...    bundles: one an input
    handover/<run>/<component>/out.<output>...                        one for the output
    handover/<run>/<component>/note.<what>                            empty: what its launchers note for each other
    handover/<run>/<component>/heartbeat.json                         changes while a launcher follows the job

Each folder goes as it is, with its record, and is verified by that record where it arrives. What a run leaves when it
ends otherwise than well is swept by whoever closes the run.
"""

from __future__ import annotations

import os
from pathlib import Path

from graftline.durable import output_directory
from graftline.records import Record, verify
from graftline.store import MissingError, Store, check_key
from graftline.store.bundles import Source, delete_all, get_bundle, list_bundles, put_bundle
from graftline.store.documents import json_bytes, stored_json
from graftline.training.remote import forget

SILENT_SECONDS = 300.0
"""How long the heartbeat may be silent before a job's pods end: a launcher whose node was lost is back within it. One
beats ten times as often."""


def silent_seconds() -> float:
    """Return `SILENT_SECONDS`, or what GRAFTLINE_SILENT_SECONDS says instead."""
    return float(os.environ.get("GRAFTLINE_SILENT_SECONDS") or SILENT_SECONDS)


def sweep(store: Store, run: str) -> None:
    """Remove what the steps of a run handed over; the run has ended, and its checkpoints stay for the next one."""
    delete_all(store, f"handover/{run}")


class Handover:
    """What one step of one run hands over. Raises InputError for a run's name that is no key of a store."""

    def __init__(self, store: Store, run: str, component: str) -> None:
        self._store, self._run, self._component = store, run, component
        self.prefix = check_key(f"handover/{run}/{component}")

    def put_input(self, folder: Path) -> str:
        """Store a verified input; return the name of its bundle. One that is there already is not stored again."""
        record = verify(folder)
        name = f"in.{record.name}.{record.sha256}"
        if name not in list_bundles(self._store, self.prefix):
            put_bundle(self._store, self.prefix, name, _files(folder))
        return name

    def get_input(self, name: str, folder: Path) -> Record:
        """Make `folder` from a bundle. Raises InputError if it is not what its record says."""
        return self._get(name, folder)

    def put_output(self, folder: Path) -> None:
        """Store a whole output; one of an earlier attempt that is there already stands."""
        put_bundle(self._store, self.prefix, f"out.{verify(folder).name}", _files(folder))

    def get_output(self, output: str, folder: Path) -> Record:
        """Make `folder` from the output of that name. Raises MissingError, InputError."""
        return self._get(f"out.{output}", folder)

    def note(self, what: str) -> None:
        """Note `what` for every launcher of this step."""
        self._store.put_if_absent(self.note_key(what), b"")

    def noted(self, what: str) -> bool:
        """Return whether a launcher of this step has noted `what`."""
        return self.note_key(what) in self._store.list(self.note_key(what))

    def note_key(self, what: str) -> str:
        """Return where a note is in the store."""
        return f"{self.prefix}/note.{what}"

    def beat(self) -> None:
        """Say that a launcher follows the job."""
        found = stored_json(self._store, self._heartbeat)
        count, tag = (found[0]["count"], found[1]) if found else (0, None)
        self._store.replace(
            self._heartbeat, json_bytes({"count": count + 1}), tag
        )  # False: another one said it

    def last_beat(self) -> str:
        """Return what changes with each beat; "" if there was none, or the run has ended."""
        try:
            return self._store.get(self._heartbeat).tag
        except MissingError:
            return ""

    @property
    def _heartbeat(self) -> str:
        return f"{self.prefix}/heartbeat.json"

    def clear(self) -> None:
        """Remove everything that was handed over, and the checkpoints, which nobody goes on from any more."""
        forget(self._store, self._run, f"checkpoints/{self._component}")
        delete_all(self._store, self.prefix)

    def _get(self, name: str, folder: Path) -> Record:
        with output_directory(folder) as aside:
            get_bundle(self._store, self.prefix, name, aside)
            return verify(aside)


def _files(folder: Path) -> dict[str, Source]:
    return {path.relative_to(folder).as_posix(): Source(path) for path in folder.rglob("*") if path.is_file()}
