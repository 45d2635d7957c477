"""The table of verdicts, row by row, and which answer a reply is."""

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from cosmos_predict25.pipeline.fal import NetworkPolicy
from cosmos_predict25.pipeline.fal.queue import verdict
from cosmos_predict25.pipeline.fal.queue.reply import Reply, TransportFailure
from cosmos_predict25.pipeline.fal.queue.verdict import TABLE, Answer, Attempts, Stage, Verdict, classify

POLICY = NetworkPolicy()
MINUTE, HOUR = 60, 3600

ROWS: dict[Stage, dict[Answer, tuple[Verdict, int, float]]] = {
    Stage.UPLOAD: {
        Answer.OK: (Verdict.ANSWERED, 1, 0),
        Answer.NOT_SENT: (Verdict.REFUSED, 5, 0),
        Answer.LOST: (Verdict.REFUSED, 5, 0),
        Answer.BUSY: (Verdict.REFUSED, 5, 0),
        Answer.OTHER: (Verdict.REFUSED, 5, 0),
        Answer.NOT_ALLOWED: (Verdict.REFUSED, 2, 0),
        Answer.REFUSED: (Verdict.REFUSED, 2, 0),
        Answer.BAD_CERTIFICATE: (Verdict.REFUSED, 1, 0),
        Answer.UNREADABLE: (Verdict.REFUSED, 1, 0),
        Answer.REDIRECT: (Verdict.REFUSED, 1, 0),
    },
    Stage.SUBMIT: {
        Answer.OK: (Verdict.ANSWERED, 1, 0),
        Answer.NOT_SENT: (Verdict.REFUSED, 5, 0),
        Answer.BUSY: (Verdict.REFUSED, 1, HOUR),
        Answer.BAD_CERTIFICATE: (Verdict.REFUSED, 1, 0),
        Answer.NOT_ALLOWED: (Verdict.REFUSED, 1, 0),
        Answer.REFUSED: (Verdict.REFUSED, 1, 0),
        Answer.LOST: (Verdict.UNKNOWN, 1, 0),
        Answer.UNREADABLE: (Verdict.UNKNOWN, 1, 0),
        Answer.REDIRECT: (Verdict.UNKNOWN, 1, 0),
        Answer.OTHER: (Verdict.UNKNOWN, 1, 0),
    },
    Stage.STATUS: {
        Answer.OK: (Verdict.ANSWERED, 1, 0),
        Answer.NOT_SENT: (Verdict.GIVE_UP, 8, 0),
        Answer.LOST: (Verdict.GIVE_UP, 8, 0),
        Answer.BUSY: (Verdict.GIVE_UP, 8, 0),
        Answer.OTHER: (Verdict.GIVE_UP, 8, 0),
        Answer.UNREADABLE: (Verdict.GIVE_UP, 5, 0),
        Answer.BAD_CERTIFICATE: (Verdict.GIVE_UP, 1, 0),
        Answer.REDIRECT: (Verdict.GIVE_UP, 1, 0),
        Answer.NOT_ALLOWED: (Verdict.GIVE_UP, 3, 0),
        Answer.NOT_FOUND: (Verdict.EXPIRED, 2, MINUTE),
    },
    Stage.RESULT: {
        Answer.OK: (Verdict.ANSWERED, 1, 0),
        Answer.NOT_SENT: (Verdict.GIVE_UP, 8, 0),
        Answer.LOST: (Verdict.GIVE_UP, 8, 0),
        Answer.BUSY: (Verdict.GIVE_UP, 8, 0),
        Answer.OTHER: (Verdict.GIVE_UP, 8, 0),
        Answer.UNREADABLE: (Verdict.GIVE_UP, 5, 0),
        Answer.BAD_CERTIFICATE: (Verdict.GIVE_UP, 1, 0),
        Answer.REDIRECT: (Verdict.GIVE_UP, 1, 0),
        Answer.NOT_ALLOWED: (Verdict.GIVE_UP, 3, 0),
        Answer.NOT_FOUND: (Verdict.EXPIRED, 2, MINUTE),
        Answer.IN_PROGRESS: (Verdict.GIVE_UP, 1, HOUR),
        Answer.REJECTED: (Verdict.FAILED, 3, 0),
        Answer.FAILED: (Verdict.FAILED, 2, MINUTE),
        Answer.CANCELLED: (Verdict.EXPIRED, 2, MINUTE),
        Answer.CANCELLED_AS_ASKED: (Verdict.CANCELLED, 1, 0),
    },
    Stage.CANCEL: {
        Answer.OK: (Verdict.ANSWERED, 1, 0),
        Answer.NOT_FOUND: (Verdict.ANSWERED, 1, 0),
        Answer.TOO_LATE: (Verdict.ANSWERED, 1, 0),
        Answer.NOT_SENT: (Verdict.GIVE_UP, 3, 0),
        Answer.LOST: (Verdict.GIVE_UP, 3, 0),
        Answer.UNREADABLE: (Verdict.GIVE_UP, 3, 0),
        Answer.BUSY: (Verdict.GIVE_UP, 3, 0),
        Answer.OTHER: (Verdict.GIVE_UP, 3, 0),
        Answer.BAD_CERTIFICATE: (Verdict.GIVE_UP, 1, 0),
        Answer.REDIRECT: (Verdict.GIVE_UP, 1, 0),
        Answer.NOT_ALLOWED: (Verdict.GIVE_UP, 1, 0),
        Answer.REFUSED: (Verdict.GIVE_UP, 1, 0),
    },
    Stage.MEDIA: {
        Answer.OTHER: (Verdict.GIVE_UP, 5, 0),
        Answer.NOT_FOUND: (Verdict.EXPIRED, 2, 3 * MINUTE),
    },
}
"""The verdict, and how often and for how long the answer must have come: of the production policy."""


