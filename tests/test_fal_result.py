"""The result of a completed job: a video, a failure, or something else."""

import base64
import math
import time
from dataclasses import replace
from typing import Any

import pytest

from cosmos_predict25.devtools.fal_faults import NOT_FOUND, with_video
from cosmos_predict25.devtools.fal_standin import (
    FIELD_ERROR,
    FOREVER,
    GENERATION_TIMEOUT,
    SERVER_ERROR,
    TEXT_ERROR,
    Body,
    Drip,
    EndlessBody,
    FalStandIn,
    Fault,
    Json,
    Outcome,
    Reply,
    content_policy,
    ingress,
    with_fields,
    without_fields,
)
from cosmos_predict25.devtools.fal_standin.jobs import CANCELLED
from cosmos_predict25.pipeline.errors import FalError, JobExpiredError, JobKeptError
from cosmos_predict25.pipeline.fal import IMAGE_TO_VIDEO, VIDEO_TO_VIDEO, Endpoint
from cosmos_predict25.pipeline.fal.journal import JobState
from cosmos_predict25.tests.fal import (
    BRIEF,
    PROMPT,
    REQUEST,
    error_of,
    failed,
    goes_on,
    goes_on_through,
    is_blocked,
    journal_of,
    make,
    only_id,
    policy_with,
    record_of,
    records_of,
    run,
    videos_of,
)

OWN = {"x-fal-request-id": "00000000-0000-4000-8000-000000000001"}
UNREADABLE = Outcome(
    422,
    {"detail": [{"loc": ["body", "image_url"], "msg": "Failed to read the image", "type": "image_load_error"}]},
    error="Failed to read the image",
    error_type="image_load_error",
)


def test_a_completed_job_that_stays_in_progress_is_kept(fal: FalStandIn) -> None:
    fal.fault("result", Reply(400, body={"detail": "Request is still in progress"}), times=FOREVER)
    error = failed(fal, JobKeptError, policy=BRIEF)
    assert (error.stage, "in progress" in str(error)) == ("result", True)
    assert goes_on(fal).num_frames == 9


POLICY_ERROR = content_policy({"prompt": PROMPT})

NO_RETRY = "will not help"

FAILURES: list[tuple[Outcome, dict[str, Any], str]] = [
    (
        FIELD_ERROR,
        {"error_type": "less_than_equal", "retryable": False},
        "(num_frames): Input should be less than or equal to 93 (HTTP 422",
    ),
    (TEXT_ERROR, {"error_type": None, "retryable": None}, "The prompt could not be used (HTTP 422)"),
    (
        POLICY_ERROR,
        {"error_type": "content_policy_violation", "retryable": False},
        "The same prompt will be refused again: change what it asks for",
    ),
    (
        replace(POLICY_ERROR, headers={"x-fal-retryable": "true"}),
        {"error_type": "content_policy_violation", "retryable": False},
        "flagged by a content checker",
    ),
    (SERVER_ERROR, {"error_type": "internal_server_error", "retryable": True}, "A retry is likely to help"),
    (replace(SERVER_ERROR, headers={"X-Fal-Needs-Retry": "1"}), {"retryable": True}, "A retry is likely to help"),
    (replace(SERVER_ERROR, headers={"X-Fal-Needs-Retry": "no"}), {"retryable": False}, NO_RETRY),
    (replace(SERVER_ERROR, headers={}), {"retryable": None}, "fal does not say"),
    (GENERATION_TIMEOUT, {"status": 504, "error_type": "generation_timeout", "retryable": False}, NO_RETRY),
    (
        Outcome(500, {"detail": "Runner died", "error_type": "runner_server_error"}),
        {"error_type": "runner_server_error"},
        "Runner died (HTTP 500, runner_server_error)",
    ),
    (
        Outcome(504, {"detail": "Request timed out"}, {"x-fal-error-type": "request_timeout"}),
        {"error_type": "request_timeout"},
        "Request timed out (HTTP 504, request_timeout)",
    ),
    (Outcome(422, {"detail": []}), {"status": 422}, "no readable reason (HTTP 422)"),
    (
        Outcome(422, {"detail": [{"loc": 5, "msg": ["x"], "type": 7}, "x"]}),
        {},
        "no readable reason",
    ),
    (Outcome(422, [1]), {"status": 422}, "no readable reason"),
    (
        Outcome(422, {"detail": [{"loc": ["body", "prompt", 3], "msg": "\x1b[31mred\n" + "y" * 9000, "type": "x\n"}]}),
        {"error_type": "x"},
        "red yyy",
    ),
]


