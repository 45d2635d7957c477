"""A job whose answer was lost: it is looked for in fal's list, and never sent again."""

import email.utils
import math
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest

from cosmos_predict25.devtools.fal_faults import FAST, NOT_FOUND, OTHER_ID
from cosmos_predict25.devtools.fal_standin import (
    FOREVER,
    SERVER_ERROR,
    Body,
    FalStandIn,
    Fault,
    Hang,
    Json,
    Redirect,
    Reply,
    Reset,
    Truncate,
    content_policy,
    ingress,
    with_fields,
)
from cosmos_predict25.pipeline.errors import FalError, JobExpiredError, OutcomeUnknownError
from cosmos_predict25.pipeline.fal import DISTILLED, FalClient
from cosmos_predict25.pipeline.fal.journal import JobState, Record
from cosmos_predict25.pipeline.request import DEFAULT_NEGATIVE_PROMPT
from cosmos_predict25.tests.fal import (
    ENDPOINT,
    INPUT,
    LOOKING,
    NO_PLATFORM,
    REQUEST,
    Recorder,
    StoppedError,
    check_one_job,
    end_at,
    error_of,
    goes_on,
    journal_of,
    make,
    policy_with,
    record_of,
    records_of,
    run,
)


@pytest.mark.parametrize("rst", [True, False], ids=["reset", "close"])
def test_a_connection_that_ends_before_the_request_is_read_is_not_repeated(fal: FalStandIn, rst: bool) -> None:
    fal.fault("submit", Reset(read_request=False, rst=rst))
    error = error_of(fal, policy=policy_with(platform_url=NO_PLATFORM))
    assert isinstance(error, OutcomeUnknownError)
    assert fal.connects == ["queue.fal.run:443"]
    assert fal.requests("submit") == []
    assert record_of(fal).state is JobState.SUBMIT_UNKNOWN
    assert fal.accepted == 0


@pytest.mark.parametrize(
    "fault", [Reset(accept=True), Truncate(300), Body(lambda _: b"null")], ids=["reset", "cut short", "null"]
)
def test_a_lost_job_is_found_in_the_same_run(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("submit", fault)
    observer = Recorder()
    run(make(fal, observer=observer))
    check_one_job(fal)
    assert [message for message in observer.messages if "reply was lost" in message]


def test_another_seed_is_another_job_while_one_is_unknown(fal: FalStandIn) -> None:
    fal.fault("submit", ingress())
    error_of(fal)
    run(make(fal, replace(REQUEST, seed=8)))
    assert [job.seed for job in fal.jobs.values()] == [8]
    assert [record.seed for record in records_of(fal)] == [7]


@pytest.mark.parametrize("how", ["stop", "cancel"])
def test_ended_while_it_looks_for_a_lost_job_it_goes_on_with_it_later(fal: FalStandIn, how: str) -> None:
    fal.fault("submit", Reset(accept=True))
    fal.fault("listing", ingress(), times=FOREVER)
    policy = policy_with(reconcile_pauses=(0, 3600), cancel_wait=0.3)
    run(end_at(fal, lambda _: fal.requests("listing"), how, policy=policy))
    assert record_of(fal).state is JobState.SUBMIT_UNKNOWN
    fal.clear_faults()
    run(make(fal))
    check_one_job(fal)


@pytest.mark.parametrize("status", [302, 307])
def test_a_job_that_was_made_behind_a_redirect_is_found(fal: FalStandIn, status: int) -> None:
    fal.fault("submit", Redirect(status, "https://{host}{target}", accept=True), times=FOREVER)
    assert run(make(fal)).num_frames == 9
    check_one_job(fal)


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


def test_no_candidate_is_unknown(fal: FalStandIn) -> None:
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
def test_one_candidate_is_gone_on_with(fal: FalStandIn, defaults: bool, scale: float) -> None:
    fal.listed_defaults = defaults
    request = replace(REQUEST, guidance_scale=scale)
    submit_by_another(seed=8)
    fal.fault("submit", Reset(accept=True))
    run(make(fal, request))
    assert [job.seed for job in fal.jobs.values()] == [8, 7]
    assert records_of(fal) == []


def test_what_is_asked_of_the_listing(fal: FalStandIn) -> None:
    record = lose_answer(fal)
    request = fal.requests("listing")[0]
    assert (request.host, request.argument("endpoint_id")) == ("api.fal.ai", ENDPOINT)
    assert request.argument("expand") == "payloads"
    assert int(request.argument("limit")) <= 100
    for name in ("start", "end"):
        assert request.argument(name).endswith("+00:00")
    assert request.argument("start") < time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) < "3"
    assert request.headers["authorization"] == f"Key {fal.key}"


