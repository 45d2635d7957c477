"""Pauses between tries, and what an error proves: each function by its own table."""

import email.utils
import itertools
import socket
import ssl
import time
from collections.abc import Iterator

import httpx
import pytest

from cosmos_predict25.pipeline.fal.queue.retry import (
    backoff,
    is_certificate_failure,
    jittered,
    proves_nothing_was_sent,
    retry_after,
    says_retryable,
)

STATUSES = [*range(200, 600)]


def caused_by(*causes: BaseException) -> BaseException:
    """The first, caused by the second, and so on."""
    for error, cause in itertools.pairwise(causes):
        error.__cause__ = cause
    return causes[0]


def in_the_context_of(error: BaseException, context: BaseException) -> BaseException:
    error.__context__ = context
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, False),
        (httpx.ConnectError("x"), False),
        (ssl.SSLError(1, "wrong version"), False),
        (ssl.SSLCertVerificationError(1, "self-signed"), True),
        (caused_by(httpx.ConnectError("x"), ssl.SSLCertVerificationError(1, "x")), True),
        (caused_by(httpx.ConnectError("x"), OSError(), ssl.SSLCertVerificationError(1, "x")), True),
        (in_the_context_of(httpx.ConnectError("x"), ssl.SSLCertVerificationError(1, "x")), True),
        (caused_by(httpx.ConnectError("x"), socket.gaierror(-2, "x")), False),
    ],
    ids=repr,
)
def test_is_certificate_failure(error: BaseException | None, expected: bool) -> None:
    assert is_certificate_failure(error) is expected


TRANSPORT_ERRORS = {
    httpx.ConnectError: True,
    httpx.ConnectTimeout: True,
    httpx.PoolTimeout: True,
    httpx.ProxyError: True,
    httpx.WriteError: False,
    httpx.WriteTimeout: False,
    httpx.ReadError: False,
    httpx.ReadTimeout: False,
    httpx.CloseError: False,
    httpx.RemoteProtocolError: False,
    httpx.LocalProtocolError: False,
    httpx.DecodingError: False,
    httpx.TimeoutException: False,
    httpx.TransportError: False,
}


@pytest.mark.parametrize(
    ("kind", "expected"), TRANSPORT_ERRORS.items(), ids=lambda value: getattr(value, "__name__", "")
)
def test_proves_nothing_was_sent(kind: type[httpx.TransportError], expected: bool) -> None:
    assert proves_nothing_was_sent(kind("x")) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("²", None),
        ("0", 1.0),
        ("1", 1.0),
        (" 7 ", 7.0),
        ("120", 120.0),
        ("121", 120.0),
        ("9" * 400, 120.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 1.0),
        ("Wed, 21 Oct 2015 07:28:00 +0200", 1.0),
        ("Wed, 21 Oct 2015 07:28:00", 1.0),
        ("Fri, 01 Jan 9999 00:00:00 GMT", 120.0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None),
    ],
)
def test_retry_after(value: str | None, expected: float | None) -> None:
    assert retry_after(httpx.Headers({"Retry-After": "3000"}), longest=3600) == 3000
    assert retry_after(httpx.Headers({} if value is None else {"Retry-After": value.encode()})) == expected


@pytest.mark.parametrize("is_local", [False, True], ids=["gmt", "local"])
def test_retry_after_of_a_date_to_come(is_local: bool) -> None:
    value = email.utils.formatdate(time.time() + 30, localtime=is_local, usegmt=not is_local)
    seconds = retry_after({"retry-after": value})
    assert seconds is not None
    assert 25 < seconds <= 30


@pytest.fixture
def nine_hours_ahead(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in Japan."""
    monkeypatch.setenv("TZ", "XXX-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="Windows does not change its time zone")
@pytest.mark.usefixtures("nine_hours_ahead")
@pytest.mark.parametrize("is_named", [True, False], ids=["GMT", "-0000"])
def test_retry_after_of_a_date_is_not_the_time_of_this_place(is_named: bool) -> None:
    seconds = retry_after({"retry-after": email.utils.formatdate(time.time() + 60, usegmt=is_named)})
    assert seconds == pytest.approx(60, abs=5)


@pytest.mark.parametrize(
    ("failures", "base", "cap", "limit"),
    [(0, 0.5, 20, 0.5), (1, 0.5, 20, 1), (3, 0.5, 20, 4), (6, 0.5, 20, 20), (10**6, 0.5, 20, 20), (5, 0, 20, 0)],
)
def test_backoff_is_drawn_from_below_its_limit(failures: int, base: float, cap: float, limit: float) -> None:
    drawn = [backoff(failures, base, cap) for _ in range(500)]
    assert all(0 <= seconds <= limit for seconds in drawn)
    assert max(drawn) >= 0.9 * limit
    assert min(drawn) <= 0.1 * limit


def test_jittered_is_drawn_from_a_fifth_around() -> None:
    drawn = [jittered(10) for _ in range(500)]
    assert all(8 <= seconds <= 12 for seconds in drawn)
    assert max(drawn) - min(drawn) > 3


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"x-fal-retryable": ""}, None),
        ({"x-fal-retryable": "maybe"}, None),
        *[
            ({name: value}, True)
            for name in ("X-Fal-Retryable", "x-fal-needs-retry")
            for value in ("1", "true", "Yes ")
        ],
        *[
            ({name: value}, False)
            for name in ("x-fal-retryable", "X-Fal-Needs-Retry")
            for value in ("0", "FALSE", "no")
        ],
        ({"x-fal-retryable": "false", "x-fal-needs-retry": "1"}, False),
        ({"x-fal-retryable": "?", "x-fal-needs-retry": "1"}, True),
    ],
)
def test_says_retryable(headers: dict[str, str], expected: bool | None) -> None:
    assert says_retryable(httpx.Headers(headers)) is expected