@pytest.mark.sample(15)
@pytest.mark.parametrize(("outcome", "expected", "says"), FAILURES, ids=[says[:40] for _, _, says in FAILURES])
@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
def test_a_failed_job_is_told_with_fals_reason(
    fal: FalStandIn, outcome: Outcome, expected: dict[str, Any], says: str, told: bool
) -> None:
    fal.fail_next(outcome if told else replace(outcome, error=None, error_type=None))
    error = failed(fal, FalError)
    assert (error.stage, error.status) == ("result", outcome.status)
    assert {name: getattr(error, name) for name in expected} == expected
    assert says in str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 1000
    assert len(fal.requests("submit")) == fal.accepted == 1
    assert len(fal.requests("result")) == 3 or outcome.status != 422
    assert records_of(fal) == []
    assert fal.requests("media") == []


@pytest.mark.parametrize(
    "fault", [Reply(422, OWN, {"detail": "no"}), Reply(401), Reply(404, OWN), Reply(500, OWN)], ids=str
)
def test_one_stray_answer_is_not_believed(fal: FalStandIn, fault: Reply) -> None:
    fal.fault("result", fault)
    goes_on_through(fal)


@pytest.mark.parametrize("outcome", [content_policy, FIELD_ERROR, UNREADABLE], ids=["policy", "field", "picture"])
def test_a_refusal_that_the_same_values_meet_again_is_told_without_sending_them(
    fal: FalStandIn, outcome: Outcome
) -> None:
    fal.fail_next(outcome)
    first = error_of(fal)
    asked = len(fal.journal)
    again = error_of(fal)
    assert len(fal.journal) == asked
    assert first.text in str(again)
    assert "nothing was sent this time" in str(again)
    assert (again.error_type, again.request_id) == (first.error_type, only_id(fal))
    assert run(make(fal, replace(REQUEST, prompt="Another prompt."))).num_frames == 9
    (path,) = [path for path in journal_of(fal).folder.glob("*.json") if "refusal" in path.read_text()]
    assert f"delete {path} and run the same again" in str(again)
    path.unlink()
    run(make(fal))
    assert fal.accepted == 3


@pytest.mark.parametrize("outcome", [TEXT_ERROR, SERVER_ERROR], ids=["text", "server"])
def test_a_failure_that_may_pass_is_not_held_against_the_next_run(fal: FalStandIn, outcome: Outcome) -> None:
    fal.fail_next(outcome)
    error_of(fal)
    run(make(fal))
    assert fal.accepted == 2


NEGATIVE_PROMPT = "Blurred hands of a stranger in another country."


@pytest.mark.parametrize(
    ("name", "repeated"),
    [("prompt", PROMPT), ("negative_prompt", NEGATIVE_PROMPT)],
    ids=["prompt", "negative prompt"],
)
def test_a_reason_that_says_the_prompt_and_the_key_again_is_shown_without_them(
    fal: FalStandIn, caplog: pytest.LogCaptureFixture, name: str, repeated: str
) -> None:
    detail = f"For Key {fal.key}: the prompt '{repeated}' is not allowed, see data:video/mp4;base64,AAAA"
    fal.fault("status", with_fields(status="FAILED", error=detail, logs=[detail]))
    fal.fault("result", Reply(422, {"x-fal-request-id": "1"}, {"detail": detail}), times=3)
    error = failed(fal, FalError, request=replace(REQUEST, negative_prompt=NEGATIVE_PROMPT))
    assert f"the prompt '[{name}]' is not allowed" in str(error)
    assert "AAAA" not in str(error)
    for words in (repeated, repeated[:12], repeated[-12:]):
        assert words not in str(error)
        assert words not in caplog.text


