"""The store in an S3 bucket, by conditional writes: `If-None-Match: *` and `If-Match` on PutObject.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html: 412 means that the race is
lost, 409 that the upload is to be tried again. The retries are ours, not botocore's: its own would turn the
success of a try whose answer was lost into the 412 of the next. After such a try the outcome is settled by
reading back.
"""

from __future__ import annotations

import base64
import hashlib
import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from graftline.errors import GraftlineError, InputError
from graftline.store import MissingError, Stat, Stored, check_key, check_prefix

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from botocore.loaders import Loader
    from mypy_boto3_s3 import S3Client

ATTEMPTS = 6
"""Tries of one request before the store counts as out of reach."""
BACKOFF_SECONDS = 0.2
"""Longest pause after the first failed try; it doubles with each."""
MAX_OBJECT = 5 << 30
"""The most bytes that one PutObject takes."""
PART_BYTES = 8 << 20
"""What one request of a stream asks for."""

_WRITER = "graftline-write"
_MISSING = {"NoSuchKey", "404", "NotFound"}
_REFUSED = {
    "AccessDenied", "403", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken",
    "InvalidToken", "NoSuchBucket", "MethodNotAllowed", "PermanentRedirect", "AuthorizationHeaderMalformed",
    "QuotaExceeded", "InvalidBucketName",
}  # fmt: skip
_LOG_IN = "log in again, such as with `aws sso login`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_FIXES = {
    "ExpiredToken": _LOG_IN,
    "RequestTimeTooSkewed": "set this machine's clock: it differs from the server's by more than 15 minutes",
    "PermanentRedirect": "set AWS_REGION to the bucket's region",
    "AuthorizationHeaderMalformed": "set AWS_REGION to the bucket's region",
}
_AGAIN = {
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "BadDigest",
    "IncompleteBody",
}

Result = TypeVar("Result")


