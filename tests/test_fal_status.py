"""States of a job, read from replies that may hold anything."""

import json
import logging
import math
import random
import time
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from cosmos_predict25.devtools.fal_standin import FOREVER, FalStandIn, Fault
from cosmos_predict25.devtools.fal_standin.wire import Response, Wire
from cosmos_predict25.pipeline.errors import CosmosError, JobExpiredError
from cosmos_predict25.pipeline.fal import Completed, FalClient, InProgress, Queued
from cosmos_predict25.pipeline.fal.display import Display, status_text
from cosmos_predict25.pipeline.fal.journal import JobState
from cosmos_predict25.pipeline.fal.queue.errors import error_from
from cosmos_predict25.pipeline.fal.queue.reply import Reply
from cosmos_predict25.pipeline.fal.queue.status import parse_status, printable_line
from cosmos_predict25.tests.fal import (
    ENDPOINT,
    PROMPT,
    REQUEST,
    Recorder,
    make,
    policy_with,
    record_of,
    records_of,
    run,
)

ID = "0b7ffb9c-3f4f-4a2a-a6a5-6b8f3c1f2d3e"
URL = f"https://queue.fal.run/fal-ai/cosmos-predict-2.5/requests/{ID}"


@pytest.mark.parametrize(
    ("given", "position"),
    [
        ({"queue_position": 0}, 0),
        ({"queue_position": 12}, 12),
        ({}, None),
        ({"queue_position": None}, None),
        ({"queue_position": -1}, None),
        ({"queue_position": "3"}, None),
        ({"queue_position": 2.0}, None),
        ({"queue_position": True}, None),
        ({"queue_position": math.nan}, None),
        ({"queue_position": 10**400}, None),
        ({"queue_position": [1]}, None),
    ],
)
def test_queue_position_is_a_count_or_unknown(given: dict[str, Any], position: int | None) -> None:
    assert parse_status({"status": "IN_QUEUE", **given}) == Queued(position)


@pytest.mark.parametrize(
    ("logs", "lines"),
    [
        (None, ()),
        ([], ()),
        ({"message": "an object"}, ()),
        ("text", ()),
        (7, ()),
        ([{"message": "one", "timestamp": "now"}, {"message": "two", "level": "INFO"}], ("one", "two")),
        (["one", {"message": "two"}], ("one", "two")),
        ([None, 3, [], {}, {"message": None}, {"message": 5}, {"message": ""}, {"message": "\x00\x1b[0m "}], ()),
        ([{"message": "\x1b[31mred\x1b[0m and \x1b]0;title\x07 bell"}], ("red and 0;title bell",)),
        ([{"message": "two\nlines\r\tand \x85more"}], ("two lines and more",)),
        ([{"message": "\u202eturned\u2066 \ud800half\u200b"}], ("turned half",)),
        ([{"message": "x" * 10**6}], ("x" * 200,)),
        ([{"message": str(number)} for number in range(10_000)], tuple(map(str, range(9_900, 10_000)))),
    ],
)
def test_logs_are_the_newest_lines_fit_for_display(logs: Any, lines: tuple[str, ...]) -> None:
    assert parse_status({"status": "IN_PROGRESS", "logs": logs}) == InProgress(lines)
    assert parse_status({"status": "COMPLETED", "logs": logs}) == Completed(lines)


@pytest.mark.parametrize(
    "given",
    [
        {},
        *({"metrics": metrics} for metrics in (None, {}, [], {"inference_time": 10**400}, {"inference_time": 71.3})),
        {"error": "The runner died", "error_type": "internal_server_error"},
        {"error": {"a": 1}, "error_type": []},
    ],
    ids=str,
)
@pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "ERROR", "CANCELED", "CANCELLED"])
def test_the_end_of_a_job_is_the_end_whatever_else_is_told(status: str, given: dict[str, Any]) -> None:
    """Only the result tells whether it is a good one."""
    assert parse_status({"status": status, **given}) == Completed()


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "COMPLETED",
        5,
        True,
        math.nan,
        {},
        *({"status": status} for status in ("", None, 1, [], {})),
    ],
)
def test_what_tells_no_state(body: Any) -> None:
    assert parse_status(body) is None