@pytest.mark.parametrize("endpoint", [IMAGE_TO_VIDEO, VIDEO_TO_VIDEO], ids=lambda endpoint: endpoint.name)
def test_a_reason_that_says_the_address_of_the_start_again_is_shown_without_it(
    fal: FalStandIn, endpoint: Endpoint
) -> None:
    address = "https://example.com/of-nobody-else"
    fal.fault("result", Reply(422, {"x-fal-request-id": "1"}, {"detail": f"Cannot fetch {address}"}), times=3)
    error = failed(fal, FalError, endpoint=endpoint, media=address)
    assert f"Cannot fetch [{endpoint.media}]" in str(error)


UNDOCUMENTED: dict[str, Fault] = {
    **{f"a bare {status}": Reply(status) for status in (400, 402, 405, 407, 410, 413, 500, 502, 503)},
    **{
        f"{status} and a detail": Reply(status, body={"detail": "No"})
        for status in (400, 404, 422, 499, 500, 502, 503, 504)
    },
    **{f"{status} with fal's header": Reply(status, OWN) for status in (400, 402, 405, 407, 410, 413, 500, 502, 503)},
    "a page of 502 with fal's header": Reply(502, {**OWN, "content-type": "text/html"}, b"<html>Bad gateway</html>"),
    "a page of 404": ingress(404),
}


@pytest.mark.sample(9)
@pytest.mark.parametrize("fault", UNDOCUMENTED.values(), ids=UNDOCUMENTED)
@pytest.mark.parametrize("times", [1, FOREVER], ids=["once", "for ever"])
def test_what_fal_does_not_document_never_ends_a_job(fal: FalStandIn, fault: Fault, times: int) -> None:
    fal.fault("result", fault, times)
    if times == 1:
        assert goes_on_through(fal).num_frames == 9
        return
    error = failed(fal, JobKeptError)
    assert (error.stage, record_of(fal).request_id) == ("result", only_id(fal))
    assert goes_on(fal).num_frames == 9


DOCUMENTED: dict[str, Fault] = {
    "a failure of the model": Reply(500, OWN, SERVER_ERROR.body),
    "a failure of the model without fal's header": Reply(500, body=SERVER_ERROR.body),
    "a timeout": Reply(504, OWN, GENERATION_TIMEOUT.body),
    "a failure of a runner": Reply(503, OWN, {"detail": "Lost", "error_type": "runner_connection_error"}),
    "a downstream failure": Reply(
        400, OWN, {"detail": [{"loc": ["body"], "msg": "No", "type": "downstream_service_error"}]}
    ),
    "a cancellation": Reply(499, OWN, CANCELLED.body),
    "an unknown job": NOT_FOUND,
}


