"""A file of jobs on fal: confirmed before it costs anything, and charged once per job."""

import json
import os

import pytest

from cosmos_predict25.devtools.fal_standin import Reply
from cosmos_predict25.pipeline.batch import command
from cosmos_predict25.pipeline.batch.on_fal import RECORDS
from cosmos_predict25.pipeline.fal import Journal
from cosmos_predict25.pipeline.fal.budget import LIMIT_VARIABLE, spent_today
from cosmos_predict25.pipeline.fal.journal import JobState
from cosmos_predict25.tests import batch_worker

PRICE = 0.2


@pytest.fixture
def jobs(tmp_path):
    file = tmp_path / "jobs.jsonl"
    job = {"name": "a", "prompt": "A red cube on a belt that nobody else thinks of.", "num_frames": 9, "seeds": 5}
    file.write_text(json.dumps(job), encoding="utf-8")
    return file


def run(jobs, out, *options: str) -> int:
    return command.main([str(jobs), str(out), "--fal", *options])


def test_nothing_is_sent_before_the_price_is_confirmed(fal, jobs, tmp_path, capsys):
    assert run(jobs, tmp_path / "out") == 2
    said = capsys.readouterr()
    assert "5 videos on fal: $1.00. Spent today: $0.00." in said.out
    assert "add --yes" in said.err
    assert run(jobs, tmp_path / "out", "--dry-run") == 0
    assert "$1.00" in capsys.readouterr().out
    assert not fal.jobs


@pytest.mark.slow
def test_each_job_is_charged_once_and_a_deleted_video_is_free(fal, jobs, tmp_path):
    out = tmp_path / "out"
    assert run(jobs, out, "--yes", "--at-once", "2") == 0
    assert len(fal.jobs) == len(list(out.glob("*.mp4"))) == 5
    records = Journal(out / RECORDS).records()
    assert sum(charge.price for record in records for charge in record.charges) == pytest.approx(5 * PRICE)
    (out / "a_0.mp4").unlink()
    assert run(jobs, out, "--yes") == 0
    assert (out / "a_0.mp4").is_file()
    assert len(fal.jobs) == 5


def kill_after(lines: int, fal, jobs, out, *options: str) -> None:
    """Start the command in a process, and kill it when so many jobs have ended and none is on its way to fal."""
    process, printed = batch_worker.start(jobs, out, "--fal", *options, environ=os.environ)
    while True:
        lines -= "left" in printed.recv()
        sent = {job.seed for job in fal.jobs.values()}
        unfinished = Journal(out / RECORDS).unfinished()
        unclear = [each for each in unfinished if each.state is JobState.SUBMIT_UNKNOWN and each.seed not in sent]
        if lines <= 0 and not unclear:
            break
        printed.send(None)
    process.kill()
    process.join()


@pytest.mark.slow
@pytest.mark.parametrize(("count", "kills"), [(12, (2,)), pytest.param(200, (5, 60, 40), marks=pytest.mark.exhaustive)])
def test_in_spite_of_429_and_kills_each_job_is_charged_once(fal, jobs, tmp_path, monkeypatch, count, kills):
    monkeypatch.setenv(LIMIT_VARIABLE, "100")
    job, out, options = json.loads(jobs.read_text()), tmp_path / "out", ("--yes", "--at-once", "8")
    jobs.write_text(json.dumps({**job, "seeds": count}), encoding="utf-8")
    fal.fault("submit", Reply(429, {"Retry-After": "1"}, {"detail": "Slow down"}), times=3, after=2)
    for lines in kills:
        kill_after(lines, fal, jobs, out, *options)
    fal.fault("submit", Reply(429), times=2, after=1)
    assert run(jobs, out, *options) == 0
    assert len(fal.jobs) == len(list(out.glob("*.mp4"))) == count
    journal = Journal(out / RECORDS)
    charges = [charge.price for record in journal.records() for charge in record.charges]
    assert len(charges) == count
    assert sum(charges) == pytest.approx(spent_today(journal)) == pytest.approx(count * PRICE)


@pytest.mark.slow
def test_what_exceeds_the_days_limit_is_not_sent_and_is_named(fal, jobs, tmp_path, monkeypatch):
    monkeypatch.setenv("COSMOS_PREDICT25_FAL_DAY_LIMIT", "0.65")
    out = tmp_path / "out"
    assert run(jobs, out, "--yes", "--at-once", "1") == 1
    assert len(fal.jobs) == len(list(out.glob("*.mp4"))) == 3
    failed = [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()]
    assert len(failed) == 2
    assert "COSMOS_PREDICT25_FAL_DAY_LIMIT" in failed[0]["error"]


def test_a_video_of_several_segments_is_refused_before_anything_is_sent(fal, tmp_path, capsys):
    job = {"name": "a", "prompt": "A red cube.", "enable_autoregressive": True, "num_frames": 100}
    (tmp_path / "long.jsonl").write_text(json.dumps(job))
    assert run(tmp_path / "long.jsonl", tmp_path / "out", "--yes") == 2
    assert "long.jsonl:1: a video of 100 frames" in capsys.readouterr().err
    assert not fal.jobs
