"""The same scripts by the official fal-client and by ours: what each asks of the service, in its order.

Left out of the comparison is what may differ: how `logs` is spelled, how often the status is asked for, the user agent,
that ours gives up where the official one repeats, and that it reads a failure again before it believes it.
"""

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cosmos_predict25.devtools import fal_standin
from cosmos_predict25.devtools.fal_faults import FAST
from cosmos_predict25.devtools.fal_standin import (
    FIELD_ERROR,
    SERVER_ERROR,
    Chop,
    Exchange,
    FalStandIn,
    Fault,
    NoLength,
    Relabel,
    Reply,
    Reset,
    content_policy,
    ingress,
    without_fields,
)
from cosmos_predict25.pipeline.errors import CosmosError
from cosmos_predict25.pipeline.fal import DISTILLED, FalClient, Job
from cosmos_predict25.tests.fal import ENDPOINT, PROMPT, run

OFFICIAL = Path(fal_standin.__file__).parent / "official.py"
INPUT = {"prompt": f"{PROMPT} Größer.", "num_frames": 9, "seed": 7, "guidance_scale": 7.5}
OPTIONS = {"webhook_url": "https://example.com/done?a=1&b=2"}
SAME_HEADERS = ("authorization", "content-type", "x-fal-queue-priority", "x-fal-request-timeout")

Script = Callable[[FalClient], Coroutine[Any, Any, Any]]


@dataclass(frozen=True)
class Scenario:
    """`steps`: for official.py. `ours`: the same with our client. `prepare`: what happens at the service."""

    steps: list[list[Any]]
    ours: Script
    prepare: Callable[[FalStandIn], Any] = field(default=lambda fal: None)


