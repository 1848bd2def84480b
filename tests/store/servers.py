"""S3 servers for tests, over a real socket: moto's, a real one if the environment names it, a proxy that
makes faults.

moto checks a condition and stores the object in two steps, so two of its threads can both win a conditional
write (seen with 16 writers a key). Real servers make it one step; here a lock around moto's application
does.
"""

from __future__ import annotations

import http.client
import http.server
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from graftline.store.s3 import _make_client

REAL_URL = os.environ.get("GRAFTLINE_TEST_S3_URL", "")
"""`s3://bucket` on a real server, which the AWS_* variables describe (tools/real-s3 starts one)."""
_AWS = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
_REAL = {name: os.environ[name] for name in _AWS if name in os.environ}
_MOTO = {
    "AWS_ACCESS_KEY_ID": "key-of-the-tests",
    "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextmanager
def moto_server(service: str = "s3") -> Iterator[str]:
    """Run one of moto's services, one request at a time, in a thread; give its endpoint."""
    from moto.server import create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    # moto with all its services would ask of each request which one it is for
    application, lock = create_backend_app(service), threading.Lock()

    def one_at_a_time(environ, start_response):  # type: ignore[no-untyped-def]
        with lock:
            return list(application(environ, start_response))

    server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    with moto_server() as endpoint:
        yield endpoint


@cache
def make_bucket(url: str, endpoint: str) -> None:
    """Make a bucket where AWS_ENDPOINT_URL says, `endpoint`, if it is not there."""
    from botocore.exceptions import ClientError

    try:
        _make_client(url, read_timeout=60).create_bucket(Bucket=url.removeprefix("s3://").partition("/")[0])
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise


@pytest.fixture
def moto_url(moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty store on moto."""
    for name, value in (_MOTO | {"AWS_ENDPOINT_URL": moto_endpoint}).items():
        monkeypatch.setenv(name, value)
    make_bucket("s3://tests", moto_endpoint)
    return f"s3://tests/{uuid.uuid4().hex}"


@pytest.fixture
def real_url(monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty store on the real server."""
    if not REAL_URL:
        pytest.skip("no real S3 server: GRAFTLINE_TEST_S3_URL is not set (tools/real-s3 starts one)")
    for name, value in _REAL.items():
        monkeypatch.setenv(name, value)
    make_bucket(REAL_URL, _REAL.get("AWS_ENDPOINT_URL", ""))
    return f"{REAL_URL.rstrip('/')}/{uuid.uuid4().hex}"


@pytest.fixture(params=["moto", "real"])
def s3_url(request: pytest.FixtureRequest) -> str:
    """An empty store on each S3 server."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture(params=["directory", "moto", "real"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty store on each backend."""
    monkeypatch.setenv("GRAFTLINE_CACHE", str(tmp_path / "cache"))
    if request.param == "directory":
        return str(tmp_path / "store")
    return request.getfixturevalue(f"{request.param}_url")


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256  # many processes connect at once


class Proxy:
    """Passes S3 requests on to `upstream` and makes a fault at some of them.

    `fault(number)` names what happens at the number-th PUT, or request of `methods` (from 1): "" nothing;
    "drop-before" and "500-before" instead of passing it on; "drop-after" and "500-after" in place of the
    answer, once the server performed it;
    "kill-before" and "kill-after" call `kill` there; "down" drops this and every later request of any kind.
    """

    def __init__(
        self,
        upstream: str,
        fault: Callable[[int], str],
        kill: Callable[[], None] = lambda: None,
        *,
        methods: tuple[str, ...] = ("PUT",),
    ) -> None:
        self.fault, self.kill, self.puts, self.down = fault, kill, 0, False
        self.methods, self.counted, self.faults = methods, 0, 0
        self._host = upstream.removeprefix("http://")
        self._lock = threading.Lock()
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                proxy._handle(self)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _any  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        action = ""
        with self._lock:
            self.puts += handler.command == "PUT"
            if handler.command in self.methods:
                self.counted += 1
                action = self.fault(self.counted)
                self.faults += action != ""
            self.down = self.down or action == "down"
        if self.down or action == "drop-before":
            return
        if action == "kill-before":
            self.kill()
            return
        if action == "500-before":
            handler.send_error(500)
            return
        status, headers, answer = self._pass_on(handler, body)
        if action == "kill-after":
            self.kill()
        elif action == "500-after":
            handler.send_error(500)
        elif action != "drop-after":
            handler.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                    handler.send_header(name, value)
            length = dict(headers).get("Content-Length", "0") if handler.command == "HEAD" else str(len(answer))
            handler.send_header("Content-Length", length)
            handler.send_header("Connection", "close")
            handler.end_headers()
            handler.wfile.write(answer)

    def _pass_on(
        self, handler: http.server.BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self._host, timeout=60)
        connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
        for name, value in handler.headers.items():  # the Host that was signed stays
            if name.lower() not in ("connection", "expect"):
                connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        return response.status, response.getheaders(), answer
