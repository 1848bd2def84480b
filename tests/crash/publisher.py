"""One publisher, quick to start, for a test that kills it: publisher.py STORE FILES WORK. Silent when it
succeeds."""

from __future__ import annotations

import sys
from pathlib import Path

from graftline.component import fail, from_os_error
from graftline.digests import FileDigest, digest_files, sha256_bytes
from graftline.errors import GraftlineError
from graftline.releases.publishing import ReleaseDraft, open_publication, publish
from graftline.signing.envelope import STATEMENT_TYPE, seal
from graftline.signing.keyring import load_keyring
from graftline.store.opening import open_store

BEFORE = b"the old model"
CHAMPION = {"version": 1, "digest": digest_files([FileDigest("model.safetensors", len(BEFORE), sha256_bytes(BEFORE))])}
"""Version 1 in the store, of this one file: what the publisher's model was compared with."""


def draft(files: Path, compared_with: dict[str, object] | None = CHAMPION) -> ReleaseDraft:
    record, lock = b'{"of": "the model"}', b"a==1"
    return ReleaseDraft(
        task="digits",
        files={path.name: path for path in sorted(files.iterdir())},
        records={"model": record},
        metrics={"accuracy": 0.97},
        compared_with=compared_with,
        envelopes={"model": seal(record, STATEMENT_TYPE, load_keyring().signer())},
        locks={sha256_bytes(lock): lock},
        identity=sha256_bytes(b"".join(path.read_bytes() for path in sorted(files.iterdir()))),
    )


if __name__ == "__main__":
    url, folder, work = sys.argv[1:]
    to_release = draft(Path(folder))
    try:
        publish(open_store(url), to_release, open_publication(Path(work), to_release))
    except GraftlineError as error:  # both as the component's entry point does
        sys.exit(fail("publisher", error))
    except OSError as error:
        sys.exit(fail("publisher", from_os_error(error)))