def name_of(value: Any) -> str | None:
    return getattr(value, "name", None)


CASES = [(stage, answer, *row) for stage, rows in ROWS.items() for answer, row in rows.items()]


@pytest.mark.parametrize(("stage", "answer", "expected", "times", "seconds"), CASES, ids=name_of)
def test_a_verdict_comes_neither_sooner_nor_later_than_its_row_says(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, answer: Answer, expected: Verdict, times: int, seconds: float
) -> None:
    now = [1000.0]
    monkeypatch.setattr(verdict.time, "monotonic", lambda: now[0])
    tally = Attempts(stage, POLICY)
    for _ in range(max(times - 1, 1 if seconds else 0)):
        assert tally.add(answer) is Verdict.AGAIN
    if seconds:
        now[0] += seconds - 1
        assert tally.add(answer) is Verdict.AGAIN
        now[0] += 1
    assert tally.add(answer) is expected


def test_every_row_of_the_table_is_here() -> None:
    assert {stage: rows.keys() for stage, rows in TABLE.items()} == {stage: rows.keys() for stage, rows in ROWS.items()}


def test_long_is_not_enough_without_a_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(verdict.time, "monotonic", lambda: now[0])
    tally = Attempts(Stage.STATUS, replace(POLICY, gone_patience=0))
    assert tally.add(Answer.NOT_FOUND) is Verdict.AGAIN
    assert tally.add(Answer.NOT_FOUND) is Verdict.EXPIRED


def test_only_a_submission_has_an_unknown_outcome_and_only_a_result_ends_a_job() -> None:
    """And nothing but a whole answer of fal itself does."""
    of = {verdict: {(stage, answer) for stage, answer, found, *_ in CASES if found is verdict} for verdict in Verdict}
    assert {stage for stage, _ in of[Verdict.UNKNOWN]} == {Stage.SUBMIT}
    assert of[Verdict.FAILED] == {(Stage.RESULT, Answer.REJECTED), (Stage.RESULT, Answer.FAILED)}
    assert of[Verdict.CANCELLED] == {(Stage.RESULT, Answer.CANCELLED_AS_ASKED)}
    assert {answer for _, answer in of[Verdict.EXPIRED]} == {Answer.NOT_FOUND, Answer.CANCELLED}


OWN = {"x-fal-request-id": "1"}
MODEL_ERROR = {"detail": [{"loc": ["body"], "msg": "No", "type": "internal_server_error"}]}
FIELD_ERROR = {"detail": [{"loc": ["body", "seed"], "msg": "No", "type": "int_parsing"}]}
REQUEST_ERROR = {"detail": "Lost", "error_type": "runner_connection_error"}
TEXT = {"detail": "No"}
PAGE = b"<html>Bad gateway</html>"


def reply(status: int, body: Any = b"", headers: dict[str, str] | None = None) -> Reply:
    return Reply(status, httpx.Headers(headers or {}), body if isinstance(body, bytes) else json.dumps(body).encode())


SUBMISSIONS = [
    *((status, {"request_id": "12345678"}, Answer.OK) for status in (200, 201, 202)),
    *((200, body, Answer.UNREADABLE) for body in (b"", PAGE, b"[" * 100_000)),
    *((status, b"", Answer.REDIRECT) for status in (301, 302, 303, 307, 308)),
    *((status, TEXT, Answer.NOT_ALLOWED) for status in (401, 403)),
    *((status, TEXT, Answer.REFUSED) for status in (400, 402, 404, 405, 409, 410, 413, 422, 425, 451)),
    (429, TEXT, Answer.BUSY),
    *((status, TEXT, Answer.OTHER) for status in (408, 499, 500, 502, 503, 504, 520, 599)),
]


@pytest.mark.parametrize(("status", "body", "answer"), SUBMISSIONS, ids=name_of)
def test_what_a_reply_to_a_submission_is(status: int, body: Any, answer: Answer) -> None:
    assert classify(Stage.SUBMIT, reply(status, body)) is answer
    assert classify(Stage.SUBMIT, reply(status, body, OWN)) is answer


