"""The limit of a day's cost, and the prices that are counted."""

import asyncio
import json
import os
import random
import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cosmos_predict25.devtools.fal_list import PRICE, killed_list
from cosmos_predict25.devtools.fal_standin import (
    FOREVER,
    TEXT_ERROR,
    Clock,
    FalStandIn,
    Hang,
    Reply,
    Reset,
    content_policy,
)
from cosmos_predict25.pipeline.errors import FalError, InvalidRequestError
from cosmos_predict25.pipeline.fal import DISTILLED
from cosmos_predict25.pipeline.fal.budget import LIMIT_VARIABLE, day_limit, spent_today
from cosmos_predict25.pipeline.fal.journal import JobState
from cosmos_predict25.tests import fal_worker
from cosmos_predict25.tests.fal import (
    ENDPOINT,
    REQUEST,
    Recorder,
    StoppedError,
    error_of,
    journal_of,
    make,
    policy_with,
    records_of,
    run,
    start,
)
from cosmos_predict25.tests.posix import only_posix


def with_seed(seed: int) -> Any:
    return replace(REQUEST, seed=seed)


def prices_of(fal: FalStandIn) -> list[float]:
    return [charge.price for record in journal_of(fal).records() for charge in record.charges]


def test_a_job_above_the_limit_of_the_day_is_not_sent(fal: FalStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, "0.40")
    charged: list[float] = []
    for seed in (1, 2):
        run(make(fal, with_seed(seed), on_charge=charged.append))
    error = error_of(fal, with_seed(3))
    said = "it costs $0.20, you spent $0.40 on fal today, and the daily limit is $0.40"
    assert said in str(error)
    assert LIMIT_VARIABLE in str(error)
    assert str(error).endswith("Seed: 3.")
    assert (fal.accepted, charged, records_of(fal)) == (2, [0.2, 0.2], [])
    run(make(fal, with_seed(2)))  # from the disk
    monkeypatch.setenv(LIMIT_VARIABLE, "none")
    run(make(fal, with_seed(3)))
    assert (fal.accepted, prices_of(fal)) == (3, [0.2, 0.2, 0.2])


def test_without_the_variable_a_day_has_ten_dollars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIMIT_VARIABLE, raising=False)
    assert day_limit() == 10


@pytest.mark.parametrize(("text", "limit"), [("5", 5), (" $2.50 ", 2.5), ("0", 0), ("NONE", float("inf")), ("", 10)])
def test_the_limit_is_dollars_or_none(monkeypatch: pytest.MonkeyPatch, text: str, limit: float) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, text)
    assert day_limit() == limit


@pytest.mark.parametrize("text", ["ten", "-1", "nan", "inf", "5 EUR"])
def test_a_limit_that_is_no_amount_is_refused_before_anything_is_sent(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, text)
    with pytest.raises(InvalidRequestError, match=f"{LIMIT_VARIABLE} is '{text}', but must be dollars per day"):
        run(make(fal))
    assert fal.requests("submit") == []


def test_a_list_sends_as_many_jobs_at_once_as_the_day_has_left(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, "0.60")

    async def work() -> list[Any]:
        return await asyncio.gather(*(make(fal, with_seed(seed)) for seed in range(8)), return_exceptions=True)

    kinds = [type(outcome).__name__ for outcome in run(work())]
    assert (kinds.count("RemoteVideo"), kinds.count("FalError"), fal.accepted) == (3, 5, 3)


@pytest.mark.slow
def test_processes_share_the_limit(fal: FalStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, "0.40")
    outcomes = [fal_worker.outcome_of(worker) or {} for worker in [start(fal, request={"seed": n}) for n in range(4)]]
    assert sorted("video" in outcome for outcome in outcomes) == [False, False, True, True]
    assert fal.accepted == 2


def test_what_fal_did_not_take_is_not_counted(fal: FalStandIn) -> None:
    fal.locked = True
    error_of(fal)
    assert spent_today(journal_of(fal)) == 0
    assert list(journal_of(fal).folder.glob("*.json")) == []


def test_a_job_that_failed_or_whose_answer_was_lost_is_counted(fal: FalStandIn) -> None:
    fal.fail_next(content_policy)
    error_of(fal)
    assert spent_today(journal_of(fal)) == pytest.approx(0.2)
    fal.fault("submit", Reset(accept=True))
    fal.fault("listing", Reset(), times=FOREVER)
    error_of(fal, with_seed(8))
    assert [record.state for record in records_of(fal)] == [JobState.SUBMIT_UNKNOWN]
    assert spent_today(journal_of(fal)) == pytest.approx(0.4)
    fal.clear_faults()
    run(make(fal, with_seed(8)))
    assert spent_today(journal_of(fal)) == pytest.approx(0.4)
    assert fal.accepted == 2


def test_yesterday_is_not_counted_and_jobs_of_before_records_had_prices_are(fal: FalStandIn) -> None:
    run(make(fal))
    (path,) = journal_of(fal).folder.glob("*.json")
    values = json.loads(path.read_text())
    del values["charges"]
    path.write_text(json.dumps(values, indent=1))
    assert spent_today(journal_of(fal)) == pytest.approx(0.2)
    midnight = datetime.now().replace(hour=0, minute=0, second=0, microsecond=0)
    values["created"] = (midnight - timedelta(seconds=1)).timestamp()
    path.write_text(json.dumps(values, indent=1))
    assert spent_today(journal_of(fal)) == 0