@pytest.mark.parametrize(
    ("word", "state"), [("PAUSED", InProgress()), ("completed", Completed()), ("in_queue", Queued(3))]
)
def test_a_word_in_small_letters_is_known_and_another_one_is_a_job_that_runs(word: str, state: Any) -> None:
    assert parse_status({"status": word, "queue_position": 3}) == state


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (Queued(None), "Queued at fal"),
        (Queued(3), "Queued at fal, 3 ahead"),
        (InProgress(), "Running at fal"),
        (InProgress(("step 1", "step 2")), "Running at fal: step 2"),
        (Completed(("step 2",)), "fal has finished"),
    ],
)
def test_text_of_a_state(status: Queued | InProgress | Completed, text: str) -> None:
    assert status_text(status) == text


def test_the_bar_follows_the_run_and_is_not_full_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now, observer = [0.0], Recorder()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    shown = Display(observer, 400, seed=7)
    for moment, status in ((100, Queued(1)), (200, InProgress()), (300, InProgress()), (5000, InProgress())):
        now[0] = moment
        shown.show_status(status)
    assert observer.progresses == [(0, 400), (0, 400), (100, 400), (380, 400)]


@pytest.mark.parametrize("text", ["\x1b" * 10_000, "\x1b[" + "1;" * 100_000, "\x1b[" * 50_000, " " * 10**6])
def test_cleaning_leaves_nothing_of_escapes_without_a_text(text: str) -> None:
    assert not set(printable_line(text, 60)) & {"\x1b", "\n"}
    assert len(printable_line(text, 60)) <= 60


BASES: list[dict[str, Any]] = [
    {"status": "IN_QUEUE", "request_id": ID, "queue_position": 2, "response_url": URL, "status_url": f"{URL}/status"},
    {
        "status": "IN_PROGRESS",
        "request_id": ID,
        "response_url": URL,
        "logs": [{"message": f"step {step}/35", "level": "INFO", "timestamp": "now"} for step in range(3)],
    },
    {
        "status": "COMPLETED",
        "request_id": ID,
        "response_url": URL,
        "logs": None,
        "metrics": {"inference_time": 71.3},
        "error": "no",
        "error_type": "internal_error",
    },
    {"detail": [{"loc": ["body", "prompt"], "msg": "no", "type": "missing", "input": PROMPT}], "error_type": "t"},
    {"detail": "Request is still in progress"},
]
DEEP = "[" * 100_000
HALF_DEEP = "[" * 700 + "]" * 700
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1e308,
    10**30,
    "",
    "\x00\x1b[2J",
    "\ud800",
    "\U0001d54f" * 50,
    [],
    {},
    [[]],
    {"": {}},
]
NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "-0", "9" * 5000, "9" * 400, "00", "0x10"]


def mutated(chance: random.Random) -> bytes:
    """A reply that has been wrong in one to three ways."""
    value: Any = json.loads(json.dumps(chance.choice(BASES)))
    raw: bytes | None = None
    for _ in range(chance.randint(1, 3)):
        raw = mutated_once(chance, value) or raw
    return json.dumps(value).encode() if raw is None else raw


def mutated_once(chance: random.Random, value: dict[str, Any]) -> bytes | None:
    """Changes `value` in place, or returns bytes that were made of it."""
    name = chance.choice([*value, "status"])
    text = json.dumps(value)
    encoded = text.encode()
    place = chance.randrange(len(encoded))
    changed = json.dumps({**value, name: "HERE"})
    ways: list[Any] = [
        lambda: value.pop(name, None) and None,
        lambda: value.update({name: None}),
        lambda: value.update({name: chance.choice(VALUES)}),
        lambda: value.update({name: chance.choice([*value.values(), name])}),
        lambda: value.update({chance.choice(["status", "detail", "logs", "metrics", "error"]): chance.choice(VALUES)}),
        lambda: value.update({name: "x" * chance.choice([10_000, 100_000])}),
        lambda: value.update({"logs": [chance.choice([*VALUES, {"message": v}]) for v in VALUES]}),
        lambda: value.update({"status": chance.choice(["FAILED", "in_queue", "DONE", "COMPLETED ", "IN_PROGRESS"])}),
        lambda: encoded[:place],
        lambda: encoded[:place] + bytes([chance.randrange(256)]) + encoded[place + 1 :],
        lambda: encoded[:place] + bytes(chance.randrange(256) for _ in range(5)) + encoded[place:],
        lambda: encoded * 2,
        lambda: text.encode("utf-16"),
        lambda: b"\xef\xbb\xbf" + encoded,
        lambda: json.dumps(chance.choice(VALUES)).encode(),
        lambda: changed.replace('"HERE"', chance.choice(NUMBERS)).encode(),
        lambda: changed.replace('"HERE"', chance.choice([DEEP, HALF_DEEP])).encode(),
        lambda: f'{text[:-1]}, "{name}": {json.dumps(chance.choice(VALUES))}}}'.encode(),
    ]
    return chance.choice(ways)()


