"""A job whose answer was lost: it is looked for in fal's list, and never sent again."""

import time
from dataclasses import replace
from typing import Any

import pytest

from cosmos_predict25.pipeline.errors import OutcomeUnknownError
from cosmos_predict25.pipeline.fal import DISTILLED, FalClient
from cosmos_predict25.pipeline.fal.journal import Record, State
from cosmos_predict25.tests.fal import (
    ENDPOINT,
    FAST,
    INPUT,
    NO_PLATFORM,
    REQUEST,
    Recorder,
    check_one_job,
    end_at,
    error_of,
    journal_of,
    make,
    policy_with,
    record_of,
    records_of,
    run,
)
from cosmos_predict25.tests.fal_standin import (
    FOREVER,
    Body,
    FalStandIn,
    Fault,
    Json,
    Redirect,
    Reset,
    Truncate,
    content_policy,
    ingress,
    with_fields,
)


@pytest.mark.parametrize("rst", [True, False], ids=["reset", "close"])
def test_a_connection_that_ends_before_the_request_is_read_is_not_repeated(fal: FalStandIn, rst: bool) -> None:
    fal.fault("submit", Reset(read_request=False, rst=rst))
    error = error_of(fal, policy=policy_with(platform_url=NO_PLATFORM))
    assert isinstance(error, OutcomeUnknownError)
    assert fal.connects == ["queue.fal.run:443"]
    assert fal.requests("submit") == []
    assert record_of(fal).state is State.SUBMIT_UNKNOWN
    assert fal.accepted == 0


@pytest.mark.parametrize("fault", [Reset(accept=True), Truncate(300), Body(lambda _: b"null")], ids=str)
def test_a_lost_job_is_found_in_the_same_run(fal: FalStandIn, fault: Fault) -> None:
    fal.fault("submit", fault)
    observer = Recorder()
    run(make(fal, observer=observer))
    check_one_job(fal)
    assert [message for message in observer.messages if "answer was lost" in message]


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
    policy = policy_with(reconcile_pauses=(0, 30))
    seconds = run(end_at(fal, lambda _: fal.requests("listing"), how, policy=policy))
    assert seconds < 3
    assert record_of(fal).state is State.SUBMIT_UNKNOWN
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
    assert record_of(fal).state is State.SUBMIT_UNKNOWN


def test_a_candidate_that_another_record_claims_is_left_out(fal: FalStandIn) -> None:
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
        assert isinstance(error_of(fal, store=False), OutcomeUnknownError)
    assert len(fal.requests("submit")) == 1


def test_a_job_that_failed_is_found_and_told(fal: FalStandIn) -> None:
    fal.fail_next(content_policy)
    fal.fault("submit", Reset(accept=True))
    error = error_of(fal)
    assert error.error_type == "content_policy_violation"
    assert records_of(fal) == []


def test_all_pages_are_read(fal: FalStandIn) -> None:
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
        assert record_of(fal).state is State.SUBMIT_UNKNOWN
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