def test_two_candidates_are_unknown(fal: FalStandIn) -> None:
    lose_answer(fal)
    submit_by_another()
    error = error_of(fal)
    assert isinstance(error, OutcomeUnknownError)
    assert "2 jobs like it" in str(error)
    assert fal.accepted == 2
    assert record_of(fal).state is JobState.SUBMIT_UNKNOWN


def test_a_candidate_that_another_record_claims_is_left_out(fal: FalStandIn) -> None:
    submit_by_another()
    (claimed,) = fal.jobs
    claim = Record("another", ENDPOINT, "0", "0", [], 1, state=JobState.SUBMITTED, request_id=claimed)
    journal_of(fal).save(claim)
    fal.fault("submit", ingress())
    assert isinstance(error_of(fal), OutcomeUnknownError)
    submit_by_another()
    run(make(fal))
    assert records_of(fal) == [claim]
    media = fal.requests("media")[0].path
    assert [job.media_path == media for job in fal.jobs.values()] == [False, True]


@pytest.mark.parametrize("listed", ["started", "completed"])
def test_a_job_that_is_listed_late_is_found_in_a_later_run(fal: FalStandIn, listed: Any) -> None:
    fal.listed = listed
    lose_answer(fal)
    assert "not yet" in str(error_of(fal))
    fal.clock.advance(3 if listed == "started" else 8)
    run(make(fal))
    check_one_job(fal)


def test_a_job_that_was_not_stored_is_not_found_and_not_sent_again(fal: FalStandIn) -> None:
    lose_answer(fal, store=False)
    for _ in range(2):
        error = error_of(fal, store=False)
        assert isinstance(error, OutcomeUnknownError)
        assert "cannot show it, as store is off" in str(error)
    assert len(fal.requests("submit")) == 1


def test_a_found_job_that_fails_is_told_and_the_outcome_stays_unknown(fal: FalStandIn) -> None:
    """It may have been another one."""
    fal.fail_next(content_policy)
    fal.fault("submit", Reset(accept=True))
    assert error_of(fal).error_type == "content_policy_violation"
    record = record_of(fal)
    assert (record.state, record.request_id, record.past_ids) == (JobState.SUBMIT_UNKNOWN, None, list(fal.jobs))
    assert isinstance(error_of(fal), OutcomeUnknownError)
    assert fal.accepted == 1


def test_a_found_job_that_looks_gone_with_another_accounts_key_is_gone_on_with_later(fal: FalStandIn) -> None:
    fal.fault("submit", Reset(accept=True))
    fal.fault("status", NOT_FOUND, times=FOREVER)
    assert isinstance(error_of(fal), JobExpiredError)
    assert (record_of(fal).state, record_of(fal).request_id) == (JobState.EXPIRED, *fal.jobs)
    goes_on(fal)


def test_a_found_jobs_file_that_was_moved_and_looks_gone_is_fetched_later(fal: FalStandIn) -> None:
    fal.fault("submit", Reset(accept=True))
    run(make(fal)).path.unlink()
    fal.fault("media", Reply(403), times=FOREVER)
    assert isinstance(error_of(fal), JobExpiredError)
    goes_on(fal)


def cancel_one(fal: FalStandIn) -> None:
    fal.run_seconds = math.inf
    with pytest.raises(StoppedError):
        run(make(fal, observer=Recorder("Running")))
    fal.run_seconds = 5
    assert records_of(fal) == []