class S3Store:
    """A store under `prefix` in `bucket`; see `graftline.store.Store` for the promises.

    The endpoint, the region and the credentials come from where boto3 looks for them (AWS_ENDPOINT_URL,
    AWS_*).
    """

    def __init__(
        self, bucket: str, prefix: str, *, backoff: float = BACKOFF_SECONDS, read_timeout: float = 60.0
    ) -> None:
        self.bucket, self.prefix, self.backoff = bucket, prefix, backoff
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._client = _make_client(self.url, read_timeout)
        endpoint = urlsplit(self._client.meta.endpoint_url)
        self._endpoint = f"{endpoint.scheme}://{endpoint.netloc.rpartition('@')[2]}"  # a user name is not shown
        amazon = (endpoint.hostname or "").endswith(".amazonaws.com")
        self.identity = self.url if amazon else f"{self.url} at {self._endpoint}"

    @classmethod
    def from_url(cls, url: str) -> S3Store:
        """Return the store at `s3://bucket/prefix`. Raises InputError if it names no plain bucket."""
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        if not bucket or "@" in bucket or ":" in bucket:
            raise InputError("--store", "an s3 url without a plain bucket name", expected="s3://bucket/prefix")
        return cls(bucket, check_prefix(prefix).rstrip("/"))

    def get(self, key: str) -> Stored:
        name = self._name(key)

        def request() -> Stored:
            answer = self._client.get_object(Bucket=self.bucket, Key=name)
            with closing(answer["Body"]) as body:
                # Without its quotes: Ceph compares If-Match with the bare tag, the others take both forms.
                return Stored(body.read(), answer["ETag"].strip('"'))

        return self._tried("read", key, request)

    def download(self, key: str, path: Path) -> None:
        name = self._name(key)

        def request() -> None:
            answer = self._client.get_object(Bucket=self.bucket, Key=name)
            with closing(answer["Body"]) as body, path.open("wb") as file:
                for chunk in body.iter_chunks(1 << 20):
                    file.write(chunk)

        self._tried("read", key, request)

    def put_if_absent(self, key: str, content: bytes | Path) -> bool:
        outcome = self._put(key, _Upload.of(content), IfNoneMatch="*")
        return outcome.stored or self._holds(key, content)

    def replace(self, key: str, data: bytes, tag: str | None) -> bool:
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        writer = uuid.uuid4().hex
        outcome = self._put(key, _Upload.of(data), Metadata={_WRITER: writer}, **condition)
        # A refusal after a try without an answer may be due to that very try.
        return outcome.stored or (outcome.doubtful and self._writer(key) == writer)

    def list(self, prefix: str) -> list[str]:
        start = f"{self.prefix}/" if self.prefix else ""

        def request() -> list[str]:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=start + check_prefix(prefix)
            )
            return [entry["Key"].removeprefix(start) for page in pages for entry in page.get("Contents", [])]

        return sorted(self._tried("list", prefix, request))

    def delete(self, key: str) -> None:
        name = self._name(key)
        self._tried("delete", key, lambda: self._client.delete_object(Bucket=self.bucket, Key=name))

    def stat(self, key: str) -> Stat:
        name = self._name(key)

        def request() -> Stat:
            answer = self._client.head_object(Bucket=self.bucket, Key=name)
            return Stat(answer["ContentLength"], answer["ETag"].strip('"'))

        return self._tried("read", key, request)

    def stream(self, key: str) -> Iterator[bytes]:
        name, found = self._name(key), self.stat(key)

        def part(start: int) -> bytes:
            end = min(start + PART_BYTES, found.size) - 1
            answer = self._client.get_object(
                Bucket=self.bucket, Key=name, Range=f"bytes={start}-{end}", IfMatch=found.tag
            )
            with closing(answer["Body"]) as body:
                return body.read()

        for start in range(0, found.size, PART_BYTES):
            yield self._tried("read", key, partial(part, start))

    def local_path(self, key: str) -> Path | None:
        return None

    def _name(self, key: str) -> str:
        return f"{self.prefix}/{check_key(key)}" if self.prefix else check_key(key)

    def _put(self, key: str, upload: _Upload, **condition: Any) -> _Outcome:
        """Upload under a condition, again while the outcome is unknown or a conflict is reported."""
        name, outcome = self._name(key), _Outcome()
        if upload.size > MAX_OBJECT:
            raise InputError(
                f"store {self.url}", f"{key} has {upload.size} bytes", expected=f"at most {MAX_OBJECT}", fix="shard it"
            )

        def request() -> None:
            try:
                with upload.opened() as body:
                    self._client.put_object(
                        Bucket=self.bucket,
                        Key=name,
                        Body=body,
                        ContentLength=upload.size,
                        ChecksumSHA256=upload.checksum,
                        **condition,
                    )
                outcome.stored = True
            except Exception as error:
                # 412, and 404 for an If-Match on a key that is not there.
                if _code(error) not in {"PreconditionFailed", "412", *_MISSING}:
                    outcome.doubtful = outcome.doubtful or not _certainly_not_done(error)
                    raise

        self._tried("write", key, request)
        return outcome

    def _holds(self, key: str, content: bytes | Path) -> bool:
        """Return whether `key` holds exactly `content`."""
        expected = _Upload.of(content)
        name = self._name(key)

        def request() -> bool:
            answer = self._client.get_object(Bucket=self.bucket, Key=name)
            with closing(answer["Body"]) as body:
                if answer["ContentLength"] != expected.size:
                    return False
                digest = hashlib.sha256()
                for chunk in body.iter_chunks(1 << 20):
                    digest.update(chunk)
            return digest.digest() == expected.sha256

        return self._tried("read", key, request)

    def _writer(self, key: str) -> str | None:
        """Return which call of `replace` wrote what `key` holds."""
        name = self._name(key)
        try:
            return self._tried(
                "read", key, lambda: self._client.head_object(Bucket=self.bucket, Key=name)["Metadata"].get(_WRITER)
            )
        except MissingError:
            return None

    def _tried(self, verb: str, key: str, request: Callable[[], Result]) -> Result:
        """Return what `request` returns, trying again after faults that may pass.

        Raises MissingError, InputError for what trying again cannot mend, GraftlineError when the tries are
        used up.
        """
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            ConnectionError,
            HTTPClientError,
            IncompleteReadError,
        )

        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                pause = min(5.0, self.backoff * 2 ** (attempt - 1))
                time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  (spreads clients, no secret)
            try:
                return request()
            except ClientError as error:
                reason = self._reason(error, verb, key)
            except (ConnectionError, HTTPClientError, IncompleteReadError) as error:
                reason = type(error).__name__
            except BotoCoreError as error:  # it never reached the server: credentials or settings
                raise _not_asked(self.url, error) from None
            except OSError as error:  # the local file, or a socket that broke while it was read
                if error.filename is not None:
                    raise
                reason = type(error).__name__
        raise GraftlineError(
            f"store {self.url}: cannot {verb} {key or 'keys'}: {self._endpoint} did not serve it in "
            f"{ATTEMPTS} tries ({reason}); check that the endpoint runs and can be reached, then run again"
        )

    def _reason(self, error: ClientError, verb: str, key: str) -> str:
        """Return the code of an error that may pass; raise for one that stays. No server text is repeated."""
        code = _code(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _MISSING and verb == "read":
            raise MissingError(self.url, key) from None
        if status < 500 and status != 409 and code not in _AGAIN:
            found = f"cannot {verb} {key or 'keys'}: {code}"
            refused = code in _REFUSED or status == 403
            fix = _FIXES.get(code, "check the bucket's name, its policy and the credentials" if refused else "")
            raise InputError(f"store {self.url}", found, fix=fix) from None
        return str(code)


@dataclass
class _Outcome:
    """How an upload ended: stored, refused (not stored), and whether a try's outcome is unknown."""

    stored: bool = False
    doubtful: bool = False


@dataclass(frozen=True)
class _Upload:
    """The bytes to upload and what the server checks them against."""

    content: bytes | Path
    size: int
    sha256: bytes

    @classmethod
    def of(cls, content: bytes | Path) -> _Upload:
        if isinstance(content, bytes):
            return cls(content, len(content), hashlib.sha256(content).digest())
        with content.open("rb") as file:
            return cls(content, content.stat().st_size, hashlib.file_digest(file, "sha256").digest())

    @property
    def checksum(self) -> str:
        return base64.b64encode(self.sha256).decode()

    @contextmanager
    def opened(self) -> Iterator[bytes | IO[bytes]]:
        if isinstance(self.content, bytes):
            yield self.content
        else:
            with self.content.open("rb") as file:
                yield file


def _make_client(url: str, read_timeout: float) -> S3Client:
    """Return a client without retries of its own. It signs the body, so that every server verifies it."""
    import boto3
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        connect_timeout=5,
        read_timeout=read_timeout,
        retries={"total_max_attempts": 1},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"payload_signing_enabled": True},
    )
    try:
        session = botocore.session.get_session()
        session.register_component("data_loader", _services(session.get_config_variable("data_path")))
        return boto3.session.Session(botocore_session=session).client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise _not_asked(url, error) from None


