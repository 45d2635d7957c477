"""Submission against the stand-in: whatever happens to it, at most one job is paid for, and none is lost."""

import asyncio
import email.utils
import json
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from cosmos_predict25.pipeline.errors import CosmosError, FalError, InvalidRequestError, OutcomeUnknownError
from cosmos_predict25.pipeline.fal import DISTILLED, TEXT_TO_VIDEO, Endpoint, FalClient, Job
from cosmos_predict25.pipeline.fal.journal import Record, State
from cosmos_predict25.pipeline.fal.queue.transport import USER_AGENT
from cosmos_predict25.pipeline.request import DEFAULT_NEGATIVE_PROMPT, GenerationRequest
from cosmos_predict25.tests import fal_worker
from cosmos_predict25.tests.fal import (
    APP,
    ENDPOINT,
    FAST,
    PROMPT,
    QUEUE,
    REQUEST,
    Recorder,
    StoppedError,
    journal_of,
    make,
    policy_with,
    record_of,
    records_of,
    run,
    start,
)
from cosmos_predict25.tests.fal_standin import (
    FOREVER,
    BigHeaders,
    Body,
    Chop,
    Drip,
    EndlessBody,
    FalStandIn,
    Fault,
    GzipBomb,
    Hang,
    Json,
    NoLength,
    Redirect,
    Relabel,
    Reply,
    Reset,
    Stall,
    Truncate,
    content_policy,
    ingress,
    with_fields,
    without_fields,
)

INPUT = {"prompt": PROMPT, "num_frames": 9, "seed": 7}
NO_PLATFORM = "https://127.0.0.1:1/v1"
"""Nobody is there, so that every connection to the stand-in is one of the queue."""
DEEP = b"[" * 100_000
OTHER_ID = "00000000-0000-4000-8000-000000000000"


async def submit(on_trouble: Callable[[str], None] = print, **changes: Any) -> Job:
    """By the client alone, so that it is the only request."""
    async with FalClient(policy=policy_with(**changes), on_trouble=on_trouble) as client:
        return await client.submit(ENDPOINT, INPUT)


def check_one_job(fal: FalStandIn) -> None:
    """It was sent once, and there is nothing more to do for it."""
    assert len(fal.requests("submit")) == 1
    assert fal.accepted == 1
    assert records_of(fal) == []


def error_of(fal: FalStandIn, request: GenerationRequest = REQUEST, **options: Any) -> FalError:
    """What a run raises, which shows neither the prompt nor the key."""
    with pytest.raises(FalError) as caught:
        run(make(fal, request, **options))
    shown = f"{caught.value} {caught.value.__dict__}"
    assert not [secret for secret in (request.prompt, *fal.key.split(":")) if secret in shown]
    return caught.value


def texts_of_log(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


# The request


def test_one_video_is_one_job(fal: FalStandIn) -> None:
    video = run(make(fal))
    assert (video.num_frames, video.seed, video.path.suffix) == (9, 7, ".mp4")
    check_one_job(fal)
    (request,) = fal.requests("submit")
    assert (request.method, request.host, request.target) == ("POST", "queue.fal.run", f"/{ENDPOINT}")
    assert request.headers["authorization"] == f"Key {fal.key}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept"] == "application/json"
    assert request.headers["user-agent"].startswith("comfyui-cosmos-predict25/")
    assert request.json() == INPUT


def test_every_field_travels(fal: FalStandIn) -> None:
    fields = {
        "prompt": PROMPT,
        "negative_prompt": "",
        "num_frames": 10,
        "num_inference_steps": 50,
        "guidance_scale": 7.5,
        "seed": 2**31 - 1,
        "video_output_type": "GIF (.gif)",
        "video_quality": "maximum",
    }
    video = run(make(fal, GenerationRequest(**fields)))
    assert fal.requests("submit")[0].json() == fields
    assert video.path.suffix == ".gif"
    assert video.num_frames == 10


def test_sync_mode_travels(fal: FalStandIn) -> None:
    assert run(make(fal, replace(REQUEST, sync_mode=True))).num_frames == 9
    assert fal.requests("submit")[0].json() == {**INPUT, "sync_mode": True}
    assert fal.requests("media") == []


@pytest.mark.parametrize("endpoint", [TEXT_TO_VIDEO, DISTILLED], ids=["full", "distilled"])
def test_a_field_at_its_default_is_left_out(fal: FalStandIn, endpoint: Endpoint) -> None:
    defaults = {
        "negative_prompt": DEFAULT_NEGATIVE_PROMPT,
        "num_inference_steps": endpoint.default_steps,
        "guidance_scale": 7.0,
        "sync_mode": False,
        "video_output_type": "X264 (.mp4)",
        "video_quality": "high",
    }
    run(make(fal, replace(REQUEST, **defaults), endpoint=endpoint))
    assert fal.requests("submit")[0].json() == INPUT


def test_93_frames_are_left_out(fal: FalStandIn) -> None:
    fal.fail_next(content_policy)
    error_of(fal, replace(REQUEST, num_frames=93))
    assert fal.requests("submit")[0].json() == {"prompt": PROMPT, "seed": 7}


def test_a_seed_that_was_not_given_is_drawn_here_and_sent(fal: FalStandIn) -> None:
    video = run(make(fal, replace(REQUEST, seed=None)))
    assert fal.requests("submit")[0].json() == {**INPUT, "seed": video.seed}


def test_the_distilled_endpoint_has_no_guidance_scale(fal: FalStandIn) -> None:
    run(make(fal, replace(REQUEST, guidance_scale=3.0, num_inference_steps=20), endpoint=DISTILLED))
    (request,) = fal.requests("submit")
    assert request.target == f"/{DISTILLED.id}"
    assert request.json() == {**INPUT, "num_inference_steps": 20}


