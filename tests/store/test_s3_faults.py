"""Requests whose outcome the client cannot know: the answer was lost, or an error came after the deed."""

from __future__ import annotations

import os

import pytest
from servers import Proxy

from graftline.errors import GraftlineError
from graftline.store.s3 import S3Store

FAULTS = ["drop-before", "drop-after", "500-before", "500-after"]


def through(proxy: Proxy, url: str, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return S3Store(bucket, prefix, backoff=0.01)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_put_of_unknown_outcome_is_settled_by_reading_back(
    s3_url: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy(os.environ["AWS_ENDPOINT_URL"], lambda number: fault if number == 1 else "") as proxy:
        store = through(proxy, s3_url, monkeypatch)
        assert store.put_if_absent("key", b"mine")
        assert proxy.puts == 2
        assert not store.put_if_absent("key", b"another's")
        assert store.get("key").data == b"mine"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_put_after_which_another_won_is_lost(s3_url: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    bucket, _, prefix = s3_url.removeprefix("s3://").partition("/")
    other = S3Store(bucket, prefix)
    other.put_if_absent("key", b"another's")
    with Proxy(endpoint, lambda number: fault if number == 1 else "") as proxy:
        assert not through(proxy, s3_url, monkeypatch).put_if_absent("key", b"mine")
    assert other.get("key").data == b"another's"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_replace_of_unknown_outcome_is_settled_by_who_wrote_last(
    s3_url: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy(os.environ["AWS_ENDPOINT_URL"], lambda number: fault if number == 2 else "") as proxy:
        store = through(proxy, s3_url, monkeypatch)
        assert store.replace("alias", b"1", None)
        tag = store.get("alias").tag
        assert store.replace("alias", b"2", tag)
        assert store.get("alias").data == b"2"
        assert not store.replace("alias", b"2", tag), "equal bytes by another writer are not this writer's"


@pytest.mark.parametrize("fault", ["drop-before", "drop-after", "500-after"])
def test_a_server_that_never_answers_ends_in_one_line(
    moto_url: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy(os.environ["AWS_ENDPOINT_URL"], lambda _: "down" if fault == "drop-before" else fault) as proxy:
        store = through(proxy, moto_url, monkeypatch)
        with pytest.raises(GraftlineError, match=r"cannot write alias: http://127.0.0.1:[0-9]+ did not serve it"):
            store.replace("alias", b"1", None)
