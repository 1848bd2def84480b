"""The server: reads only, answers to its own name only, ends when it is told to."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from page_sites import Shown, site_of

from graftline.cli.ui import ui
from graftline.errors import InputError
from graftline.ui.server import Server


def ask(shown: Shown, method: str = "GET", path: str = "/", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(urlsplit(shown.url).netloc, timeout=20)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def contents(store: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path(store).rglob("*")) if path.is_file()}


def test_only_get_and_head_are_answered_and_nothing_is_written(plain: Shown) -> None:
    before = contents(plain.store.url)
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        response, body = ask(plain, method, "/index.html")
        assert (response.status, response.getheader("Allow")) == (405, "GET, HEAD")
        assert body == b"this server answers GET and HEAD only\n"
    got, page = ask(plain, "GET", "/release/digits/8.html?verify=1")
    assert got.status == 200 and page
    head, nothing = ask(plain, "HEAD", "/index.html")
    assert head.status == 200 and nothing == b"" and int(head.getheader("Content-Length") or 0) > 1000
    assert contents(plain.store.url) == before


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("127.0.0.1:9", 200), ("[::1]:80", 200), ("LOCALHOST:1", 200), ("evil.example", 421),
        ("127.0.0.1.evil.example", 421), ("10.0.0.1", 421), ("localhost.evil.example:80", 421), ("", 421),
    ],
)  # fmt: skip
def test_a_request_that_names_another_host_is_refused(plain: Shown, host: str, status: int) -> None:
    response, body = ask(plain, path="/index.html", Host=host)
    assert response.status == status
    assert (b"digits" in body) == (status == 200)


def test_each_answer_carries_the_policy(plain: Shown) -> None:
    for path in ("/", "/nothing", "/static/graph.js", "/files/digits/8/confusion.png"):
        response, _ = ask(plain, path=path)
        policy = response.getheader("Content-Security-Policy") or ""
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert response.getheader("X-Content-Type-Options") == "nosniff"
        assert response.getheader("Cache-Control") == "no-store"
    framed, _ = ask(plain, path="/files/digits/7/report.html")
    policy = framed.getheader("Content-Security-Policy") or ""
    assert policy.startswith("default-src 'none'") and "sandbox" in policy and "frame-ancestors 'self'" in policy


def test_a_foreign_page_cannot_start_work_or_read_beyond_the_site(plain: Shown) -> None:
    response, _ = ask(plain, path="/release/digits/8.html?verify=1", Sec_Fetch_Site="cross-site")
    assert response.status == 403
    for path in ("/static/%2e%2e/site.py", "/../../etc/passwd", "//etc/passwd", "/%00", "/" + "a" * 3000):
        response, body = ask(plain, path=path)
        assert response.status in (400, 404, 414) and b"root:" not in body and b"def " not in body


@pytest.mark.parametrize("address", ["http://[", "http://[::1", "http://]/index.html"])
def test_what_is_no_address_is_answered_with_400(
    plain: Shown, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", urlsplit(plain.url).port or 0), timeout=20) as connection:
        connection.sendall(f"GET {address} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400 "), answer[:200]
    assert "Traceback" not in capsys.readouterr().err


def test_a_port_in_use_is_one_clear_line(plain: Shown) -> None:
    port = urlsplit(plain.url).port
    assert port
    with pytest.raises(InputError, match=rf"--port: {port} is in use on 127.0.0.1; give another one") as caught:
        ui(store=plain.store.url, port=port, host="127.0.0.1", export=None, newest=200, outputs=None)
    assert caught.value.exit_code == 2
    with pytest.raises(InputError, match=r"--host: 'no\.such\.host\.invalid' is no address of this machine"):
        Server(plain.site, "no.such.host.invalid", 0)


def test_a_server_open_to_others_says_so_and_knows_addresses_not_names(plain: Shown) -> None:
    with Server(plain.site, "0.0.0.0", 0) as server:
        assert server.is_open
        assert server.knows("192.168.1.7:8765") and server.knows("localhost") and not server.knows("evil.example")
    with Server(site_of(plain.store), "localhost", 0) as server:
        assert not server.is_open and server.url == f"http://localhost:{server.server_address[1]}/"


def test_the_command_prints_where_it_is_and_ends_in_order(plain: Shown) -> None:
    code = "import typer; from graftline.cli.ui import ui; typer.run(ui)"
    command = [sys.executable, "-c", code, "--store", plain.store.url, "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        url = next(word for word in line.split() if word.startswith("http://127.0.0.1:"))
        with socket.create_connection((urlsplit(url).hostname or "", urlsplit(url).port or 0), timeout=20) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.recv(20).startswith(b"HTTP/1.1 200")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stdout.read() == "stopped\n" and process.stderr.read() == ""


def test_the_command_exports(plain: Shown, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "site"
    ui(store=plain.store.url, port=0, host="127.0.0.1", export=out, newest=1, outputs=tmp_path)
    assert f"in {out}: open {out}/index.html" in capsys.readouterr().out
    assert (out / "release/digits/8.html").is_file()