@pytest.mark.parametrize("steps", [21, 35, 50])
def test_steps_out_of_the_distilled_range_are_refused_before_any_traffic(fal: FalStandIn, steps: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"num_inference_steps is {steps}.*1 to 20"):
        run(make(fal, replace(REQUEST, num_inference_steps=steps), endpoint=DISTILLED))
    assert fal.connects == []


def test_the_options_travel(fal: FalStandIn) -> None:
    webhook = "https://example.com/done?a=1&b=ä"
    run(make(fal, webhook_url=webhook, priority="low", start_timeout=30, store=False))
    (request,) = fal.requests("submit")
    assert request.target.isascii()
    assert request.query == {"fal_webhook": [webhook]}
    assert request.headers["x-fal-queue-priority"] == "low"
    assert request.headers["x-fal-request-start-timeout"] == request.headers["x-fal-request-timeout"] == "30.0"
    assert request.headers["x-fal-store-io"] == "0"
    assert request.json() == INPUT


def test_without_options_none_is_sent(fal: FalStandIn) -> None:
    run(make(fal))
    (request,) = fal.requests("submit")
    assert [name for name in request.headers if name.startswith("x-fal")] == []
    assert request.query == {}


@pytest.mark.parametrize(
    "option",
    [
        {"webhook_url": "http://example.com"},
        {"webhook_url": "https://user:word@example.com"},
        {"webhook_url": "https:///done"},
        {"webhook_url": "https://example.com:port"},
        {"webhook_url": "done"},
        {"priority": "high"},
        {"start_timeout": 1},
        {"start_timeout": -5},
        {"start_timeout": float("nan")},
        {"start_timeout": float("inf")},
    ],
    ids=str,
)
def test_an_option_that_fal_would_refuse_is_refused_here(fal: FalStandIn, option: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=next(iter(option))):
        run(make(fal, **option))
    assert fal.requests("submit") == []
    assert records_of(fal) == []


@pytest.mark.parametrize(
    "arguments", [{"prompt": "\ud800"}, {"prompt": "a", "guidance_scale": float("nan")}, {"prompt": b"bytes"}], ids=str
)
def test_arguments_that_are_no_json_are_refused_before_any_traffic(fal: FalStandIn, arguments: dict[str, Any]) -> None:
    async def work() -> None:
        async with FalClient(policy=FAST) as client:
            await client.submit(ENDPOINT, arguments)

    with pytest.raises(InvalidRequestError):
        run(work())
    assert fal.connects == []


@pytest.mark.parametrize(
    "endpoint_id", ["", "fal-ai", "fal-ai/../x", "fal-ai/app/requests/1", "/fal-ai/app", "fal-ai/app?x=1", "fal-ai//a"]
)
def test_an_id_that_is_no_endpoint_is_refused_before_any_traffic(fal: FalStandIn, endpoint_id: str) -> None:
    async def work() -> None:
        async with FalClient(policy=FAST) as client:
            await client.submit(endpoint_id, INPUT)

    with pytest.raises(InvalidRequestError, match="no endpoint"):
        run(work())
    assert fal.connects == []


# S1: not reached


def test_s1_a_port_that_opens_later_is_tried_again(fal: FalStandIn) -> None:
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
        ("tls", Hang(0.4)),
    ],
    ids=str,
)
def test_s1_a_connection_that_is_not_made_is_tried_again(fal: FalStandIn, stage: str, fault: Fault) -> None:
    troubles: list[str] = []
    fal.fault(stage, fault, times=2)
    run(submit(troubles.append, connect_timeout=0.2))
    assert len(troubles) == 2
    assert len(fal.connects) == 3
    assert fal.accepted == 1
    assert len(fal.requests("submit")) == 1


@pytest.mark.parametrize("rst", [True, False], ids=["reset", "close"])
def test_s1_a_proxy_that_breaks_off_leaves_no_job(fal: FalStandIn, rst: bool) -> None:
    fal.fault("connect", Reset(rst=rst), times=FOREVER)
    error_of(fal, policy=policy_with(platform_url=NO_PLATFORM))
    assert (fal.requests("submit"), fal.accepted) == ([], 0)


def test_s1_a_port_that_stays_closed_leaves_no_record(fal: FalStandIn) -> None:
    fal.close_port()
    error = error_of(fal)
    assert "nothing was sent and there is nothing to pay" in str(error)
    assert (error.stage, error.retryable) == ("submit", True)
    assert records_of(fal) == []
    fal.open_port()
    run(make(fal))
    check_one_job(fal)