STATUSES = [
    (404, {"status": "NOT_FOUND"}, {}, Answer.NOT_FOUND),
    (404, b"", OWN, Answer.NOT_FOUND),
    (404, TEXT, {}, Answer.OTHER),
    (404, PAGE, {}, Answer.OTHER),
    (404, {"status": "MISSING"}, {}, Answer.OTHER),
    (401, PAGE, {}, Answer.NOT_ALLOWED),
    (403, PAGE, {}, Answer.NOT_ALLOWED),
    (429, PAGE, {}, Answer.BUSY),
    (307, b"", {}, Answer.REDIRECT),
    *((status, MODEL_ERROR, OWN, Answer.OTHER) for status in (400, 402, 405, 407, 410, 413, 422, 499, 500, 502, 504)),
    (202, {"status": "IN_QUEUE"}, {}, Answer.OK),
    (200, PAGE, {}, Answer.UNREADABLE),
]


@pytest.mark.parametrize(("status", "body", "headers", "answer"), STATUSES, ids=name_of)
def test_what_a_reply_to_a_look_at_the_status_is(
    status: int, body: Any, headers: dict[str, str], answer: Answer
) -> None:
    assert classify(Stage.STATUS, reply(status, body, headers)) is answer


RESULTS = [
    (400, {"detail": "Request is still in progress"}, {}, Answer.IN_PROGRESS),
    (404, {"status": "NOT_FOUND"}, {}, Answer.NOT_FOUND),
    (404, TEXT, {}, Answer.OTHER),
    (422, TEXT, OWN, Answer.REJECTED),
    (422, b"", OWN, Answer.REJECTED),
    (422, FIELD_ERROR, {}, Answer.REJECTED),
    (422, TEXT, {}, Answer.OTHER),
    (422, PAGE, {}, Answer.OTHER),
    (499, TEXT, OWN, Answer.CANCELLED),
    (499, TEXT, {}, Answer.OTHER),
    *((status, MODEL_ERROR, OWN, Answer.FAILED) for status in (400, 500, 502, 503, 504)),
    *((status, MODEL_ERROR, {}, Answer.FAILED) for status in (400, 500, 502, 503, 504)),
    *((status, REQUEST_ERROR, {}, Answer.FAILED) for status in (500, 502, 503, 504)),
    (504, TEXT, {**OWN, "x-fal-error-type": "request_timeout"}, Answer.FAILED),
    *((status, TEXT, OWN, Answer.OTHER) for status in (400, 402, 405, 407, 410, 413, 500, 502, 503, 504)),
    *((status, PAGE, OWN, Answer.OTHER) for status in (400, 500, 502, 503, 504)),
    *((status, MODEL_ERROR, OWN, Answer.OTHER) for status in (402, 405, 407, 410, 413)),
    *((status, TEXT, {}, Answer.OTHER) for status in (400, 402, 405, 407, 410, 413, 500, 502, 503, 504)),
]


@pytest.mark.parametrize(("status", "body", "headers", "answer"), RESULTS, ids=name_of)
def test_what_a_reply_to_a_look_at_the_result_is(
    status: int, body: Any, headers: dict[str, str], answer: Answer
) -> None:
    assert classify(Stage.RESULT, reply(status, body, headers)) is answer


def test_a_499_is_a_cancellation_where_fal_has_confirmed_one() -> None:
    assert classify(Stage.RESULT, reply(499, TEXT, OWN), is_cancelled=True) is Answer.CANCELLED_AS_ASKED
    assert classify(Stage.RESULT, reply(499, TEXT), is_cancelled=True) is Answer.OTHER


CANCELLATIONS = [
    (200, {"status": "OK"}, Answer.OK),
    (202, b"", Answer.OK),
    (200, PAGE, Answer.OK),
    (400, {"status": "ALREADY_COMPLETED"}, Answer.TOO_LATE),
    (400, PAGE, Answer.REFUSED),
    (404, {"status": "NOT_FOUND"}, Answer.NOT_FOUND),
    (404, PAGE, Answer.REFUSED),
    (418, b"", Answer.REFUSED),
    (401, b"", Answer.NOT_ALLOWED),
    (429, b"", Answer.BUSY),
    (408, b"", Answer.OTHER),
    (503, PAGE, Answer.OTHER),
    (307, b"", Answer.REDIRECT),
]


@pytest.mark.parametrize(("status", "body", "answer"), CANCELLATIONS, ids=name_of)
def test_what_a_reply_to_a_cancellation_is(status: int, body: Any, answer: Answer) -> None:
    assert classify(Stage.CANCEL, reply(status, body)) is answer


@pytest.mark.parametrize("kind", ["NOT_SENT", "BAD_CERTIFICATE", "LOST", "UNREADABLE"])
@pytest.mark.parametrize("stage", [Stage.SUBMIT, Stage.STATUS, Stage.RESULT, Stage.CANCEL])
def test_no_reply_is_what_the_transport_says(stage: Stage, kind: Any) -> None:
    assert classify(stage, TransportFailure(kind, "x")) is Answer[kind]