def official(fal: FalStandIn, steps: list[list[Any]]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-I", str(OFFICIAL), "async"],
        input=json.dumps(steps),
        env={"PATH": os.environ["PATH"], **fal.environ},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def asked_in(journal: list[Exchange]) -> list[Any]:
    """All of a journal in its order. Equal requests that follow one another, as looks at the status do, are one."""
    requests = [
        (
            exchange.method,
            exchange.host,
            re.sub("[0-9a-f-]{36}", "ID", exchange.path),
            {name: values for name, values in exchange.query.items() if name != "logs"},
            exchange.json() if exchange.body else None,
            [exchange.headers.get(name) for name in SAME_HEADERS],
        )
        for exchange in journal
    ]
    return [request for request, _ in itertools.groupby(requests)]


async def submit(client: FalClient, **options: Any) -> Job:
    return await client.submit(ENDPOINT, INPUT, **options)


async def happy(client: FalClient) -> Any:
    job = await submit(client)
    async for _ in client.follow(job):
        pass
    return await client.result(job)


async def with_options(client: FalClient) -> Any:
    return await submit(client, **OPTIONS)


async def distilled(client: FalClient) -> Any:
    return await client.submit(DISTILLED.id, {"prompt": PROMPT})


async def one_look(client: FalClient) -> Any:
    return await client.status(await submit(client), logs=False)


async def one_look_with_logs(client: FalClient) -> Any:
    return await client.status(await submit(client), logs=True)


async def cancel(client: FalClient) -> Any:
    return await client.cancel(await submit(client))


async def by_id(client: FalClient) -> Any:
    job = client.job(ENDPOINT, (await submit(client)).request_id)
    await client.status(job)
    return await client.cancel(job)


async def unknown_job(client: FalClient) -> Any:
    return await client.cancel(client.job(ENDPOINT, "00000000-0000-4000-8000-000000000000"))


async def unknown_endpoint(client: FalClient) -> Any:
    return await client.submit("fal-ai/cosmos-predict-9/text-to-video", INPUT)


SUBMIT: list[Any] = ["submit", [ENDPOINT, INPUT]]
FOLLOW: list[list[Any]] = [SUBMIT, ["handle.iter_events", [], {"with_logs": True}], ["handle.get"]]
SCENARIOS = {
    "happy": Scenario(FOLLOW, happy),
    "options": Scenario([["submit", [ENDPOINT, INPUT], OPTIONS]], with_options),
    "distilled": Scenario([["submit", [DISTILLED.id, {"prompt": PROMPT}]]], distilled),
    "status": Scenario([SUBMIT, ["handle.status"]], one_look),
    "status-with-logs": Scenario([SUBMIT, ["handle.status", [], {"with_logs": True}]], one_look_with_logs),
    "cancel": Scenario([SUBMIT, ["handle.cancel"]], cancel),
    "by-id": Scenario(
        [SUBMIT, ["status", [ENDPOINT, "$id"], {"with_logs": True}], ["cancel", [ENDPOINT, "$id"]]], by_id
    ),
    "unknown-job": Scenario([["cancel", [ENDPOINT, "00000000-0000-4000-8000-000000000000"]]], unknown_job),
    "unknown-endpoint": Scenario([["submit", ["fal-ai/cosmos-predict-9/text-to-video", INPUT]]], unknown_endpoint),
    "failed": Scenario(FOLLOW, happy, lambda fal: fal.fail_next(FIELD_ERROR)),
    "content-policy": Scenario(FOLLOW, happy, lambda fal: fal.fail_next(content_policy)),
    "server-error": Scenario(FOLLOW, happy, lambda fal: fal.fail_next(SERVER_ERROR)),
    "locked": Scenario([SUBMIT], submit, lambda fal: setattr(fal, "locked", True)),
    "unprocessable": Scenario([SUBMIT], submit, lambda fal: fal.fault("submit", Reply(422, body={"detail": "No"}))),
    "too-many-requests": Scenario([SUBMIT], submit, lambda fal: fal.fault("submit", Reply(429), times=2)),
    "server-error-at-submission": Scenario(
        [SUBMIT], submit, lambda fal: fal.fault("submit", Reply(503, body={"detail": "Busy"}))
    ),
    "odd-frames": Scenario(FOLLOW, happy, lambda fal: [fal.fault(stage, Chop(3)) for stage in ("submit", "result")]),
    "no-lengths": Scenario(FOLLOW, happy, lambda fal: [fal.fault(stage, NoLength()) for stage in ("submit", "result")]),
    "201": Scenario(FOLLOW, happy, lambda fal: fal.fault("submit", Relabel(201))),
    "no-metrics": Scenario(FOLLOW, happy, lambda fal: setattr(fal, "metrics", False)),
    "no-queue-position": Scenario([SUBMIT], submit, lambda fal: fal.fault("submit", without_fields("queue_position"))),
}


def journals(fal: FalStandIn, scenario: Scenario) -> tuple[list[Exchange], list[Exchange]]:
    """What the official client and then ours have sent."""
    scenario.prepare(fal)
    official(fal, scenario.steps)
    theirs = fal.journal
    fal.clear_faults()
    scenario.prepare(fal)

    async def ours() -> None:
        async with FalClient(policy=FAST) as client:
            with contextlib.suppress(CosmosError):
                await scenario.ours(client)

    run(ours())
    return theirs, fal.journal[len(theirs) :]


@pytest.mark.sample(6)
@pytest.mark.quick(3)
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_ours_asks_what_the_official_client_asks(fal: FalStandIn, scenario: Scenario) -> None:
    theirs, ours = journals(fal, scenario)
    assert asked_in(ours) == asked_in(theirs)
    kinds = [[exchange for exchange in journal if exchange.stage != "result"] for journal in (ours, theirs)]
    assert len(kinds[0]) <= len(kinds[1])
    submissions = [exchange.stage for exchange in ours].count("submit")
    assert submissions == [exchange.stage for exchange in theirs].count("submit")
    assert {exchange.outcome for exchange in fal.journal} == {"replied"}


@pytest.mark.parametrize(
    ("fault", "official_jobs"), [(Reset(accept=True), 2), (ingress(503, accept=True), 2)], ids=["reset", "ingress"]
)
def test_where_the_official_client_pays_twice_ours_pays_once(fal: FalStandIn, fault: Fault, official_jobs: int) -> None:
    journals(fal, Scenario([SUBMIT], submit, lambda fal: fal.fault("submit", fault)))
    assert fal.accepted == official_jobs + 1


@pytest.mark.parametrize("stage", ["status", "result", "cancel"])
def test_a_lost_read_is_repeated_by_both(fal: FalStandIn, stage: str) -> None:
    script, steps = (cancel, [SUBMIT, ["handle.cancel"]]) if stage == "cancel" else (happy, FOLLOW)
    theirs, ours = journals(fal, Scenario(steps, script, lambda fal: fal.fault(stage, Reset())))
    assert asked_in(ours) == asked_in(theirs)
    for journal in (theirs, ours):
        assert [exchange.outcome for exchange in journal].count("reset") == 1
