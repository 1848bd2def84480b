"""Checkpoints: a ledger's size and root at one moment, signed, to be kept where its store cannot reach.

A checkpoint is a C2SP tlog-checkpoint (https://c2sp.org/tlog-checkpoint), a signed note
(https://c2sp.org/signed-note) of one signature of type 0x02: ECDSA on P-256 with SHA-256, DER, over the text.

    graftline.dev/ledger/5f2c...        the origin: the sha256 of the first entry, so of this ledger and no other
    17                                  how many entries
    CsUYapGGPo4dkMgIAUqom/...           the root over them (RFC 6962), base64

    \N{EM DASH} graftline.dev/ledger/5f2c... Az3grl...      key name (the origin), base64 of key hash and signature

The key hash of an ECDSA key is the first 4 bytes of the sha256 of its SubjectPublicKeyInfo: of our key id.
One line says the same: origin, size, root and signature with spaces between.
"""

from __future__ import annotations

import base64
import contextlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from graftline.digests import sha256_bytes
from graftline.durable import write_atomic
from graftline.errors import InputError
from graftline.ledger.chain import Chain
from graftline.ledger.entries import BrokenLedgerError
from graftline.signing.keyring import keys_folder, load_keyring

if TYPE_CHECKING:
    from graftline.ledger.log import Ledger
    from graftline.signing.keys import Signer

ORIGIN = "graftline.dev/ledger/"
HASH_BYTES = 4
_HEAD = rf"({ORIGIN}[0-9a-f]{{64}})%s([1-9][0-9]{{0,8}})%s([A-Za-z0-9+/]{{43}}=)%s"
_TEXT = re.compile(_HEAD % ("\n", "\n", "\n"))
_DASH = "\N{EM DASH}"
_LINE = re.compile(_HEAD % (" ", " ", " ") + "([A-Za-z0-9+/]{8,1024}={0,2})")


@dataclass(frozen=True)
class TreeHead:
    """The head of a ledger at one moment."""

    origin: str
    size: int
    """How many entries there were; at least 1."""
    root: bytes
    """The root over them."""
    key_hash: bytes
    """The first 4 bytes of the id of the key that signed."""
    signature: bytes
    """DER, over `text`."""

    @property
    def text(self) -> str:
        """What the signature is over."""
        return f"{self.origin}\n{self.size}\n{_encoded(self.root)}\n"

    @property
    def note(self) -> str:
        """The signed note."""
        return f"{self.text}\n{_DASH} {self.origin} {_encoded(self.key_hash + self.signature)}\n"

    @property
    def line(self) -> str:
        """The same in one line, of which every character is ASCII."""
        root, signature = _encoded(self.root), _encoded(self.key_hash + self.signature)
        return f"{self.origin} {self.size} {root} {signature}"


def origin_of(chain: Chain | Ledger) -> str:
    """Return what names this ledger and no other. Raises InputError if it has no entry."""
    if not chain.entries:
        raise InputError(chain.url, "the ledger has no entry", expected="at least one", fix="release a model first")
    return ORIGIN + sha256_bytes(chain.entries[0].data)


def make_checkpoint(ledger: Ledger, signer: Signer | None = None) -> TreeHead:
    """Return the head of the ledger, signed; by the keyring's signer if none is given.

    Raises:
        InputError: the ledger has no entry.
        RefusalError: the ledger does not trust the signer's key.
    """
    signer = signer or load_keyring().signer()
    ledger.check_signer(signer.keyid)
    return sign_head(ledger, signer)


def sign_head(ledger: Ledger, signer: Signer) -> TreeHead:
    """Return the head of the ledger, signed by whoever saw it. Raises InputError if the ledger has no entry."""
    head = head_of(ledger)
    key_hash = bytes.fromhex(signer.keyid)[:HASH_BYTES]
    return replace(head, key_hash=key_hash, signature=signer.sign(head.text.encode()))


def parse_checkpoint(text: str, *, where: object = "checkpoint") -> TreeHead:
    """Return the checkpoint that a note or its one line is. Its signature is not checked here.

    Raises:
        InputError: it is not one.
    """
    line = text.strip()
    if "\n" in line:  # the note: its signature line repeats the origin
        words = line.replace(f"\n\n{_DASH} ", "\n", 1).split("\n")
        line = " ".join([*words[:3], *words[3].split(" ")[1:]]) if len(words) == 4 else ""
    match = _LINE.fullmatch(line)
    found = None
    if match:
        try:
            root, signed = (base64.b64decode(part, validate=True) for part in match.group(3, 4))
            found = TreeHead(match[1], int(match[2]), root, signed[:HASH_BYTES], signed[HASH_BYTES:])
        except ValueError:
            found = None
    if found is None or text.strip() not in (found.line, found.note.strip()):
        raise InputError(where, "not a checkpoint of a ledger", expected="what `graftline ledger checkpoint` printed")
    return found


