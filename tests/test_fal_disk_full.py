"""The journal's disk fills after a job was sent: the run goes on with what is paid for, and so does the next one."""

import errno
import math
import os
from collections.abc import Callable

import pytest

from cosmos_predict25.devtools.fal_faults import NOT_FOUND
from cosmos_predict25.devtools.fal_standin import FOREVER, FalStandIn, Reset
from cosmos_predict25.pipeline.errors import JobExpiredError
from cosmos_predict25.pipeline.fal import journal
from cosmos_predict25.tests.fal import (
    Meanwhile,
    Recorder,
    StoppedError,
    check_one_job,
    error_of,
    journal_of,
    make,
    run,
)


def fills(fal: FalStandIn) -> Callable[[], None]:
    """From when it is called, no record can be written: a file is where their folder was."""
    folder = journal_of(fal).folder

    def fill() -> None:
        folder.rename(folder.with_name("aside"))
        folder.touch()

    return fill


def has_room_again(fal: FalStandIn) -> None:
    folder = journal_of(fal).folder
    folder.unlink()
    folder.with_name("aside").rename(folder)


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("stage", ["submit", "status", "result", "media"])
def test_the_paid_video_is_saved_in_the_same_run(fal: FalStandIn, stage: str, store: bool) -> None:
    fal.fault(stage, Meanwhile(fills(fal), accept=True))
    video = run(make(fal, store=store))
    assert video.num_frames == 9
    has_room_again(fal)
    assert run(make(fal, store=store)).path == video.path
    check_one_job(fal)


def test_a_job_whose_answer_was_lost_is_found_in_the_same_run(fal: FalStandIn) -> None:
    fal.fault("submit", Meanwhile(fills(fal), Reset(), accept=True))
    assert run(make(fal)).num_frames == 9
    has_room_again(fal)
    run(make(fal))
    check_one_job(fal)


def test_a_job_that_has_expired_is_told_as_that(fal: FalStandIn) -> None:
    fal.fault("status", Meanwhile(fills(fal), NOT_FOUND))
    fal.fault("status", NOT_FOUND, times=FOREVER)
    assert isinstance(error_of(fal), JobExpiredError)
    has_room_again(fal)
    fal.clear_faults()
    run(make(fal))
    check_one_job(fal)


def test_stop_still_cancels_the_job(fal: FalStandIn) -> None:
    fal.run_seconds = math.inf
    fal.fault("status", Meanwhile(fills(fal), accept=True))
    with pytest.raises(StoppedError):
        run(make(fal, observer=Recorder("Running")))
    assert len(fal.requests("cancel")) == 1


def test_before_the_job_is_sent_it_still_stops_the_run(fal: FalStandIn) -> None:
    journal_of(fal).folder.touch()
    error = error_of(fal)
    assert (error.stage, fal.requests("submit")) == ("journal", [])


def test_after_stop_on_a_full_disk_the_next_run_knows_that_the_job_was_cancelled(
    fal: FalStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full takes no new file, but what is in a file can be changed."""

    def is_full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fal.run_seconds = math.inf
    with monkeypatch.context() as patch:
        fal.fault("status", Meanwhile(lambda: patch.setattr(journal, "atomic_write", is_full), accept=True))
        with pytest.raises(StoppedError):
            run(make(fal, observer=Recorder("Running")))
        assert len(fal.requests("cancel")) == 1
    fal.run_seconds = 5
    assert run(make(fal)).num_frames == 9
    assert fal.accepted == 2
