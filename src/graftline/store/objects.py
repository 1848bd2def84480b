"""Objects in S3 under any key, as other programs wrote them: listed, and fetched whole. Nothing is written.

The store's client, retries and errors; its keys are stricter (`graftline.store.check_key`), for it writes them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import IO

from graftline.errors import InputError
from graftline.store.s3 import S3Store

RANGE_BYTES = 8 << 20
"""Bytes of one request."""
_MD5 = re.compile("[0-9a-f]{32}")
_KEYED = ("aws:kms", "aws:kms:dsse")
"""Encryptions under which an etag is no MD5."""


@dataclass(frozen=True)
class Object:
    """One object, as it was listed."""

    url: str
    """`s3://bucket/key`."""
    name: str
    """Its key without the prefix; of an object that is the prefix itself, the last part of its key."""
    size: int
    """Bytes."""
    etag: str
    """What the server calls this version of it."""


def list_objects(url: str, where: str) -> list[Object]:
    """Return the objects at `s3://bucket/prefix` or `s3://bucket/key`, sorted by name; markers of folders are left out.

    `where` is what an error calls the url's place. Raises InputError: there is no such bucket, or S3 refuses.
    """
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not bucket or "@" in bucket or ":" in bucket:
        raise InputError(
            where, "an s3 url without a plain bucket name", expected="s3://bucket/prefix or s3://bucket/key"
        )
    prefix = prefix.rstrip("/")
    found = []
    for key, size, etag in _Bucket(bucket, "").objects(prefix):
        inside = key == prefix or not prefix or key.startswith(f"{prefix}/")
        if inside and not key.endswith("/"):
            name = key.removeprefix(f"{prefix}/") if key != prefix else key.rpartition("/")[2]
            found.append(Object(f"s3://{bucket}/{key}", name, size, etag))
    found.sort(key=lambda one: one.name)
    for one, other in pairwise(found):
        if one.name == other.name:  # an object that is the prefix itself, and one of that name below it
            fix = "move one of them, or name a longer prefix"
            raise InputError(where, f"{one.url} and {other.url} are both '{one.name}'", fix=fix)
    return found


def fetch(wanted: Object, file: IO[bytes]) -> str:
    """Write an object to `file`; return its sha256 in hex.

    Raises:
        InputError: it is gone or changed since it was listed, or what came is not what the server has the MD5 of.
        GraftlineError: S3 cannot be reached after the retries.
    """
    bucket, _, key = wanted.url.removeprefix("s3://").partition("/")
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    for data in (store := _Bucket(bucket, "")).ranges(key, wanted):
        sha256.update(data)
        md5.update(data)
        file.write(data)
    file.flush()
    etag = wanted.etag.strip('"')
    if _MD5.fullmatch(etag) and not store.keyed and md5.hexdigest() != etag:
        raise InputError(wanted.url, f"what came has the MD5 {md5.hexdigest()}", expected=etag, fix="start again")
    return sha256.hexdigest()


class _Bucket(S3Store):
    keyed = False
    """Whether what was read last is encrypted so that its etag is no MD5."""

    def objects(self, prefix: str) -> list[tuple[str, int, str]]:
        """Return key, size in bytes and etag of each object whose key starts with `prefix`."""

        def request() -> list[tuple[str, int, str]]:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            return [(o["Key"], o["Size"], o["ETag"]) for page in pages for o in page.get("Contents", [])]

        return self._tried("list", prefix, request)

    def ranges(self, key: str, wanted: Object) -> Iterator[bytes]:
        """Yield an object's content in parts of RANGE_BYTES."""
        for start in range(0, wanted.size, RANGE_BYTES):
            last = min(start + RANGE_BYTES, wanted.size) - 1
            yield self._tried("read", key, partial(self._range, key, wanted, start, last))

    def _range(self, key: str, wanted: Object, first: int, last: int) -> bytes:
        from botocore.exceptions import ClientError

        try:
            answer = self._client.get_object(
                Bucket=self.bucket, Key=key, Range=f"bytes={first}-{last}", IfMatch=wanted.etag
            )
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("PreconditionFailed", "412"):
                raise InputError(wanted.url, "changed since it was listed", fix="start again") from None
            raise
        self.keyed = answer.get("ServerSideEncryption") in _KEYED or "SSECustomerAlgorithm" in answer
        with closing(answer["Body"]) as body:
            return body.read()