def test_s1_a_certificate_that_is_not_valid_ends_it_at_once(fal: FalStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    other = fal.folder / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    with pytest.raises(FalError, match="certificate is not valid"):
        run(submit())
    assert fal.connects == ["queue.fal.run:443"]
    assert fal.journal == []


# S2 to S6, S8, S14: the answer is lost


@pytest.mark.parametrize("rst", [True, False], ids=["reset", "close"])
def test_s2_a_connection_that_ends_before_the_request_is_read_is_not_repeated(fal: FalStandIn, rst: bool) -> None:
    fal.fault("submit", Reset(read_request=False, rst=rst))
    error = error_of(fal, policy=policy_with(platform_url=NO_PLATFORM))
    assert isinstance(error, OutcomeUnknownError)
    assert fal.connects == ["queue.fal.run:443"]
    assert fal.requests("submit") == []
    assert record_of(fal).state is State.SUBMIT_UNKNOWN
    assert fal.accepted == 0


LOST = {
    "s3-reset": Reset(accept=True),
    "s3-close": Reset(accept=True, rst=False),
    "s4-hang": Hang(accept=True),
    "s5-truncated": Truncate(150),
    "s5-truncated-after-the-id": Truncate(300),
    "s5-truncated-chunks": Truncate(150, chunked=True),
    "s5-truncated-chunks-after-the-id": Truncate(300, chunked=True),
    "s5-last-brace-missing": Body(lambda body: body[:-1]),
    "s5-stalled": Stall(150),
    "s6-html": Body(lambda _: b"<html><body>OK</body></html>"),
    "s6-empty": Body(lambda _: b""),
    "s6-list": Body(lambda _: b"[]"),
    "s6-null": Body(lambda _: b"null"),
    "s6-no-utf-8": Body(lambda body: b"\xff\xfe" + body),
    "s6-deep": Body(lambda _: DEEP),
    "s6-no-id": without_fields("request_id"),
    "s6-null-id": with_fields(request_id=None),
    "s6-numeric-id": with_fields(request_id=123456789),
    "s6-id-with-slashes": with_fields(request_id="../../../x/12345678"),
    "s6-id-with-a-line-break": with_fields(request_id=f"{OTHER_ID}\n"),
    "s6-long-id": with_fields(request_id="a" * 129),
    "s6-id-in-a-list": Json(lambda reply: [reply]),
    "s6-204": Relabel(204),
    "s8-ingress": ingress(503, accept=True),
    **{f"s8-{status}": Reply(status, body={"detail": "Bad"}, accept=True) for status in (408, 500, 502, 503, 504)},
    "s14-slow-head": Drip(0.05),
    "s14-slow-body": Drip(0.05, head=False),
    "s14-300-kb-of-headers": BigHeaders(300_000),
    "s14-endless-body": EndlessBody(accept=True),
    "s14-gzip-bomb": GzipBomb(accept=True),
}
IMPATIENT = {"api_timeout": 0.5, "submit_deadline": 0.8, "max_reply": 2**18}


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
def test_a_job_whose_answer_was_lost_is_found_and_not_sent_again(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("submit", fault)
    fal.fault("listing", ingress(), times=FOREVER)
    begun = time.monotonic()
    error = error_of(fal, policy=policy_with(**IMPATIENT))
    assert isinstance(error, OutcomeUnknownError)
    assert "may be running and be paid for" in str(error)
    assert time.monotonic() - begun < 8
    record = record_of(fal)
    assert (record.state, record.request_id) == (State.SUBMIT_UNKNOWN, None)
    assert str(journal_of(fal).path_of(record.fingerprint)) in str(error)

    fal.clear_faults()
    assert run(make(fal)).num_frames == 9
    check_one_job(fal)


@pytest.mark.parametrize("fault", [Reset(accept=True), Truncate(300), Body(lambda _: b"null")], ids=str)
def test_a_lost_job_is_found_in_the_same_run(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("submit", fault)
    observer = Recorder()
    run(make(fal, observer=observer))
    check_one_job(fal)
    assert [message for message in observer.messages if "answer was lost" in message]


NOT_TAKEN = {
    "s2-reset": Reset(),
    "s4-hang": Hang(),
    "s8-ingress": ingress(),
    **{f"s8-{status}": Reply(status, body={"detail": "Bad"}) for status in (408, 500, 502, 503, 504)},
}


@pytest.mark.parametrize("fault", NOT_TAKEN.values(), ids=NOT_TAKEN)
def test_a_lost_answer_is_unknown_even_if_the_job_was_not_taken(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("submit", fault, times=FOREVER)
    for _ in range(2):
        error = error_of(fal, policy=policy_with(**IMPATIENT))
        assert isinstance(error, OutcomeUnknownError)
        assert "no job like it" in str(error)
        assert record_of(fal).state is State.SUBMIT_UNKNOWN
    assert len(fal.requests("submit")) == 1

    fal.clear_faults()
    journal_of(fal).path_of(record_of(fal).fingerprint).unlink()
    run(make(fal))
    assert fal.accepted == 1


def test_another_seed_is_another_job_while_one_is_unknown(fal: FalStandIn) -> None:
    fal.fault("submit", ingress())
    error_of(fal)
    run(make(fal, replace(REQUEST, seed=8)))
    assert [job.seed for job in fal.jobs.values()] == [8]
    assert [record.seed for record in records_of(fal)] == [7]


@pytest.mark.parametrize(
    "fault",
    [BigHeaders(100_000), Chop(1), NoLength(), NoLength(chunked=True), Relabel(201), Relabel(202)],
    ids=["s14-100-kb-of-headers", "one-byte-chunks", "no-length", "chunked", "201", "202"],
)
def test_an_odd_but_whole_answer_is_read(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("submit", fault)
    run(make(fal))
    check_one_job(fal)
    assert fal.requests("listing") == []


@pytest.mark.parametrize("names", [["queue_position"], ["status"], ["status", "queue_position", "cancel_url"]])
def test_only_the_id_of_an_answer_is_needed(fal: FalStandIn, names: list[str]) -> None:
    fal.fault("submit", without_fields(*names))
    run(make(fal))
    check_one_job(fal)
    assert fal.requests("listing") == []


# S7: too many requests


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_s7_retry_after_is_waited_for(fal: FalStandIn, form: str) -> None:
    value = "1" if form == "seconds" else email.utils.formatdate(time.time() + 2.5, usegmt=True)
    fal.fault("submit", Reply(429, {"Retry-After": value}, {"detail": "Slow down"}), times=2)
    run(make(fal))
    times = [request.time for request in fal.requests("submit")]
    assert len(times) == 3
    assert times[1] - times[0] >= 0.95
    assert times[2] - times[1] >= 0.95
    assert fal.accepted == 1


def test_s7_without_retry_after_it_is_tried_again(fal: FalStandIn) -> None:
    fal.fault("submit", Reply(429, body={"detail": "Slow down"}), times=2)
    run(make(fal))
    assert len(fal.requests("submit")) == 3
    assert fal.accepted == 1


def test_s7_429_forever_ends_with_no_record(fal: FalStandIn) -> None:
    body = {"detail": "Too many", "error_type": "concurrent_requests_limit"}
    fal.fault("submit", Reply(429, body=body), times=FOREVER)
    error = error_of(fal)
    assert "Too many jobs of this account run at once: try again later." in str(error)
    assert (error.status, error.error_type, error.stage) == (429, "concurrent_requests_limit", "submit")
    assert len(fal.requests("submit")) == FAST.submit_tries
    assert records_of(fal) == []


def test_s7_429_and_then_a_lost_answer_is_unknown(fal: FalStandIn) -> None:
    fal.fault("submit", Reply(429), times=2)
    fal.fault("submit", Reset(accept=True))
    fal.fault("listing", ingress(), times=FOREVER)
    assert isinstance(error_of(fal), OutcomeUnknownError)
    assert (len(fal.requests("submit")), fal.accepted) == (3, 1)


async def end_at(fal: FalStandIn, moment: Callable[[Recorder], object], how: str, **options: Any) -> float:
    """Ends a run once `moment` has come, and returns how long that took."""
    observer = Recorder()
    making = asyncio.ensure_future(make(fal, observer=observer, **options))
    while not moment(observer):
        await asyncio.sleep(0.01)
    begun = time.monotonic()
    observer.stop() if how == "stop" else making.cancel()
    with pytest.raises(StoppedError if how == "stop" else asyncio.CancelledError):
        await making
    return time.monotonic() - begun


both_ends = pytest.mark.parametrize("how", ["stop", "cancel"])


@both_ends
def test_s7_ended_while_it_waits_it_sends_nothing_more(fal: FalStandIn, how: str) -> None:
    fal.fault("submit", Reply(429, {"Retry-After": "4"}))
    seconds = run(end_at(fal, lambda _: [one for one in fal.requests("submit") if one.outcome == "replied"], how))
    assert seconds < 3
    assert len(fal.requests("submit")) == 1
    assert (fal.accepted, records_of(fal)) == (0, [])


@both_ends
def test_ended_while_it_looks_for_a_lost_job_it_goes_on_with_it_later(fal: FalStandIn, how: str) -> None:
    fal.fault("submit", Reset(accept=True))
    fal.fault("listing", ingress(), times=FOREVER)
    policy = policy_with(reconcile_pauses=(0, 30))
    seconds = run(end_at(fal, lambda _: fal.requests("listing"), how, policy=policy))
    assert seconds < 3
    assert record_of(fal).state is State.SUBMIT_UNKNOWN
    fal.clear_faults()
    run(make(fal))
    check_one_job(fal)


def test_stopped_before_it_began_it_pays_nothing(fal: FalStandIn) -> None:
    observer = Recorder()
    observer.stop()
    with pytest.raises(StoppedError):
        run(make(fal, observer=observer))
    assert fal.accepted == 0
    assert records_of(fal) == []


# S9: redirects


PLACES = {
    "self": "https://{host}{target}",
    "evil": "https://evil.example{target}",
    "media": "https://v3b.fal.media{target}",
    "http": "http://{host}{target}",
    "nowhere": "",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_s9_a_redirect_is_never_followed(fal: FalStandIn, status: int, place: str) -> None:
    fal.fault("submit", Redirect(status, PLACES[place]), times=FOREVER)
    assert isinstance(error_of(fal), OutcomeUnknownError)
    assert [record.state for record in records_of(fal)] == [State.SUBMIT_UNKNOWN]
    assert (len(fal.requests("submit")), fal.accepted) == (1, 0)
    assert fal.requests("media") == fal.requests("evil") == []
    assert {connect.split(":")[0] for connect in fal.connects} <= {"queue.fal.run", "api.fal.ai"}


@pytest.mark.parametrize("status", [302, 307])
def test_s9_a_job_that_was_made_behind_a_redirect_is_found(fal: FalStandIn, status: int) -> None:
    fal.fault("submit", Redirect(status, PLACES["self"], accept=True), times=FOREVER)
    assert run(make(fal)).num_frames == 9
    check_one_job(fal)


# S10: refusals

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
    "425": (Reply(425), {"status": 425}, ["no reason that can be read"]),
    "400-platform": (
        Reply(400, {"X-Fal-Error-Type": "bad_request"}, {"detail": "Bad", "error_type": "other"}),
        {"status": 400, "error_type": "bad_request"},
        ["Bad"],
    ),
    "422-list": (
        Reply(422, body=LIST_422),
        {"status": 422, "fields": ("prompt", "seed"), "error_type": "string_too_long"},
        ["Too long; Not whole", "(prompt, seed)"],
    ),
    "422-string": (Reply(422, body={"detail": "Not so"}), {"status": 422, "fields": ()}, ["Not so"]),
    "422-html": (Reply(422, {"content-type": "text/html"}, b"<html>"), {"status": 422}, ["no reason"]),
    "422-empty": (Reply(422), {"status": 422}, ["no reason"]),
    "422-deep": (Reply(422, body=DEEP), {"status": 422}, ["no reason"]),
    "422-odd": (
        Reply(422, body={"detail": [1, None, {"loc": "x", "msg": {}, "type": 3}], "error_type": [], "error": 5}),
        {"status": 422, "fields": (), "error_type": None},
        ["no reason"],
    ),
    "422-long": (Reply(422, body={"detail": "word " * 10_000}), {"status": 422}, ["word word"]),
    "422-retryable": (
        Reply(422, {"X-Fal-Retryable": "True"}, {"detail": "Later"}),
        {"retryable": True},
        ["A new try is likely to help."],
    ),
    "422-not-retryable": (
        Reply(422, {"X-Fal-Needs-Retry": "0"}, {"detail": "Never"}),
        {"retryable": False},
        ["will not help"],
    ),
    "content-policy": (
        Reply(422, body=content_policy({"prompt": PROMPT}).body),
        {"status": 422, "fields": ("prompt",), "error_type": "content_policy_violation", "retryable": False},
        ["flagged by a content checker", "change what it asks for"],
    ),
}


@pytest.mark.parametrize(("fault", "facts", "texts"), REFUSALS.values(), ids=REFUSALS)
def test_s10_a_refusal_is_told_and_not_repeated(
    fal: FalStandIn, caplog: pytest.LogCaptureFixture, fault: Fault, facts: dict[str, Any], texts: list[str]
) -> None:
    fal.fault("submit", fault, times=FOREVER)
    error = error_of(fal)
    assert type(error) is FalError
    assert {name: getattr(error, name) for name in facts} == facts
    assert error.stage == "submit"
    assert [text for text in (*texts, "nothing to pay") if text not in str(error)] == []
    assert len(str(error)) < 1000
    assert len(fal.requests("submit")) == 1
    assert records_of(fal) == []
    assert PROMPT not in texts_of_log(caplog)


def test_s10_a_locked_account(fal: FalStandIn) -> None:
    fal.locked = True
    assert "Exhausted balance" in str(error_of(fal))
    assert len(fal.requests("submit")) == 1


def test_s10_a_key_that_is_not_known(fal: FalStandIn, caplog: pytest.LogCaptureFixture) -> None:
    error = error_of(fal, key="unknown-id:unknown-secret")
    assert error.status == 401
    assert "unknown-" not in f"{error} {texts_of_log(caplog)}"


def test_s10_an_endpoint_that_is_not_there(fal: FalStandIn) -> None:
    gone = replace(TEXT_TO_VIDEO, id="fal-ai/cosmos-predict-9/text-to-video")
    assert error_of(fal, endpoint=gone).status == 404


def test_s10_the_schema_is_checked_by_fal_at_submission(fal: FalStandIn) -> None:
    fal.validate_at = "submit"
    endpoint = replace(DISTILLED, num_inference_steps=TEXT_TO_VIDEO.num_inference_steps)
    error = error_of(fal, replace(REQUEST, num_inference_steps=30), endpoint=endpoint)
    assert error.fields == ("num_inference_steps",)
    assert error.error_type == "less_than_equal"


def test_s10_an_answer_that_says_the_key_again_is_redacted(fal: FalStandIn) -> None:
    detail = f"Key {fal.key} is bad, and {fal.key.split(':')[1]} too"
    fal.fault("submit", Reply(401, body={"detail": detail, "error_type": fal.key.split(":")[0]}))
    assert error_of(fal).status == 401


# S11: the URLs of the answer

NAMES = ("status_url", "response_url", "cancel_url")
BAD_URLS = {
    "evil": "https://evil.example/{path}",
    "evil-as-user": "https://queue.fal.run@evil.example/{path}",
    "evil-subdomain": "https://queue.fal.run.evil.example/{path}",
    "backslash": "https://queue.fal.run\\@evil.example/{path}",
    "media": "https://v3b.fal.media/{path}",
    "http": "http://queue.fal.run/{path}",
    "user": "https://user:word@queue.fal.run/{path}",
    "port": "https://queue.fal.run:8443/{path}",
    "other-id": f"{QUEUE}/{APP}/requests/{OTHER_ID}/status",
    "id-as-query": f"{QUEUE}/{APP}/requests/{OTHER_ID}?x=/{{path}}",
    "encoded-dots": f"{QUEUE}/x/%2e%2e/{{path}}",
    "fragment": f"{QUEUE}/{{path}}#x",
    "relative": "/{path}",
    "no-url": "https://[",
    "empty": "",
    "line-break": f"{QUEUE}/{{path}}\r\nx: y",
    "null": None,
    "number": 5,
    "list": [],
}


@pytest.mark.parametrize("url", BAD_URLS.values(), ids=BAD_URLS)
def test_s11_a_url_that_is_not_the_queues_own_is_built_instead(fal: FalStandIn, url: Any) -> None:
    def change(reply: dict[str, Any]) -> dict[str, Any]:
        path = f"{APP}/requests/{reply['request_id']}"
        return {**reply, **{name: url.format(path=path) if isinstance(url, str) else url for name in NAMES}}

    fal.fault("submit", Json(change))
    run(make(fal))
    check_one_job(fal)
    (request_id,) = fal.jobs
    base = f"/{APP}/requests/{request_id}"
    assert {request.target for request in fal.requests("status")} == {f"{base}/status?logs=1"}
    assert {request.target for request in fal.requests("result")} == {base}
    assert {request.host for request in fal.requests("status")} == {"queue.fal.run"}
    assert {connect.split(":")[0] for connect in fal.connects} == {"queue.fal.run", "api.fal.ai", "v3b.fal.media"}


def test_s11_urls_that_are_absent_are_built(fal: FalStandIn) -> None:
    fal.fault("submit", without_fields(*NAMES))
    run(make(fal))
    check_one_job(fal)


def test_s11_other_urls_of_the_queue_are_used_as_they_are(fal: FalStandIn) -> None:
    def change(reply: dict[str, Any]) -> dict[str, Any]:
        base = f"{QUEUE}/{ENDPOINT}/requests/{reply['request_id']}"
        return {**reply, "status_url": f"{base}/status?x=1", "response_url": f"{base}/response"}

    fal.fault("submit", Json(change))
    run(make(fal))
    (request_id,) = fal.jobs
    base = f"/{ENDPOINT}/requests/{request_id}"
    assert {request.target for request in fal.requests("status")} == {f"{base}/status?x=1&logs=1"}
    assert {request.target for request in fal.requests("result")} == {f"{base}/response"}


# S12 and X4: processes


@pytest.mark.parametrize(
    ("kill_at", "accepted_then", "end"),
    [
        ("Sending the job", 0, "OutcomeUnknownError"),
        ("Sent to fal", 1, "video"),
        ("Running at fal", 1, "video"),
        ("Downloading", 1, "video"),
    ],
)
def test_s12_a_killed_process_is_gone_on_with(fal: FalStandIn, kill_at: str, accepted_then: int, end: str) -> None:
    assert fal_worker.outcome_of(start(fal, kill_at=kill_at)) is None
    assert fal.accepted == accepted_then
    if end == "video":
        assert run(make(fal)).num_frames == 9
        check_one_job(fal)
    else:
        assert type(error_of(fal)).__name__ == end
        assert fal.requests("submit") == []
        assert record_of(fal).state is State.SUBMITTING


@pytest.mark.parametrize("moment", ["before-the-job", "after-the-job"])
def test_s12_a_process_killed_before_the_answer_does_not_pay_twice(fal: FalStandIn, moment: str) -> None:
    fal.fault("submit", Hang(accept=moment == "after-the-job"))
    worker = start(fal)
    fal.wait_for(lambda: fal.requests("submit"))
    fal.wait_for(lambda: fal.accepted == (moment == "after-the-job"))
    worker.send_signal(signal.SIGKILL)
    assert fal_worker.outcome_of(worker) is None
    assert record_of(fal).state is State.SUBMITTING
    fal.release()
    if moment == "after-the-job":
        run(make(fal))
        check_one_job(fal)
    else:
        assert isinstance(error_of(fal), OutcomeUnknownError)
        assert (len(fal.requests("submit")), fal.accepted) == (1, 0)


def test_x4_two_processes_with_one_request_make_one_job(fal: FalStandIn) -> None:
    first, second = start(fal), start(fal)
    assert fal_worker.outcome_of(first) == fal_worker.outcome_of(second)
    check_one_job(fal)
    assert len(fal.requests("media")) == 1


def test_x4_two_processes_with_two_requests_make_two_jobs(fal: FalStandIn) -> None:
    workers = [start(fal, request={"seed": seed}) for seed in (1, 2)]
    assert [(fal_worker.outcome_of(worker) or {})["seed"] for worker in workers] == [1, 2]
    assert sorted(job.seed for job in fal.jobs.values()) == [1, 2]
    assert len(fal.requests("submit")) == 2
    assert records_of(fal) == []


def test_x4_the_lock_of_a_killed_process_does_not_hold_up_another(fal: FalStandIn) -> None:
    fal.queue_seconds = 1e6
    holder = start(fal)
    fal.wait_for(lambda: fal.requests("status"))
    waiting = start(fal)
    fal.wait_for(lambda: waiting.poll() is not None or len(fal.requests("status")) > 20)
    holder.send_signal(signal.SIGKILL)
    assert fal_worker.outcome_of(holder) is None
    fal.complete(next(iter(fal.jobs)))
    assert "video" in (fal_worker.outcome_of(waiting) or {})
    check_one_job(fal)


# S13: the prompt


@pytest.mark.parametrize(
    "prompt",
    ["x" * 2**20, "Ein roter Würfel, 赤い立方体, مكعب, 🟥", 'quotes " \\ \n \t \x00 \u2028 \x7f', "\ufeff \ufffe 🏳️‍🌈"],
    ids=["1-mb", "non-ascii", "escapes", "odd"],
)
def test_s13_the_prompt_arrives_as_it_is(fal: FalStandIn, prompt: str) -> None:
    run(make(fal, replace(REQUEST, prompt=prompt)))
    (request,) = fal.requests("submit")
    assert request.json()["prompt"] == prompt
    assert json.dumps(prompt, ensure_ascii=False).encode() in request.body
    assert int(request.headers["content-length"]) == len(request.body)
    check_one_job(fal)


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_s13_half_a_character_is_refused_here(field: str) -> None:
    with pytest.raises(InvalidRequestError, match=field):
        replace(REQUEST, **{field: "a cube \ud83d"})


@pytest.mark.parametrize(
    "prompt", ["x" * 2**20, "赤い立方体 🟥", 'quotes " \\ \n'], ids=["1-mb", "non-ascii", "escapes"]
)
def test_s13_a_lost_job_with_such_a_prompt_is_found(fal: FalStandIn, prompt: str) -> None:
    fal.fault("submit", Reset(accept=True))
    run(make(fal, replace(REQUEST, prompt=prompt)))
    check_one_job(fal)


# P1 to P3: the price


@pytest.mark.parametrize(
    "fault",
    [
        Reply(429, {"Retry-After": "100"}),
        Reply(500),
        Reply(401),
        ingress(),
        Reset(),
        Hang(),
        Drip(1),
        EndlessBody(),
        GzipBomb(),
        Redirect(302, "https://evil.example/"),
        Reply(200, body=b"<html>"),
        Reply(200, body=DEEP),
        Reply(200, body=None),
        Reply(200, body={"prices": None}),
        Reply(200, body={"prices": [None, {"endpoint_id": ENDPOINT, "unit_price": "1e999", "unit": 1}]}),
        Reply(200, body={"prices": [{"endpoint_id": ENDPOINT, "unit_price": None, "unit": "v", "currency": "USD"}]}),
        Reply(200, body={"prices": [{"endpoint_id": ENDPOINT, "unit_price": -1, "unit": [], "currency": {}}]}),
        Reply(200, body={"prices": {"endpoint_id": ENDPOINT}}),
        Reply(200, body={"prices": [{"endpoint_id": ENDPOINT, "unit_price": [1]}]}),
    ],
    ids=str,
)
def test_p1_trouble_with_the_price_never_blocks(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("pricing", fault, times=FOREVER)
    begun = time.monotonic()
    assert run(make(fal)).num_frames == 9
    assert time.monotonic() - begun < 8
    check_one_job(fal)


def messages_while_it_runs(fal: FalStandIn, **options: Any) -> list[str]:
    """With the price known before the job ends."""
    fal.queue_seconds, observer = 1e6, Recorder()

    async def work() -> None:
        making = asyncio.ensure_future(make(fal, observer=observer, **options))
        while not any("price" in message or "$" in message for message in observer.messages):
            await asyncio.sleep(0.01)
        fal.complete(list(fal.jobs)[-1])
        await making

    run(work())
    return observer.messages


def test_p1_the_price_is_shown(fal: FalStandIn) -> None:
    assert any("$0.20 a video" in message for message in messages_while_it_runs(fal))
    (request,) = fal.requests("pricing")
    assert request.host == "api.fal.ai"
    assert request.headers["authorization"] == f"Key {fal.key}"


def test_p1_an_unknown_price_is_told(fal: FalStandIn) -> None:
    fal.fault("pricing", Reply(500), times=FOREVER)
    assert any("price unknown" in message for message in messages_while_it_runs(fal))


def test_p2_the_price_of_an_endpoint_that_the_platform_does_not_know(fal: FalStandIn) -> None:
    fal.prices.clear()
    assert any("price unknown" in message for message in messages_while_it_runs(fal))


def test_p3_the_price_is_asked_for_in_each_run(fal: FalStandIn) -> None:
    messages_while_it_runs(fal)
    fal.prices[ENDPOINT] = 1.5
    messages = messages_while_it_runs(fal, request=replace(REQUEST, seed=8))
    assert any("$1.50 a video" in message for message in messages)


# P4 and P5: the listing


def lose_answer(fal: FalStandIn, **options: Any) -> Record:
    """A job that fal has and that is unknown here."""
    fal.fault("submit", Reset(accept=True))
    fal.fault("listing", ingress(), times=FOREVER)
    assert isinstance(error_of(fal, **options), OutcomeUnknownError)
    fal.clear_faults()
    return record_of(fal)


def submit_by_another(times: int = 1, endpoint_id: str = ENDPOINT, **fields: Any) -> None:
    async def work() -> None:
        async with FalClient(policy=FAST) as client:
            for _ in range(times):
                await client.submit(endpoint_id, {**INPUT, **fields})

    run(work())


def test_p4_no_candidate_is_unknown(fal: FalStandIn) -> None:
    submit_by_another(seed=8)
    submit_by_another(prompt="Another.")
    submit_by_another(num_inference_steps=10)
    submit_by_another(endpoint_id=DISTILLED.id)
    fal.fault("submit", ingress())
    error = error_of(fal)
    assert isinstance(error, OutcomeUnknownError)
    assert "no job like it, or not yet" in str(error)


@pytest.mark.parametrize("defaults", [False, True], ids=["as-sent", "with-defaults"])
@pytest.mark.parametrize("scale", [7.0, 8.0, 7.5])
def test_p4_one_candidate_is_gone_on_with(fal: FalStandIn, defaults: bool, scale: float) -> None:
    fal.listed_defaults = defaults
    request = replace(REQUEST, guidance_scale=scale)
    submit_by_another(seed=8)
    fal.fault("submit", Reset(accept=True))
    run(make(fal, request))
    assert [job.seed for job in fal.jobs.values()] == [8, 7]
    assert records_of(fal) == []


def test_p4_what_is_asked_of_the_listing(fal: FalStandIn) -> None:
    record = lose_answer(fal)
    request = fal.requests("listing")[0]
    assert (request.host, request.argument("endpoint_id")) == ("api.fal.ai", ENDPOINT)
    assert request.argument("expand") == "payloads"
    assert int(request.argument("limit")) <= 100
    for name in ("start", "end"):
        assert request.argument(name).endswith("+00:00")
    assert request.argument("start") < time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) < "3"
    assert request.headers["authorization"] == f"Key {fal.key}"


def test_p4_two_candidates_are_unknown(fal: FalStandIn) -> None:
    lose_answer(fal)
    submit_by_another()
    error = error_of(fal)
    assert isinstance(error, OutcomeUnknownError)
    assert "2 jobs like it" in str(error)
    assert fal.accepted == 2
    assert record_of(fal).state is State.SUBMIT_UNKNOWN


def test_p4_a_candidate_that_another_record_claims_is_left_out(fal: FalStandIn) -> None:
    submit_by_another()
    (claimed,) = fal.jobs
    claim = Record("another", ENDPOINT, "0", "0", [], 1, state=State.RUNNING, request_id=claimed)
    journal_of(fal).save(claim)
    fal.fault("submit", ingress())
    assert isinstance(error_of(fal), OutcomeUnknownError)
    submit_by_another()
    run(make(fal))
    assert records_of(fal) == [claim]
    media = fal.requests("media")[0].path
    assert [job.media_path == media for job in fal.jobs.values()] == [False, True]


@pytest.mark.parametrize("listed", ["started", "completed"])
def test_p4_a_job_that_is_listed_late_is_found_in_a_later_run(fal: FalStandIn, listed: Any) -> None:
    fal.listed = listed
    lose_answer(fal)
    assert "not yet" in str(error_of(fal))
    fal.clock.advance(3 if listed == "started" else 8)
    run(make(fal))
    check_one_job(fal)


def test_p4_a_job_that_was_not_stored_is_not_found_and_not_sent_again(fal: FalStandIn) -> None:
    lose_answer(fal, store=False)
    for _ in range(2):
        assert isinstance(error_of(fal, store=False), OutcomeUnknownError)
    assert len(fal.requests("submit")) == 1


def test_p4_a_job_that_failed_is_found_and_told(fal: FalStandIn) -> None:
    fal.fail_next(content_policy)
    fal.fault("submit", Reset(accept=True))
    error = error_of(fal)
    assert error.error_type == "content_policy_violation"
    assert records_of(fal) == []


@pytest.mark.parametrize(
    "fault",
    [
        Reply(401, body={"error": {"type": "authorization_error", "message": "No"}}),
        Reply(403),
        Reply(429, {"Retry-After": "100"}),
        ingress(),
        Reset(),
        Redirect(302, "https://evil.example/"),
        GzipBomb(),
        Reply(200, body=DEEP),
        Reply(200, body=b""),
        Reply(200, body=[]),
        Reply(200, body={}),
        Reply(200, body={"items": None}),
        Reply(200, body={"items": {"a": 1}}),
        Reply(200, body={"items": [None, 5, [], {}, {"request_id": 7}, {"request_id": "a/b/../cdefgh"}]}),
        Reply(200, body={"items": [{"request_id": OTHER_ID, "json_input": value} for value in (None, "x", [], {})]}),
        Reply(200, body={"items": [], "has_more": True, "next_cursor": 5}),
        Json(lambda reply: {**reply, "items": [{**item, "request_id": "a b"} for item in reply["items"]]}),
        Json(lambda reply: {**reply, "items": [{**item, "json_input": [1]} for item in reply["items"]]}),
    ],
    ids=str,
)
def test_p4_a_listing_that_is_of_no_use_leaves_it_unknown(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("submit", Reset(accept=True))
    fal.fault("listing", fault, times=FOREVER)
    assert isinstance(error_of(fal), OutcomeUnknownError)
    assert record_of(fal).state is State.SUBMIT_UNKNOWN
    fal.clear_faults()
    run(make(fal))
    check_one_job(fal)


def test_p5_all_pages_are_read(fal: FalStandIn) -> None:
    lose_answer(fal)
    submit_by_another(101, seed=8)
    submit_by_another()
    before = len(fal.requests("listing"))
    assert "2 jobs like it" in str(error_of(fal))
    assert [request.argument("cursor") for request in fal.requests("listing")[before:]] == ["", "100"] * 2

    newest = list(fal.jobs)[-1]
    journal_of(fal).save(Record("another", ENDPOINT, "0", "0", [], 1, state=State.RUNNING, request_id=newest))
    run(make(fal))
    assert fal.requests("media")[0].path == next(iter(fal.jobs.values())).media_path


def test_p5_a_page_that_comes_twice_does_not_make_two_candidates(fal: FalStandIn) -> None:
    lose_answer(fal)
    fal.fault("listing", with_fields(has_more=True, next_cursor="0"), times=FOREVER)
    run(make(fal))
    check_one_job(fal)


def test_p5_pages_without_end_are_not_read_without_end(fal: FalStandIn) -> None:
    def more(reply: dict[str, Any]) -> dict[str, Any]:
        return {**reply, "has_more": True, "next_cursor": str(1000 + len(fal.requests("listing")))}

    fal.fault("submit", ingress())
    fal.fault("listing", Json(more), times=300)
    assert isinstance(error_of(fal), OutcomeUnknownError)
    assert len(fal.requests("listing")) < 300


# X1: proxies


def test_x1_every_request_goes_through_the_proxy(fal: FalStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"127.0.0.1:{fal.ports['proxy']}")
    run(make(fal))
    assert set(fal.connects) == {"queue.fal.run:443", "api.fal.ai:443", "v3b.fal.media:443"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "socks5://127.0.0.1:1"), ("https_proxy", "ftp://127.0.0.1:1")],
)
def test_x1_a_proxy_that_cannot_be_used_is_told_before_there_is_a_record(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(CosmosError, match=r"(?i)proxy"):
        run(make(fal))
    assert fal.connects == []
    assert records_of(fal) == []


def test_x1_a_ca_file_that_is_not_there_is_told_before_there_is_a_record(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(fal.folder / "missing.pem"))
    with pytest.raises(CosmosError):
        run(make(fal))
    assert records_of(fal) == []


# X5: the clock


@pytest.mark.parametrize("hours", [-48, -1, 1, 48])
def test_x5_a_clock_that_jumped_does_not_lead_to_a_second_job(fal: FalStandIn, hours: float) -> None:
    record = lose_answer(fal)
    record.created += hours * 3600
    journal_of(fal).save(record)
    try:
        run(make(fal))
    except OutcomeUnknownError:
        assert record_of(fal).state is State.SUBMIT_UNKNOWN
    assert (len(fal.requests("submit")), fal.accepted) == (1, 1)


def test_x5_a_clock_that_jumps_back_while_a_job_runs_changes_nothing(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    jumps: list[float] = []

    def jump(reply: dict[str, Any]) -> None:
        jumps.append(1e6)

    fal.fault("status", Json(jump), after=1)
    monkeypatch.setattr(time, "time", lambda: real() - sum(jumps))
    run(make(fal))
    assert jumps
    check_one_job(fal)


# X6: event loops


def test_x6_threads_with_loops_of_their_own_beside_a_running_one(fal: FalStandIn) -> None:
    def in_thread(seed: int) -> int:
        return run(make(fal, replace(REQUEST, seed=seed))).seed

    async def main() -> list[Any]:
        threads = [asyncio.to_thread(in_thread, seed) for seed in (1, 2, 2)]
        return await asyncio.gather(make(fal), *threads)

    video, *seeds = asyncio.run(main())
    assert (video.seed, seeds) == (7, [1, 2, 2])
    assert sorted(job.seed for job in fal.jobs.values()) == [1, 2, 7]
    assert len(fal.requests("submit")) == 3
    assert records_of(fal) == []


# What the review of the submission found


def test_the_end_of_the_program_while_a_request_is_on_its_way_keeps_the_record(fal: FalStandIn) -> None:
    fal.fault("submit", Hang(accept=True))

    async def main() -> None:
        task = asyncio.ensure_future(make(fal))
        await asyncio.to_thread(fal.wait_for, lambda: fal.accepted == 1)
        assert not task.done()
        raise RuntimeError("the program ends")

    with pytest.raises(RuntimeError):
        asyncio.run(main())  # cancels all tasks
    assert [record.state for record in records_of(fal)] == [State.SUBMIT_UNKNOWN]
    fal.release()
    assert run(make(fal)).num_frames == 9
    check_one_job(fal)


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


def test_the_user_agent_tells_the_packs_version() -> None:
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert f'version = "{USER_AGENT.split("/")[1].split()[0]}"' in project