@cache
def _services(path: str | None) -> Loader:
    """Return what botocore knows of S3: a megabyte of JSON, which each session would parse again, in 0.1 s."""
    from botocore.loaders import create_loader

    return create_loader(path)


def _not_asked(url: str, error: Exception) -> InputError:
    """Return what to do about a request that was never sent; the library's text may hold secrets."""
    from botocore import exceptions as boto

    name = type(error).__name__
    login = (
        boto.SSOError,
        boto.LoginError,
        boto.TokenRetrievalError,
        boto.NoAuthTokenError,
        boto.CredentialRetrievalError,
        boto.RefreshWithMFAUnsupportedError,
        boto.MetadataRetrievalError,
    )
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError)):
        return InputError(
            f"store {url}", "no credentials", fix="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if isinstance(error, login):
        return InputError(f"store {url}", f"the AWS login is missing or ran out ({name})", fix=_LOG_IN)
    return InputError(f"store {url}", f"the AWS settings do not work ({name})", fix="check AWS_* and AWS's config file")


def _code(error: Exception) -> str:
    """Return the S3 error code, or an empty string for another kind of error."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _certainly_not_done(error: Exception) -> bool:
    """Return whether the server said itself that it did nothing: an answer in the 400s."""
    response = getattr(error, "response", None)
    return isinstance(response, dict) and response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) < 500