@pytest.mark.parametrize("fault", DOCUMENTED.values(), ids=DOCUMENTED)
def test_a_documented_failure_is_read_again_before_it_is_believed(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("result", fault, times=3)
    assert goes_on_through(fal, policy=policy_with(gone_patience=math.inf)).num_frames == 9


def test_a_job_that_was_cancelled_elsewhere_is_kept_until_the_user_dismisses_it(fal: FalStandIn) -> None:
    fal.fail_next(CANCELLED)
    error = failed(fal, JobExpiredError)
    assert (error.stage, error.status) == ("result", 499)
    assert "was cancelled, though not from here" in str(error)
    is_blocked(fal)


@pytest.mark.parametrize("unit", ["data:" + "a" * 240_000, "https://" * 28_000, "key " * 60_000, "\x1b[" * 120_000])
def test_a_long_reason_is_read_at_once(fal: FalStandIn, unit: str) -> None:
    fal.fail_next(Outcome(422, {"detail": unit}))
    used = time.thread_time()
    error = failed(fal, FalError)
    assert time.thread_time() - used < 20
    assert len(str(error)) < 1000


@pytest.mark.parametrize("status", [400, 500])
def test_fals_own_error_without_a_type_is_told_with_a_way_out(fal: FalStandIn, status: int) -> None:
    fal.fault("result", Reply(status, body={"detail": f"Broken on the way to {PROMPT}."}, headers=OWN), times=FOREVER)
    error = failed(fal, JobKeptError)
    assert f"Broken on the way to [prompt] (HTTP {status})" in str(error)
    assert "does not answer" not in str(error)
    assert f"delete {journal_of(fal).folder}" in str(error)
    goes_on(fal)


def test_fals_own_error_to_the_question_for_the_status_is_told(fal: FalStandIn) -> None:
    fal.fault("status", Reply(500, body={"detail": f"Broken on the way to {PROMPT}."}, headers=OWN), times=FOREVER)
    error = failed(fal, JobKeptError, policy=BRIEF)
    assert "is asked for the status: Broken on the way to [prompt] (HTTP 500)" in str(error)
    goes_on(fal)


def test_a_result_that_is_gone_is_told(fal: FalStandIn) -> None:
    fal.fault("result", NOT_FOUND, times=FOREVER)
    error = failed(fal, JobExpiredError)
    assert (error.stage, error.status) == ("result", 404)
    assert "30 days" in str(error)
    is_blocked(fal)


@pytest.mark.parametrize("store", [True, False])
def test_a_job_that_nobody_came_back_to_in_time_has_expired(fal: FalStandIn, store: bool) -> None:
    fal.run_seconds = math.inf
    failed(fal, JobKeptError, policy=BRIEF, store=store)
    fal.complete(only_id(fal))
    fal.clock.advance(31 * 86400 if store else 3700)
    assert failed(fal, JobExpiredError, store=store).status == 404
    fal.run_seconds = 5
    is_blocked(fal, store=store)


FACTS = ("content_type", "file_name", "file_size", "width", "height", "fps", "duration", "num_frames")

DEEP: list[Any] = []

for _ in range(600):
    DEEP = [DEEP]

HELD: dict[str, Fault] = {
    "no seed": without_fields("seed"),
    "no seed, null": with_fields(seed=None),
    "seed of text": with_fields(seed="7"),
    "only a URL": Json(lambda reply: {"video": {"url": reply["video"]["url"]}}),
    "nulls": with_video(**dict.fromkeys(FACTS)),
    "more": with_fields(more={"a": [1, 2]}, prompt="x", detail="y", status="COMPLETED"),
    "wrong types": with_video(**{name: [{}] for name in FACTS}),
    "halves of characters": with_video(file_name="\ud800\udc00\ud800", more="\x00"),
    "deep": with_fields(deep=DEEP),
    "no numbers": Body(
        lambda body: body.replace(b'"fps": 16', b'"fps": NaN').replace(b'"width": 96', b'"width": -Infinity')
    ),
}


@pytest.mark.parametrize("name", HELD)
def test_whatever_else_a_result_holds_the_video_is_used(fal: FalStandIn, name: str) -> None:
    fal.fault("result", HELD[name])
    video = goes_on_through(fal)
    assert (video.num_frames, video.width, video.height, video.fps, video.seed) == (9, 96, 64, 16, 7)


def test_a_bare_result_is_kept_over_a_failed_download(fal: FalStandIn) -> None:
    fal.bare_result = True
    fal.fault("media", Reply(500), times=FOREVER)
    failed(fal, JobKeptError)
    record = record_of(fal)
    assert record.state is JobState.SUBMITTED
    assert record.result
    assert list(record.result["video"]) == ["url"]
    assert goes_on(fal).seed == 7
    assert len(fal.requests("result")) == 1


FORMATS = [
    ("X264 (.mp4)", "video/mp4"),
    ("VP9 (.webm)", "video/webm"),
    ("PRORES4444 (.mov)", "video/quicktime"),
    ("GIF (.gif)", "image/gif"),
]


@pytest.mark.parametrize(("name", "kind"), FORMATS)
def test_a_video_in_the_result_itself_is_saved(fal: FalStandIn, name: str, kind: str) -> None:
    request = replace(REQUEST, sync_mode=True, video_output_type=name)
    video = run(make(fal, request))
    assert fal.requests("submit")[0].json()["sync_mode"] is True
    assert (video.content_type, video.num_frames, video.width) == (kind, 9, 96)
    assert fal.requests("media") == []
    assert records_of(fal) == []
    assert run(make(fal, request)) == replace(video, notes=())
    assert fal.accepted == 1


@pytest.mark.slow
def test_a_video_in_the_result_may_take_as_long_as_a_download(fal: FalStandIn) -> None:
    fal.fault("result", Drip(0.5, head=False, size=400))
    begun, policy = time.monotonic(), policy_with(result_timeout=2)
    run(make(fal, replace(REQUEST, sync_mode=True), policy=policy))
    assert time.monotonic() - begun > 2 * policy.result_timeout
    assert len(fal.requests("result")) == 1


def test_a_data_uri_that_nobody_asked_for_is_used_too(fal: FalStandIn) -> None:
    content = run(make(fal, replace(REQUEST, seed=8))).path.read_bytes()
    for url in uris(content):
        fal.fault("result", with_video(url=url))
        video = run(make(fal))
        assert video.path.read_bytes() == content
        video.path.unlink()


def uris(content: bytes) -> list[str]:
    text = base64.b64encode(content).decode()
    return [
        f"data:video/mp4;base64,{text}",
        f"DATA:Video/MP4;Base64,{text}",
        f"data:application/octet-stream;base64,{text}",
    ]


MP4 = base64.b64encode(b"\x00\x00\x00\x18ftypmp42" + bytes(100)).decode()

BAD_URIS = {
    "no base64": f"data:video/mp4;base64,{'*' * 100}",
    "a broken one": f"data:video/mp4;base64,{MP4[:-3]}",
    "line breaks": f"data:video/mp4;base64,{MP4[:40]}\n{MP4[40:]}",
    "of URLs": "data:video/mp4;base64,AAAA__--" + MP4,
    "not ASCII": "data:video/mp4;base64,ÄÖÜ" + MP4,
    "not said to be base64": f"data:video/mp4,{MP4}",
    "empty": "data:video/mp4;base64,",
    "nothing": "data:",
    "a page": f"data:text/html;base64,{MP4}",
    "a picture": f"data:image/png;base64,{MP4}",
    "no type": f"data:;base64,{MP4}",
    "too large": "data:video/mp4;base64," + MP4 + "A" * 2**21,
    "no mp4 in it": "data:video/mp4;base64," + base64.b64encode(b"GIF89a" + bytes(100)).decode(),
    "nothing to decode": f"data:video/mp4;base64,{MP4}",
}


@pytest.mark.sample(7)
@pytest.mark.parametrize("name", BAD_URIS)
def test_a_data_uri_that_holds_no_video_is_refused(fal: FalStandIn, name: str) -> None:
    fal.fault("result", with_video(url=BAD_URIS[name]), times=FOREVER)
    error = failed(fal, JobKeptError, policy=policy_with(max_media=2**20))
    assert error.stage == "download"
    assert len(str(error)) < 1000
    assert MP4[:40] not in str(error)
    assert journal_of(fal).path_of(record_of(fal).fingerprint).stat().st_size < 4000
    assert list(videos_of(fal).iterdir()) == []
    assert goes_on(fal).num_frames == 9


@pytest.mark.parametrize("length", [None, 200 * 2**20])
def test_a_result_without_end_is_cut_off(fal: FalStandIn, length: int | None) -> None:
    fal.fault(
        "result", EndlessBody(200 * 2**20, length, b'{"video": "', {"content-type": "application/json"}), times=FOREVER
    )
    # As much time as in production: on a busy machine the limit may be reached later than the tests' 2 seconds.
    error = failed(fal, JobKeptError, policy=policy_with(max_reply=2**18, result_timeout=60))
    assert f"more than {2**18} bytes" in str(error)
    fal.wait_for(lambda: {exchange.outcome for exchange in fal.requests("result")} == {"abandoned"})
    assert goes_on(fal).num_frames == 9