def fail_one(fal: FalStandIn) -> None:
    fal.fail_next(SERVER_ERROR)
    error_of(fal)
    assert records_of(fal) == []


@pytest.mark.parametrize("end", [cancel_one, fail_one], ids=["cancelled", "failed"])
@pytest.mark.parametrize("accepts", [True, False], ids=["taken", "not-taken"])
def test_a_job_that_was_over_before_is_not_taken_for_the_lost_one(
    fal: FalStandIn, end: Callable[[FalStandIn], None], accepts: bool
) -> None:
    end(fal)
    fal.fault("submit", Reset(accept=accepts))
    if accepts:
        assert run(make(fal)).num_frames == 9
    else:
        for _ in range(2):
            assert isinstance(error_of(fal), OutcomeUnknownError)
            assert record_of(fal).state is JobState.SUBMIT_UNKNOWN
    assert (fal.accepted, len(fal.requests("submit"))) == (1 + accepts, 2)


@pytest.mark.parametrize("trait", ["past", "failed", "before"])
def test_each_trait_alone_leaves_a_job_out(fal: FalStandIn, trait: str) -> None:
    """A job with the very same input, of which nothing but the trait tells that it is another one."""
    if trait == "failed":
        fal.fail_next(content_policy)
    record = lose_answer(fal)
    (request_id,) = fal.jobs
    if trait == "past":
        record.past_ids.append(request_id)
    if trait == "before":
        record.created += 60
        record.clock_offset = 0.0
    if trait == "failed":
        fal.complete(request_id)
    journal_of(fal).save(record)
    assert isinstance(error_of(fal), OutcomeUnknownError)
    assert (fal.accepted, fal.requests("status")) == (1, [])


def test_a_lost_job_that_has_failed_is_told_with_what_to_do(fal: FalStandIn) -> None:
    fal.fail_next(content_policy)
    record = lose_answer(fal)
    (request_id,) = fal.jobs
    fal.complete(request_id)
    error = str(error_of(fal))
    assert f"fal's list shows a job like it that failed or was cancelled: {request_id}." in error
    path = journal_of(fal).path_of(record.fingerprint)
    assert f"if that was this job, delete {path} and run the same again" in error
    path.unlink()
    assert run(make(fal)).num_frames == 9


@pytest.mark.parametrize("text", [" ", "Other."], ids=["one space", "another text"])
def test_a_lost_job_is_found_where_fal_has_other_defaults_than_ours(fal: FalStandIn, text: str) -> None:
    fal.listed_defaults = True
    fal.default_negative_prompt = DEFAULT_NEGATIVE_PROMPT + text
    fal.fault("submit", Reset(accept=True))
    assert run(make(fal)).num_frames == 9
    check_one_job(fal)


def test_a_lost_job_is_found_where_fal_lists_a_whole_number_without_its_fraction(fal: FalStandIn) -> None:
    def whole(reply: dict[str, Any]) -> dict[str, Any]:
        items = [{**item, "json_input": {**item["json_input"], "guidance_scale": 7}} for item in reply["items"]]
        return {**reply, "items": items}

    assert repr(INPUT["guidance_scale"]) == "7.0"
    fal.fault("listing", Json(whole), times=FOREVER)
    fal.fault("submit", Reset(accept=True))
    run(make(fal))
    check_one_job(fal)


@pytest.mark.parametrize("seconds", [-5000, -90, 90, 5000, 20 * 3600])
@pytest.mark.parametrize("dates", [True, False], ids=["fal tells its time", "fal tells no time"])
def test_a_clock_that_is_wrong_does_not_hide_a_lost_job(fal: FalStandIn, seconds: float, dates: bool) -> None:
    fal.ahead_seconds, fal.dates = seconds, dates
    lose_answer(fal)
    run(make(fal))
    check_one_job(fal)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [-60, 60])
