"""Every fault of the table, and the end of the run that meets it."""

import pytest

from cosmos_predict25.devtools.fal_faults import FAULTS, Case, Ending
from cosmos_predict25.devtools.fal_standin import FOREVER, FalStandIn, Reset, ingress
from cosmos_predict25.pipeline.errors import JobKeptError, OutcomeUnknownError
from cosmos_predict25.pipeline.fal.journal import JobState
from cosmos_predict25.tests.fal import (
    check_one_job,
    error_of,
    failed,
    goes_on,
    journal_of,
    make,
    policy_with,
    record_of,
    run,
    videos_of,
)


def has_its_video(fal: FalStandIn, case: Case) -> None:
    if case.stage == "listing":
        fal.fault("submit", Reset(accept=True))
    video = run(make(fal, policy=policy_with(**case.policy)))
    check_one_job(fal)
    assert video.num_frames == 9
    assert list(videos_of(fal).iterdir()) == [video.path]
    assert len(fal.requests("result")) >= 1
    if case.stage == "submit":
        assert fal.requests("listing") == []


def keeps_the_job(fal: FalStandIn, case: Case) -> None:
    error = failed(fal, JobKeptError, policy=policy_with(**case.policy))
    assert error.stage == ("download" if case.stage == "media" else case.stage)
    assert case.says in str(error)
    assert len(str(error)) < 1000
    assert record_of(fal).request_id in fal.jobs
    assert {connect.split(":")[0] for connect in fal.connects} <= {"queue.fal.run", "api.fal.ai", "v3b.fal.media"}
    if case.stage == "media":
        assert record_of(fal).result
    else:
        assert fal.requests("media") == []


def is_found_again(fal: FalStandIn, case: Case) -> None:
    if case.stage == "listing":
        fal.fault("submit", Reset(accept=True))
    else:
        fal.fault("listing", ingress(), times=FOREVER)
    error = error_of(fal, policy=policy_with(**case.policy))
    assert isinstance(error, OutcomeUnknownError)
    assert "may be running and may be charged" in str(error)
    record = record_of(fal)
    assert (record.state, record.request_id) == (JobState.SUBMIT_UNKNOWN, None)
    assert str(journal_of(fal).path_of(record.fingerprint)) in str(error)
    assert fal.requests("evil") == []


def is_never_sent_again(fal: FalStandIn, case: Case) -> None:
    for _ in range(2):
        error = error_of(fal, policy=policy_with(**case.policy))
        assert isinstance(error, OutcomeUnknownError)
        assert "no job like it" in str(error)
        assert record_of(fal).state is JobState.SUBMIT_UNKNOWN
    assert len(fal.requests("submit")) == 1
    fal.clear_faults()
    journal_of(fal).path_of(record_of(fal).fingerprint).unlink()
    run(make(fal))
    assert fal.accepted == 1


CHECKS = {
    Ending.VIDEO: has_its_video,
    Ending.KEPT: keeps_the_job,
    Ending.FOUND: is_found_again,
    Ending.UNKNOWN: is_never_sent_again,
}


@pytest.mark.sample(40)
@pytest.mark.quick(11)
@pytest.mark.parametrize("case", FAULTS, ids=str)
def test_a_fault_ends_as_the_table_says(fal: FalStandIn, case: Case) -> None:
    fal.clock.per_poll = 1 if case.stage == "status" else 10
    fal.fault(case.stage, case.fault, case.times)
    CHECKS[case.ending](fal, case)
    if case.asked is not None:
        assert len(fal.requests(case.stage)) == case.asked
    if case.ending is Ending.KEPT:
        looks = len(fal.requests("status"))
        assert goes_on(fal).num_frames == 9
        assert case.stage != "media" or len(fal.requests("status")) == looks
    if case.ending is Ending.FOUND:
        fal.clear_faults()
        assert run(make(fal)).num_frames == 9
        check_one_job(fal)
