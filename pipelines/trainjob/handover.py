"""Folders between the pipeline's step and the pods of its job, by way of the store: they share no disk.

    handover/<run>/<component>/in.<input>.<its record's sha256>...    bundles: one an input
    handover/<run>/<component>/out.<output>...                        one for the output
    handover/<run>/<component>/note.<what>                            empty: what its launchers note for each other
    handover/<run>/<component>/heartbeat.json                         changes while a launcher follows the job

Each folder goes as it is, with its record, and is verified by that record where it arrives. What a run leaves when it
ends otherwise than well is swept by whoever closes the run.
"""

from __future__ import annotations

from pathlib import Path

from graftline.durable import output_directory
from graftline.learning.heartbeat import Heartbeat
from graftline.learning.remote import forget
from graftline.records import Record, verify
from graftline.store import Store, check_key
from graftline.store.bundles import Source, delete_all, get_bundle, list_bundles, put_bundle


def sweep(store: Store, run: str) -> None:
    """Remove what the steps of a run handed over; the run has ended, and its checkpoints stay for the next one."""
    delete_all(store, f"handover/{run}")


class Handover:
    """What one step of one run hands over. Raises InputError for a run's name that is no key of a store."""

    def __init__(self, store: Store, run: str, component: str) -> None:
        self._store, self._run, self._component = store, run, component
        self.prefix = check_key(f"handover/{run}/{component}")
        self.heartbeat = Heartbeat(store, f"{self.prefix}/heartbeat.json")

    def put_input(self, folder: Path) -> str:
        """Store a verified input; return the name of its bundle. One that is there already is not stored again."""
        record = verify(folder)
        name = f"in.{record.name}.{record.sha256}"
        if name not in list_bundles(self._store, self.prefix):
            put_bundle(self._store, self.prefix, name, _files(folder))
        return name

    def get(self, name: str, folder: Path) -> Record:
        """Make `folder` from a bundle. Raises MissingError; InputError if it is not what its record says."""
        with output_directory(folder) as aside:
            get_bundle(self._store, self.prefix, name, aside)
            return verify(aside)

    def put_output(self, folder: Path) -> None:
        """Store a whole output; one of an earlier attempt that is there already stands."""
        put_bundle(self._store, self.prefix, f"out.{verify(folder).name}", _files(folder))

    def get_output(self, output: str, folder: Path) -> Record:
        """Make `folder` from the output of that name. Raises as `get` does."""
        return self.get(f"out.{output}", folder)

    def note(self, what: str) -> None:
        """Note `what` for every launcher of this step."""
        self._store.put_if_absent(self.note_key(what), b"")

    def noted(self, what: str) -> bool:
        """Return whether a launcher of this step has noted `what`."""
        return self.note_key(what) in self._store.list(self.note_key(what))

    def note_key(self, what: str) -> str:
        """Return where a note is in the store."""
        return f"{self.prefix}/note.{what}"

    def clear(self) -> None:
        """Remove everything that was handed over, and the checkpoints, which nobody goes on from any more."""
        forget(self._store, self._run, f"checkpoints/{self._component}")
        delete_all(self._store, self.prefix)


def _files(folder: Path) -> dict[str, Source]:
    return {path.relative_to(folder).as_posix(): Source(path) for path in folder.rglob("*") if path.is_file()}