def test_a_gateway_with_another_clock_does_not_hide_a_lost_job(fal: FalStandIn, seconds: float) -> None:
    """Its page is all that comes before the job is looked for."""
    fal.fault("pricing", Hang(None), times=FOREVER)
    date = email.utils.formatdate(time.time() + seconds, usegmt=True)
    fal.fault("submit", Reply(502, {"date": date}, b"<html>Bad gateway", accept=True))
    run(make(fal))
    fal.release()
    check_one_job(fal)


@pytest.mark.slow
def test_the_list_is_read_page_by_page_in_little_memory(fal: FalStandIn) -> None:
    """Fifty pages of 2 MB each."""

    def big(reply: dict[str, Any]) -> dict[str, Any]:
        items = [{"request_id": OTHER_ID, "json_input": {"prompt": "x" * 20_000}} for _ in range(100)]
        return {"items": items, "has_more": True, "next_cursor": "1"}

    async def work() -> int:
        async with FalClient(policy=FAST) as client:
            tracemalloc.start()
            with pytest.raises(FalError, match="did not list all"):
                async for _ in client.requests(ENDPOINT, datetime.now(timezone.utc), datetime.now(timezone.utc)):
                    pass
            return tracemalloc.get_traced_memory()[1]

    fal.fault("listing", Json(big), times=FOREVER)
    try:
        assert run(work()) < 40e6
    finally:
        tracemalloc.stop()
    assert len(fal.requests("listing")) == 50


@pytest.mark.slow
def test_all_pages_are_read(fal: FalStandIn) -> None:
    lose_answer(fal)
    submit_by_another(101, seed=8)
    submit_by_another()
    before = len(fal.requests("listing"))
    assert "2 jobs like it" in str(error_of(fal))
    assert [request.argument("cursor") for request in fal.requests("listing")[before:]] == ["", "100"] * 2

    newest = list(fal.jobs)[-1]
    journal_of(fal).save(Record("another", ENDPOINT, "0", "0", [], 1, state=JobState.SUBMITTED, request_id=newest))
    run(make(fal))
    assert fal.requests("media")[0].path == next(iter(fal.jobs.values())).media_path


def test_a_page_that_comes_twice_does_not_make_two_candidates(fal: FalStandIn) -> None:
    lose_answer(fal)
    fal.fault("listing", with_fields(has_more=True, next_cursor="0"), times=FOREVER)
    run(make(fal))
    check_one_job(fal)


def test_pages_without_end_are_not_read_without_end(fal: FalStandIn) -> None:
    def more(reply: dict[str, Any]) -> dict[str, Any]:
        return {**reply, "has_more": True, "next_cursor": str(1000 + len(fal.requests("listing")))}

    fal.fault("submit", ingress())
    fal.fault("listing", Json(more), times=300)
    assert isinstance(error_of(fal), OutcomeUnknownError)
    assert len(fal.requests("listing")) < 300


@pytest.mark.parametrize("hours", [-48, -1, 1, 48])
def test_a_clock_that_jumped_does_not_lead_to_a_second_job(fal: FalStandIn, hours: float) -> None:
    record = lose_answer(fal)
    record.created += hours * 3600
    journal_of(fal).save(record)
    try:
        run(make(fal))
    except OutcomeUnknownError:
        assert record_of(fal).state is JobState.SUBMIT_UNKNOWN
    assert (len(fal.requests("submit")), fal.accepted) == (1, 1)