def head_of(chain: Chain | Ledger) -> TreeHead:
    """Return the head of a ledger without a signature. Raises InputError if it has no entry."""
    return TreeHead(origin_of(chain), len(chain.entries), chain.tree.root(), b"", b"")


def check_checkpoint(checkpoint: TreeHead, chain: Chain | Ledger, *, where: object = "checkpoint") -> None:
    """Raise BrokenLedgerError unless the ledger begins with what was seen, and one of its keys signed that."""
    check_head(checkpoint, chain, where=where)
    keys = [key for key in chain.trust.keys.values() if bytes.fromhex(key.keyid)[:HASH_BYTES] == checkpoint.key_hash]
    valid = [key for key in keys if chain.trust.state(key.keyid, checkpoint.size + 1) == "valid"]
    if not any(key.verify(checkpoint.text.encode(), checkpoint.signature) for key in valid):
        raise BrokenLedgerError(
            where,
            "its signature is not one of a key that the ledger trusted then",
            expected=f"that of {', '.join(key.keyid for key in valid) or 'a trusted key'}",
            fix="the checkpoint was changed: take another copy of it",
        )


def check_head(checkpoint: TreeHead, chain: Chain | Ledger, *, where: object = "checkpoint") -> None:
    """Raise BrokenLedgerError unless the ledger begins with what was seen, whoever signed it."""
    if not chain.entries:
        raise _broken(where, chain, "the ledger is empty", f"{checkpoint.size} entries")
    if origin_of(chain) != checkpoint.origin:
        raise _broken(where, chain, f"another ledger, {origin_of(chain)}", checkpoint.origin)
    if checkpoint.size > len(chain.entries):
        raise _broken(
            where, chain, f"{len(chain.entries)} entries; the rest was cut off", f"at least {checkpoint.size}"
        )
    root = chain.tree.root(checkpoint.size)
    if root != checkpoint.root:
        raise _broken(
            where,
            chain,
            f"root {root.hex()} over its first {checkpoint.size} entries; they were rewritten",
            checkpoint.root.hex(),
        )


def check_seen(chain: Chain, store: str) -> None:
    """Raise BrokenLedgerError unless the ledger begins with what was remembered here, if anything was.

    Args:
        store: the store's identity.

    Raises:
        InputError: the file that remembers it cannot be read.
    """
    try:
        path = seen_path(store)
    except InputError:  # a user without a home has no keys, and remembers nothing
        return
    if last := seen(store):
        try:
            check_head(last, chain, where=f"what was seen here before ({path})")
        except BrokenLedgerError as error:
            fix = f"the ledger was changed: restore it; if it is meant to be another, delete {path}"
            raise BrokenLedgerError(error.where, error.found, expected=error.expected, fix=fix) from None


def seen(store: str) -> TreeHead | None:
    """Return the last head of the ledger of the store of this identity that was remembered; it has no signature.

    Raises:
        InputError: the file that remembers it cannot be read.
    """
    path = seen_path(store)
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        text = ""
    if match := _TEXT.fullmatch(text):
        return TreeHead(match[1], int(match[2]), base64.b64decode(match[3]), b"", b"")
    raise InputError(path, "not what was seen of a ledger", fix="delete it, and verify against a kept checkpoint")


def remember(store: str, checkpoint: TreeHead) -> None:
    """Keep a head that was verified, unless a later one of the same ledger is kept already.

    It needs no signature: whoever can change it here can change the keys beside it.
    """
    known = seen(store)
    if known is None or known.origin != checkpoint.origin or known.size < checkpoint.size:
        with contextlib.suppress(OSError):  # keys that are mounted read-only
            write_atomic(seen_path(store), checkpoint.text.encode())


def seen_path(store: str) -> Path:
    """Return where the last head of the store of this identity is remembered: beside the keys, not beside the store."""
    return keys_folder() / "seen" / f"{sha256_bytes(store.encode())}.txt"


def _broken(where: object, chain: Chain | Ledger, found: str, expected: str) -> BrokenLedgerError:
    return BrokenLedgerError(
        f"{chain.url}/ledger, against {where}",
        found,
        expected=expected,
        fix="the ledger was changed: restore it from a backup",
    )


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
