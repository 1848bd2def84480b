"""An AWS login that is missing or ran out, settings that cannot work: said at once, not as a broken endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import (
    EndpointConnectionError,
    InfiniteLoopConfigError,
    NoCredentialsError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

from graftline.errors import GraftlineError, InputError
from graftline.store.s3 import S3Store

SSO = """[default]
sso_session = s
sso_account_id = 123456789012
sso_role_name = Ml
region = eu-west-1
[sso-session s]
sso_start_url = https://example.awsapps.com/start
sso_region = eu-west-1
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    yield tmp_path / "config"


def test_a_login_that_was_never_made_is_named(settings: Path) -> None:
    settings.write_text(SSO)
    with pytest.raises(InputError, match=r"the AWS login is missing or ran out \(SSOTokenLoadError\); log in again"):
        S3Store("team", "ml").list("")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UnauthorizedSSOTokenError(), "login is missing or ran out"),
        (TokenRetrievalError(provider="sso", error_msg="secret"), "login is missing or ran out"),
        (NoCredentialsError(), "no credentials; set AWS_ACCESS_KEY_ID"),
        (InfiniteLoopConfigError(source_profile="a", visited_profiles=["a"]), "settings do not work"),
    ],
)
def test_what_never_reached_the_server_is_said_at_once(settings: Path, error: Exception, said: str) -> None:
    settings.write_text("")
    store, calls = S3Store("team", "ml"), []

    def request() -> None:
        calls.append(1)
        raise error

    with pytest.raises(InputError, match=said) as raised:
        store._tried("read", "key", request)
    assert len(calls) == 1
    assert "secret" not in str(raised.value)


def test_an_endpoint_that_does_not_answer_is_tried_again(settings: Path) -> None:
    settings.write_text("")
    store, calls = S3Store("team", "ml", backoff=0.0), []

    def request() -> None:
        calls.append(1)
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")

    with pytest.raises(GraftlineError, match="check that the endpoint runs"):
        store._tried("read", "key", request)
    assert len(calls) > 1
