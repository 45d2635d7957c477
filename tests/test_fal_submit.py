"""Submission: fal cannot be reached, refuses, or is too busy; what is stopped before it is sent costs nothing."""

import asyncio
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import httpx
import pytest
import trustme

from cosmos_predict25.devtools.fal_faults import DEEP_JSON, FAST
from cosmos_predict25.devtools.fal_standin import (
    FOREVER,
    FalStandIn,
    Fault,
    Hang,
    Redirect,
    Reply,
    Reset,
    RetryAt,
    content_policy,
    ingress,
)
from cosmos_predict25.pipeline.errors import CosmosError, FalError, OutcomeUnknownError
from cosmos_predict25.pipeline.fal import DISTILLED, TEXT_TO_VIDEO, FalClient, Job
from cosmos_predict25.pipeline.fal.journal import JobState
from cosmos_predict25.pipeline.fal.queue import transport
from cosmos_predict25.tests import fal_worker
from cosmos_predict25.tests.fal import (
    BRIEF,
    ENDPOINT,
    INPUT,
    NO_PLATFORM,
    PROMPT,
    REQUEST,
    Recorder,
    StoppedError,
    Watcher,
    check_one_job,
    end_at,
    error_of,
    journal_of,
    make,
    policy_with,
    records_of,
    run,
    start,
    texts_of_log,
)
from cosmos_predict25.tests.posix import only_posix


async def submit(on_trouble: Callable[[str], None] = print, **changes: Any) -> Job:
    """By the client alone, so that it is the only request."""
    async with FalClient(policy=policy_with(**changes), on_trouble=on_trouble) as client:
        return await client.submit(ENDPOINT, INPUT)


def test_a_port_that_opens_later_is_tried_again(fal: FalStandIn) -> None:
    def open_port(trouble: str) -> None:
        assert "ConnectError" in trouble
        fal.open_port()

    fal.close_port()
    job = run(submit(open_port))
    assert list(fal.jobs) == [job.request_id]
    assert len(fal.requests("submit")) == 1


@pytest.mark.parametrize(
    ("stage", "fault"),
    [
        ("connect", Reply(502)),
        ("connect", Reply(407)),
        ("tls", Reply(502)),
        ("tls", Reset()),
        ("tls", Reset(rst=False)),
        ("tls", Hang(4)),
    ],
    ids=str,
)
def test_a_connection_that_is_not_made_is_tried_again(fal: FalStandIn, stage: str, fault: Fault) -> None:
    troubles: list[str] = []
    fal.fault(stage, fault, times=2)
    run(submit(troubles.append, **({"connect_timeout": 2} if isinstance(fault, Hang) else {})))
    assert len(troubles) >= 2
    assert len(fal.connects) == len(troubles) + 1
    assert fal.accepted == 1
    assert len(fal.requests("submit")) == 1


@pytest.mark.parametrize("rst", [True, False], ids=["reset", "close"])
def test_a_proxy_that_breaks_off_leaves_no_job(fal: FalStandIn, rst: bool) -> None:
    fal.fault("connect", Reset(rst=rst), times=FOREVER)
    error_of(fal, policy=policy_with(platform_url=NO_PLATFORM))
    assert (fal.requests("submit"), fal.accepted) == ([], 0)


def test_a_port_that_stays_closed_leaves_no_record(fal: FalStandIn) -> None:
    fal.close_port()
    error = error_of(fal)
    assert "nothing was sent and there is no charge" in str(error)
    assert (error.stage, error.retryable) == ("submit", True)
    assert records_of(fal) == []
    fal.open_port()
    run(make(fal))
    check_one_job(fal)


