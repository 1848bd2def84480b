"""Folders between the pipeline's step and the pods of its job, by way of the store: they share no disk.

    handover/<run>/<component>/in.<input>.<its record's sha256>...    bundles: one an input
    handover/<run>/<component>/out.<output>...                        one for the output
    handover/<run>/<component>/note.<what>                            empty: what its launchers note for each other

Each folder goes as it is, with its record, and is verified by that record where it arrives.
"""

from __future__ import annotations

from pathlib import Path

from graftline.durable import output_directory
from graftline.records import Record, verify
from graftline.store import Store, check_key
from graftline.store.bundles import Source, delete_all, get_bundle, list_bundles, put_bundle


class Handover:
    """What one step of one run hands over. Raises InputError for a run's name that is no key of a store."""

    def __init__(self, store: Store, run: str, component: str) -> None:
        self._store = store
        self.prefix = check_key(f"handover/{run}/{component}")
        self._checkpoints = f"checkpoints/{run}/{component}"

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

    def clear(self) -> None:
        """Remove everything that was handed over, and the checkpoints, which nobody goes on from any more."""
        delete_all(self._store, self._checkpoints)
        delete_all(self._store, self.prefix)

    def _get(self, name: str, folder: Path) -> Record:
        with output_directory(folder) as aside:
            get_bundle(self._store, self.prefix, name, aside)
            return verify(aside)


def _files(folder: Path) -> dict[str, Source]:
    return {path.relative_to(folder).as_posix(): Source(path) for path in folder.rglob("*") if path.is_file()}
