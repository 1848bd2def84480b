"""Serve a site on this machine: read-only, from the standard library's server.

What a page in a browser may do with it is narrowed twice: by the headers of each answer, and by refusing requests that
name another host, which is how a foreign page would reach it through a name that it controls (DNS rebinding).
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

from graftline import __version__
from graftline.errors import InputError
from graftline.ui.site import FRAME_POLICY, Answer, Site

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_LONGEST = 2000
"""Characters of an address; any that a page links to is shorter."""
_FOREIGN = ("cross-site", "same-site")


class Server(ThreadingHTTPServer):
    """Serves one site. `serve_forever` until `shutdown`; `server_close` frees the port."""

    daemon_threads = True

    def __init__(self, site: Site, host: str, port: int) -> None:
        self.site = site
        self.asked_for = host.lower()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise _refused(host, port, error) from None
        except OverflowError:
            raise InputError("--port", str(port), expected="0 to 65535") from None

    def server_bind(self) -> None:
        """Bind without looking up this machine's name, which can take long where there is no network."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that went away; of anything else, what http.server says."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        name = self.asked_for if not self.is_open else str(host)
        return f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/"

    @property
    def is_open(self) -> bool:
        """Whether other machines can reach it."""
        return not ipaddress.ip_address(str(self.server_address[0])).is_loopback

    def knows(self, host: str) -> bool:
        """Return whether a Host header names this server: as it was asked for, or by an address, which nobody else
        can make a name point at. The port is not compared: it differs behind a tunnel."""
        name = host.lower().rsplit(":", 1)[0] if not host.endswith("]") else host.lower()
        name = name.removeprefix("[").removesuffix("]")
        if name in ("localhost", self.asked_for):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or self.is_open


def _refused(host: str, port: int, error: OSError) -> InputError:
    if error.errno == errno.EADDRINUSE:
        return InputError("--port", f"{port} is in use on {host}", fix="give another one, or --port 0 for any")
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return InputError("--host", f"{host!r} is no address of this machine", fix="leave it out for this machine only")
    return InputError("--port", f"{port} on {host}: {(error.strerror or str(error)).lower()}", fix="give another one")


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version = f"graftline/{__version__}"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a connection may be silent

    def do_GET(self) -> None:
        answer = self._answer()
        self._send(answer, answer.data)

    def do_HEAD(self) -> None:
        self._send(self._answer(), b"")

    def _answer(self) -> Answer:
        if not self.server.knows(self.headers.get("Host", "")):
            return _plain(421, "this server does not answer to that host name\n")
        if len(self.path) > _LONGEST:
            return _plain(414, "the address is too long\n")
        try:
            parts = urlsplit(self.path)
        except ValueError:  # such as http://[
            return _plain(400, "that is no address\n")
        query = dict(parse_qsl(parts.query, max_num_fields=20)) if parts.query.count("&") < 20 else {}
        if query and self.headers.get("Sec-Fetch-Site") in _FOREIGN:
            return _plain(403, "a page of another site may not ask this\n")
        path = unquote(parts.path).removeprefix("/")
        return self.server.site.answer(path, query)

    def _send(self, answer: Answer, body: bytes) -> None:
        self.send_response(answer.status)
        for name, value in {**_HEADERS, **_framing(answer)}.items():
            self.send_header(name, value)
        if answer.location is not None:
            self.send_header("Location", "/" + answer.location)
        if answer.status == 405:
            self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Type", answer.media_type)
        self.send_header("Content-Length", str(len(answer.data)))
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what http.server refuses itself, such as other methods, without markup."""
        self.close_connection = True
        answer = (
            _plain(405, "this server answers GET and HEAD only\n") if code == 501 else _plain(code, "bad request\n")
        )
        self._send(answer, b"" if self.command == "HEAD" else answer.data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep quiet: the terminal shows the address, and what matters is on the page."""


def _plain(status: int, text: str) -> Answer:
    return Answer(text.encode(), "text/plain; charset=utf-8", status)


def _framing(answer: Answer) -> Mapping[str, str]:
    """Return who may show the answer in a frame: nobody, but for the report, which this site's own pages show."""
    if answer.policy == FRAME_POLICY:
        return {"Content-Security-Policy": f"{answer.policy}; frame-ancestors 'self'", "X-Frame-Options": "SAMEORIGIN"}
    return {"Content-Security-Policy": f"{answer.policy}; frame-ancestors 'none'", "X-Frame-Options": "DENY"}