@dataclass(frozen=True)
class Mutated(Fault):
    """A mutated reply under any of `statuses`."""

    chance: random.Random
    statuses: tuple[int, ...]

    async def send(self, response: Response, wire: Wire) -> None:
        headers = {"content-type": self.chance.choice(["application/json", "text/html", ""])}
        await wire.send(Response(self.chance.choice(self.statuses), headers, mutated(self.chance)))


@pytest.mark.slow
def test_10000_mutated_replies_raise_nothing_but_our_own_errors() -> None:
    chance = random.Random(7)
    kinds: dict[str, int] = {}
    for _ in range(10_000):
        reply = Reply(chance.choice([200, 202, 400, 422, 500]), httpx.Headers(), mutated(chance))
        error = error_from(reply, "status", "What happened", ID)
        assert len(str(error)) < 2000
        assert PROMPT not in str(error)
        status = parse_status(reply.json) if not reply.unreadable else reply
        if isinstance(status, InProgress | Completed):
            assert all(line.isprintable() and 0 < len(line) <= 200 for line in status.logs)
        kinds[type(status).__name__] = kinds.get(type(status).__name__, 0) + 1
    assert all(kinds[name] > 100 for name in ("Queued", "InProgress", "Completed", "NoneType", "Reply")), kinds


@pytest.mark.slow
@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.exhaustive)])
def test_mutated_status_replies_over_the_wire(fal: FalStandIn, caplog: pytest.LogCaptureFixture, count: int) -> None:
    caplog.set_level(logging.WARNING, "httpcore")
    fal.fault(
        "status", Mutated(chance=random.Random(8), statuses=(200, 202, 200, 202, 400, 401, 404, 418, 422)), FOREVER
    )
    seen: dict[str, int] = {}
    messages: set[str] = set()

    async def look() -> None:
        async with FalClient(policy=policy_with(read_tries=1, backoff=0, poll_intervals=((0, 0),))) as client:
            job = client.job(ENDPOINT, ID)
            for _ in range(count):
                try:
                    kind = type(await client.status(job)).__name__
                except CosmosError as error:
                    kind = type(error).__name__
                    messages.add(str(error))
                seen[kind] = seen.get(kind, 0) + 1

    run(look(), 3600)
    assert len(fal.requests("status")) >= count
    assert all(ID in message and PROMPT not in message for message in messages)
    assert all(
        seen[name] > count / 200 for name in ("Queued", "InProgress", "Completed", "NoneType", "JobKeptError")
    ), seen


@pytest.mark.slow
def test_mutated_status_replies_lose_no_record(fal: FalStandIn) -> None:
    fal.clock.per_poll = 0
    fal.fault("status", Mutated(chance=random.Random(9), statuses=(*[200, 202] * 8, 401, 418, 503)), FOREVER)
    policy = policy_with(wait_limit=0.3, backoff=0, poll_intervals=((0, 0),))

    async def follow_again_and_again() -> None:
        first = None
        while len(fal.requests("status")) <= 100:
            with pytest.raises(CosmosError) as caught:
                await make(fal, policy=policy)
            assert not isinstance(caught.value, JobExpiredError)
            record = record_of(fal)
            first = first or record
            assert record.request_id in fal.jobs
            assert record == first
            assert record.state is JobState.SUBMITTED

    run(follow_again_and_again())
    fal.clear_faults()
    fal.clock.per_poll = 5
    assert run(make(fal)).seed == REQUEST.seed
    assert records_of(fal) == []
    assert fal.accepted == 1