def test_a_clock_that_jumps_back_while_a_job_runs_changes_nothing(
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


NOT_TAKEN = {
    "503": ingress(),
    "500": Reply(500, body={"detail": "Bad"}),
    "408": Reply(408),
    "redirect": Redirect(307, "https://{host}{target}"),
    "reset": Reset(),
}


def lose_untaken(fal: FalStandIn, fault: Fault | None = None, seconds: float = 601, **options: Any) -> FalError:
    """A job that fal did not take, sent `seconds` ago, and what was said then."""
    fal.fault("submit", fault or ingress())
    error = error_of(fal, policy=LOOKING, **options)
    record = record_of(fal)
    record.created -= seconds
    journal_of(fal).save(record)
    return error


@pytest.mark.parametrize("fault", NOT_TAKEN.values(), ids=NOT_TAKEN)
def test_a_job_that_is_not_in_fals_list_minutes_later_is_sent_again(fal: FalStandIn, fault: Fault) -> None:
    submit_by_another(seed=8)
    error = lose_untaken(fal, fault)
    assert "in 10 minutes that sends it again where fal's list still shows no such job" in str(error)
    observer = Recorder()
    assert run(make(fal, observer=observer, policy=LOOKING)).num_frames == 9
    assert [message for message in observer.messages if "shows no such job, so fal did not take it" in message]
    assert [job.seed for job in fal.jobs.values()] == [8, 7]
    assert len(fal.requests("submit")) == 3
    assert records_of(fal) == []


def without_inputs(reply: dict[str, Any]) -> dict[str, Any]:
    return {**reply, "items": [{**item, "json_input": None} for item in reply["items"]]}


def test_a_job_that_was_taken_is_not_sent_again_minutes_later(fal: FalStandIn) -> None:
    """fal's list leaves the inputs out for a while."""
    fal.fault("listing", Json(without_inputs), times=7)
    lose_untaken(fal, Reset(accept=True))
    assert isinstance(error_of(fal, policy=LOOKING), OutcomeUnknownError)
    assert isinstance(error_of(fal, policy=LOOKING), OutcomeUnknownError)
    run(make(fal, policy=LOOKING))
    check_one_job(fal)


UNSURE: dict[str, Callable[[FalStandIn, Record], object]] = {
    "a moment later": lambda _, record: vars(record).update(created=record.created + 301),
    "another account": lambda _, record: vars(record).update(listed_for="0" * 16),
    "no account": lambda _, record: vars(record).update(listed_for=None),
    "a clock that was not known": lambda _, record: vars(record).update(clock_offset=None),
    "a clock that was set": lambda _, record: vars(record).update(clock_offset=(record.clock_offset or 0) + 60),
    "a list that goes on": lambda fal, _: fal.fault("listing", with_fields(has_more=True), times=FOREVER),
    "no list": lambda fal, _: fal.fault("listing", ingress(), times=FOREVER),
    "no inputs": lambda fal, _: (submit_by_another(seed=8), fal.fault("listing", Json(without_inputs), times=FOREVER)),
    "one with its seed": lambda *_: submit_by_another(prompt="Cut of"),
}


@pytest.mark.parametrize("change", UNSURE.values(), ids=UNSURE)
def test_a_lost_job_is_not_sent_again_where_it_is_not_sure(fal: FalStandIn, change: Any) -> None:
    lose_untaken(fal)
    record = record_of(fal)
    change(fal, record)
    journal_of(fal).save(record)
    before = len(fal.requests("submit"))
    assert isinstance(error_of(fal, policy=LOOKING), OutcomeUnknownError)
    assert len(fal.requests("submit")) == before


@pytest.mark.parametrize("options", [{"store": False}, {"request": replace(REQUEST, sync_mode=True)}], ids=str)
def test_a_lost_job_that_fals_list_never_shows_is_not_sent_again(fal: FalStandIn, options: dict[str, Any]) -> None:
    lose_untaken(fal, **options)
    assert isinstance(error_of(fal, policy=LOOKING, **{**options, "store": True}), OutcomeUnknownError)
    assert len(fal.requests("submit")) == 1


@pytest.mark.parametrize(("before", "after"), [(3, 3), (-3, 0), (1.25, 1.25), (-2.5, -2.5)])
def test_a_clock_that_is_days_wrong_does_not_hide_a_lost_job(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch, before: float, after: float
) -> None:
    """In days that fal's clock is ahead, when the job was sent by a run that was killed, and later."""
    real = time.time
    fal.dates = False
    record = lose_answer(fal)
    record.created -= before * 86400
    journal_of(fal).save(record)
    fal.dates = True
    monkeypatch.setattr(time, "time", lambda: real() - after * 86400)
    fal.ahead_seconds = after * 86400
    run(make(fal))
    check_one_job(fal)