def test_records_of_long_ago_are_not_read_for_the_sum(fal: FalStandIn) -> None:
    run(make(fal))
    (path,) = journal_of(fal).folder.glob("*.json")
    os.utime(path, (time.time() - 3 * 86400,) * 2)
    path.chmod(0)
    assert journal_of(fal).charges(time.time() - 60) == []


def test_the_price_is_asked_for_once_an_hour_and_kept_in_the_record(fal: FalStandIn) -> None:
    fal.prices[ENDPOINT] = 0.25
    run(make(fal, with_seed(1)))
    fal.prices[ENDPOINT] = 0.3
    run(make(fal, with_seed(2)))
    assert (len(fal.requests("pricing")), prices_of(fal)) == (1, [0.25, 0.25])
    for path in journal_of(fal).folder.glob("*.json"):
        values = json.loads(path.read_text())
        values["charges"][0]["priced"] -= 3601
        path.write_text(json.dumps(values))
    run(make(fal, with_seed(3)))
    assert prices_of(fal) == [0.25, 0.25, 0.3]


def test_each_endpoint_has_its_own_price(fal: FalStandIn) -> None:
    run(make(fal))
    run(make(fal, replace(REQUEST, num_inference_steps=10), endpoint=DISTILLED))
    assert prices_of(fal) == [0.2, 0.08]


def test_a_price_far_above_the_documented_one_is_refused(fal: FalStandIn) -> None:
    fal.prices[ENDPOINT] = 9.99
    error = error_of(fal)
    assert "$9.99 a video" in str(error)
    assert "more than twice the documented $0.20" in str(error)
    assert (fal.accepted, records_of(fal)) == (0, [])
    fal.prices[ENDPOINT] = 0.4
    run(make(fal))
    assert prices_of(fal) == [0.4]


@pytest.mark.parametrize("fault", [Reply(500), Hang()], ids=["error", "silence"])
def test_where_fal_tells_no_price_the_documented_one_is_counted(fal: FalStandIn, fault: Any) -> None:
    fal.fault("pricing", fault, times=FOREVER)
    observer = Recorder()
    run(make(fal, observer=observer, policy=policy_with(price_timeout=0.3)))
    assert prices_of(fal) == [0.2]
    assert any("price unknown, about $0.20" in message for message in observer.messages)


def test_without_a_limit_no_job_waits_for_its_price(fal: FalStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, "none")
    fal.fault("pricing", Hang(), times=FOREVER)
    run(make(fal))
    assert [request.status for request in fal.requests("pricing")] == [None]
    assert prices_of(fal) == [0.2]


def test_stop_while_the_price_is_awaited_sends_nothing(fal: FalStandIn) -> None:
    fal.fault("pricing", Hang(), times=FOREVER)
    observer = Recorder()

    async def work() -> None:
        making = asyncio.ensure_future(make(fal, observer=observer))
        await asyncio.to_thread(fal.wait_for, lambda: fal.requests("pricing"))
        observer.stop()
        with pytest.raises(StoppedError):
            await making

    run(work())
    assert (fal.requests("submit"), fal.requests("listing"), records_of(fal)) == ([], [], [])


def test_the_sum_of_all_records_is_the_jobs_of_fal_times_the_price(fal: FalStandIn) -> None:
    """Jobs that failed, were cancelled, refused and sent again, and one whose answer was lost."""
    for seed in range(3):
        run(make(fal, with_seed(seed)))
    fal.fail_next(TEXT_ERROR)
    with pytest.raises(FalError):
        run(make(fal, with_seed(3)))
    fal.fault("submit", Reply(403))
    error_of(fal, with_seed(3))
    assert sum(prices_of(fal)) == pytest.approx(0.2 * fal.accepted)
    run(make(fal, with_seed(3)))
    fal.fault("submit", Reset(accept=True))
    run(make(fal, with_seed(4)))
    fal.fault("submit", Reply(403))
    error_of(fal, with_seed(5))
    assert sum(prices_of(fal)) == pytest.approx(0.2 * fal.accepted)
    assert fal.accepted == 6


@only_posix
@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "limit", "kills"), [(12, 1.2, 3), pytest.param(100, 10.0, 10, marks=pytest.mark.exhaustive)]
)
def test_the_sum_of_a_list_that_is_killed_again_and_again_is_right_to_the_cent(
    tmp_path: Path, count: int, limit: float, kills: int
) -> None:
    with FalStandIn(tmp_path / "fal", clock=Clock(real=True)) as fal:
        fal.queue_seconds, fal.run_seconds = 0.3, 0.5
        killed = killed_list(tmp_path, fal, count, limit, random.Random(25), kills)
        assert fal.violations == []
    assert killed.is_good(limit), killed
    assert killed.accepted * PRICE >= limit - killed.unknown - 0.001, killed
    assert killed.ends["video"] == killed.accepted, killed