def test_a_certificate_that_is_not_valid_ends_it_at_once(fal: FalStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    other = fal.folder / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    with pytest.raises(FalError, match="certificate is not valid"):
        run(submit())
    assert fal.connects == ["queue.fal.run:443"]
    assert fal.journal == []


@pytest.mark.slow
@pytest.mark.parametrize("form", ["seconds", pytest.param("date", marks=pytest.mark.slow)])
def test_retry_after_is_waited_for(fal: FalStandIn, form: str) -> None:
    fault = Reply(429, {"Retry-After": "1"}, {"detail": "Slow down"}) if form == "seconds" else RetryAt(2)
    fal.fault("submit", fault, times=2)
    run(make(fal))
    times = [request.time for request in fal.requests("submit")]
    assert len(times) == 3
    assert times[1] - times[0] >= 0.95
    assert times[2] - times[1] >= 0.95
    assert fal.accepted == 1


def test_without_retry_after_it_is_tried_again(fal: FalStandIn) -> None:
    fal.fault("submit", Reply(429, body={"detail": "Slow down"}), times=2)
    run(make(fal))
    assert len(fal.requests("submit")) == 3
    assert fal.accepted == 1


def test_429_forever_ends_with_no_record(fal: FalStandIn) -> None:
    body = {"detail": "Too many", "error_type": "concurrent_requests_limit"}
    fal.fault("submit", Reply(429, body=body), times=FOREVER)
    error = error_of(fal, policy=BRIEF)
    assert "Too many jobs of this account run at once: try again later." in str(error)
    assert (error.status, error.error_type, error.stage) == (429, "concurrent_requests_limit", "submit")
    assert len(fal.requests("submit")) > 1
    assert records_of(fal) == []


@pytest.mark.slow
def test_a_place_at_fal_is_waited_for_up_to_the_wait_limit(fal: FalStandIn) -> None:
    """Of six jobs, two have a place at once."""
    fal.fault("submit", Reply(429), times=60, after=2)
    requests = [replace(REQUEST, seed=seed) for seed in range(6)]

    async def work() -> list[Any]:
        return await asyncio.gather(*(make(fal, request) for request in requests))

    assert [video.seed for video in run(work())] == [0, 1, 2, 3, 4, 5]
    assert (fal.accepted, len(fal.requests("submit"))) == (6, 66)


@only_posix
def test_a_process_that_is_killed_while_it_waits_for_a_place_has_no_job(fal: FalStandIn) -> None:
    fal.fault("submit", Reply(429, {"Retry-After": "3600"}))
    worker = start(fal)
    fal.wait_for(lambda: [record for record in journal_of(fal).records() if record.state is JobState.ENDED])
    worker.kill()
    assert fal_worker.outcome_of(worker) is None
    run(make(fal))
    assert (fal.accepted, len(fal.requests("submit"))) == (1, 2)


def test_429_and_then_a_lost_answer_is_unknown(fal: FalStandIn) -> None:
    fal.fault("submit", Reply(429), times=2)
    fal.fault("submit", Reset(accept=True))
    fal.fault("listing", ingress(), times=FOREVER)
    assert isinstance(error_of(fal), OutcomeUnknownError)
    assert (len(fal.requests("submit")), fal.accepted) == (3, 1)


@pytest.mark.parametrize("how", ["stop", "cancel"])
def test_ended_while_it_waits_it_sends_nothing_more(fal: FalStandIn, how: str) -> None:
    fal.fault("submit", Reply(429, {"Retry-After": "3600"}))
    run(end_at(fal, lambda _: [one for one in fal.requests("submit") if one.outcome == "replied"], how))
    assert len(fal.requests("submit")) == 1
    assert (fal.accepted, records_of(fal)) == (0, [])


def test_stopped_before_it_began_it_pays_nothing(fal: FalStandIn) -> None:
    observer = Recorder()
    observer.stop()
    with pytest.raises(StoppedError):
        run(make(fal, observer=observer))
    assert fal.accepted == 0
    assert records_of(fal) == []


PLACES = {
    "self": "https://{host}{target}",
    "evil": "https://evil.example{target}",
    "media": "https://v3b.fal.media{target}",
    "http": "http://{host}{target}",
    "nowhere": "",
}


@pytest.mark.sample(10)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(fal: FalStandIn, status: int, place: str) -> None:
    fal.fault("submit", Redirect(status, PLACES[place]), times=FOREVER)
    assert isinstance(error_of(fal), OutcomeUnknownError)
    assert [record.state for record in records_of(fal)] == [JobState.SUBMIT_UNKNOWN]
    assert (len(fal.requests("submit")), fal.accepted) == (1, 0)
    assert fal.requests("media") == fal.requests("evil") == []
    assert {connect.split(":")[0] for connect in fal.connects} <= {"queue.fal.run", "api.fal.ai"}


LIST_422 = {
    "detail": [
        {"loc": ["body", "prompt"], "msg": "Too long", "type": "string_too_long", "input": PROMPT},
        {"loc": ["body", "seed"], "msg": "Not whole", "type": "int_parsing", "input": 1.5},
    ]
}

REFUSALS: dict[str, tuple[Fault, dict[str, Any], list[str]]] = {
    "401": (Reply(401, body={"detail": "No user found"}), {"status": 401}, ["No user found", "FAL_KEY"]),
    "403": (Reply(403, body={"detail": "User is locked"}), {"status": 403}, ["User is locked", "dashboard/billing"]),
    "404": (Reply(404, body={"detail": "No such app"}), {"status": 404}, ["No such app", "newer version"]),
    "409": (Reply(409, body={"detail": "Conflict"}), {"status": 409}, ["Conflict"]),
    "425": (Reply(425), {"status": 425}, ["no readable reason"]),
    "400-platform": (
        Reply(400, {"X-Fal-Error-Type": "bad_request"}, {"detail": "Bad", "error_type": "other"}),
        {"status": 400, "error_type": "bad_request"},
        ["Bad"],
    ),
    "422-list": (
        Reply(422, body=LIST_422),
        {"status": 422, "error_type": "string_too_long"},
        ["Too long; Not whole", "(prompt, seed)"],
    ),
    "422-string": (Reply(422, body={"detail": "Not so"}), {"status": 422}, ["Not so"]),
    "422-html": (Reply(422, {"content-type": "text/html"}, b"<html>"), {"status": 422}, ["no readable reason"]),
    "422-empty": (Reply(422), {"status": 422}, ["no readable reason"]),
    "422-deep": (Reply(422, body=DEEP_JSON), {"status": 422}, ["no readable reason"]),
    "422-odd": (
        Reply(422, body={"detail": [1, None, {"loc": "x", "msg": {}, "type": 3}], "error_type": [], "error": 5}),
        {"status": 422, "error_type": None},
        ["no readable reason"],
    ),
    "422-long": (Reply(422, body={"detail": "word " * 10_000}), {"status": 422}, ["word word"]),
    "422-retryable": (
        Reply(422, {"X-Fal-Retryable": "True"}, {"detail": "Later"}),
        {"retryable": True},
        ["A retry is likely to help."],
    ),
    "422-not-retryable": (
        Reply(422, {"X-Fal-Needs-Retry": "0"}, {"detail": "Never"}),
        {"retryable": False},
        ["will not help"],
    ),
    "content-policy": (
        Reply(422, body=content_policy({"prompt": PROMPT}).body),
        {"status": 422, "error_type": "content_policy_violation", "retryable": False},
        ["flagged by a content checker", "change what it asks for"],
    ),
}


@pytest.mark.parametrize(("fault", "facts", "texts"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_told_and_not_repeated(
    fal: FalStandIn, caplog: pytest.LogCaptureFixture, fault: Fault, facts: dict[str, Any], texts: list[str]
) -> None:
    fal.fault("submit", fault, times=FOREVER)
    error = error_of(fal)
    assert type(error) is FalError
    assert {name: getattr(error, name) for name in facts} == facts
    assert error.stage == "submit"
    assert [text for text in (*texts, "no charge") if text not in str(error)] == []
    assert len(str(error)) < 1000
    assert len(fal.requests("submit")) == 1
    assert records_of(fal) == []
    assert PROMPT not in texts_of_log(caplog)


def test_a_locked_account_is_told(fal: FalStandIn) -> None:
    fal.locked = True
    assert "Exhausted balance" in str(error_of(fal))
    assert len(fal.requests("submit")) == 1


def test_a_key_that_is_not_known_is_refused_and_not_shown(fal: FalStandIn, caplog: pytest.LogCaptureFixture) -> None:
    error = error_of(fal, key="unknown-id:unknown-secret")
    assert error.status == 401
    assert "unknown-" not in f"{error} {texts_of_log(caplog)}"


def test_an_endpoint_that_is_not_there_is_refused(fal: FalStandIn) -> None:
    gone = replace(TEXT_TO_VIDEO, id="fal-ai/cosmos-predict-9/text-to-video")
    assert error_of(fal, endpoint=gone).status == 404


def test_the_schema_is_checked_by_fal_at_submission(fal: FalStandIn) -> None:
    fal.validate_at = "submit"
    endpoint = replace(DISTILLED, num_inference_steps=TEXT_TO_VIDEO.num_inference_steps)
    error = error_of(fal, replace(REQUEST, num_inference_steps=30), endpoint=endpoint)
    assert "(num_inference_steps): " in str(error)
    assert error.error_type == "less_than_equal"


def test_an_answer_that_says_the_key_again_is_redacted(fal: FalStandIn) -> None:
    detail = f"Key {fal.key} is bad, and {fal.key.split(':')[1]} too"
    fal.fault("submit", Reply(401, body={"detail": detail, "error_type": fal.key.split(":")[0]}))
    assert error_of(fal).status == 401


def test_every_request_goes_through_the_proxy(fal: FalStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"127.0.0.1:{fal.ports['proxy']}")
    run(make(fal))
    assert set(fal.connects) == {"queue.fal.run:443", "api.fal.ai:443", "v3b.fal.media:443"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("https_proxy", "ftp://127.0.0.1:1"), ("https_proxy", "http://127.0.0.1:x")],
)
def test_a_proxy_that_cannot_be_used_is_told_before_there_is_a_record(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(CosmosError, match=r"(?i)proxy"):
        run(make(fal))
    assert fal.connects == []
    assert records_of(fal) == []


@pytest.mark.parametrize("address", ["socks5://127.0.0.1:1", "socks5h://127.0.0.1:1"])
def test_a_socks_proxy_without_its_package_is_told_with_what_to_install(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("ALL_PROXY", address)
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(FalError, match=r'pip install "httpx\[socks\]"'):
        run(make(fal))
    assert (fal.connects, records_of(fal)) == ([], [])


@pytest.mark.parametrize("value", ["localhost,[::1]", "fe80::/10,127.0.0.1", "10.0.0.0/8,::1,*.corp,a b,%%", "x*y"])
def test_a_good_proxy_is_used_beside_a_bad_one_and_odd_exceptions(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, value)
    run(make(fal))
    assert set(fal.connects) == {"queue.fal.run:443", "api.fal.ai:443", "v3b.fal.media:443"}


@pytest.mark.parametrize("value", ["*", "queue.fal.run", ".fal.run", "*.fal.run", "fal.run, example.com"])
def test_no_proxy_is_used_for_a_host_that_is_excepted(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, value)
    client = transport.connect("*/*", transport.certificates())
    chosen = client._transport_for_url(httpx.URL("https://queue.fal.run/x"))
    assert chosen is client._transport
    other = client._transport_for_url(httpx.URL("https://v3.fal.media/x"))
    assert (other is client._transport) == (value == "*")


@pytest.mark.slow
def test_the_certificates_of_the_system_and_of_a_bundle_are_trusted_too(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in's own stands for a company's."""
    authority = fal.environ["SSL_CERT_FILE"]
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    system = {str(each) for each in ssl.create_default_context().get_ca_certs()}
    assert system <= {str(each) for each in transport.certificates().get_ca_certs()}
    with pytest.raises(FalError, match="set SSL_CERT_FILE to the file with your network's certificate"):
        run(submit())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority)
    run(submit())


def test_a_ca_file_that_is_not_there_is_told_before_there_is_a_record(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(fal.folder / "missing.pem"))
    with pytest.raises(CosmosError):
        run(make(fal))
    assert records_of(fal) == []


def test_stop_while_it_connects_sends_nothing(fal: FalStandIn) -> None:
    observer = Recorder()
    fal.fault("connect", Hang(0.5), times=FOREVER)

    async def main() -> None:
        task = asyncio.ensure_future(make(fal, observer=observer))
        await asyncio.to_thread(fal.wait_for, lambda: bool(fal.connects))
        observer.stop()
        with pytest.raises(StoppedError):
            await task

    asyncio.run(main())
    assert (fal.accepted, fal.requests("submit"), records_of(fal)) == (0, [], [])


def test_a_499_at_submission_leaves_the_outcome_unknown(fal: FalStandIn) -> None:
    """fal's name for it is `client_disconnected`: a job may be behind it."""
    fal.fault("submit", Reply(499, body={"detail": "Client disconnected"}, accept=True))
    fal.fault("listing", ingress(), times=FOREVER)
    assert isinstance(error_of(fal), OutcomeUnknownError)
    fal.clear_faults()
    run(make(fal))
    check_one_job(fal)


class RaisingError(Exception):
    pass


@pytest.mark.parametrize("text", ["Sending", "trying again"])
def test_an_observer_that_raises_before_anything_was_sent_leaves_no_record(fal: FalStandIn, text: str) -> None:
    def fail() -> None:
        raise RaisingError

    fal.fault("connect", Reply(502), times=FOREVER)
    with pytest.raises(RaisingError):
        run(make(fal, observer=Watcher(text, fail)))
    fal.clear_faults()
    assert (fal.requests("submit"), records_of(fal)) == ([], [])
    run(make(fal))
    check_one_job(fal)


def test_a_proxy_that_wants_a_password_is_named(fal: FalStandIn) -> None:
    fal.fault("connect", Reply(407), times=FOREVER)
    said = str(error_of(fal))
    assert f"the proxy 127.0.0.1:{fal.ports['proxy']} answers HTTP 407: it wants a user and a password" in said
    assert records_of(fal) == []


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "user:word@127.0.0.1:{}", "HTTP://127.0.0.1:{}/"])
def test_a_proxy_is_named_in_whatever_form_it_is_set(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("https_proxy", form.format(fal.ports["proxy"]))
    fal.fault("connect", Reply(407), times=FOREVER)
    said = str(error_of(fal))
    assert f"the proxy 127.0.0.1:{fal.ports['proxy']} answers HTTP 407" in said
    assert "word@" not in said


@pytest.mark.parametrize("moment", ["while it connects", "while it waits for the reply"])
def test_a_scope_of_anyio_that_ends_a_submission_uses_no_processor_while_it_waits(fal: FalStandIn, moment: str) -> None:
    connecting = moment == "while it connects"
    fal.fault("tls" if connecting else "submit", Hang(accept=True))

    async def submit(scope: anyio.CancelScope) -> None:
        with scope:
            async with FalClient(policy=FAST) as client:
                await client.submit(ENDPOINT, INPUT)

    async def work() -> tuple[bool, float]:
        scope = anyio.CancelScope()
        submitting = asyncio.ensure_future(submit(scope))
        await asyncio.to_thread(fal.wait_for, lambda: fal.connects if connecting else fal.accepted)
        used = time.process_time()
        scope.cancel()
        if connecting:
            await submitting
        await asyncio.wait([submitting], timeout=1)
        used = time.process_time() - used
        waits = not submitting.done()
        await asyncio.to_thread(fal.release)
        await submitting
        return waits, used

    waits, used = run(work())
    assert used < 0.5
    assert fal.accepted == (0 if connecting else 1)
    assert waits is not connecting
