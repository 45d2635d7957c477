"""A process that generates through the fal node's own code dies at any moment, and its job is neither lost nor paid
for twice."""

import json
import os
import random
import subprocess
import sys

import pytest

from cosmos_predict25.devtools.environment import REPO
from cosmos_predict25.devtools.fal_standin import FOREVER, Clock, FalStandIn, Hang

WORKER = REPO / "devtools" / "fal_kill_worker.py"
KILLS = 40
SPARE = 12
"""Runs that may be over before their kill: other work may have slowed the run that the moments are parts of."""
AT_ONCE = 6
SEEDS = range(100, 10_000, 10)
"""Each run may use the seeds after its own."""
WANTED = {"generate": (1, 9), "extend": (3, 7 + 12)}
"""Jobs and frames."""
STAGES = ({"SUBMIT_UNKNOWN"}, {"SUBMITTED"}, {"result"})
"""Of the record: a kill must have met each."""


@pytest.mark.exhaustive
@pytest.mark.parametrize("node", ["generate", "extend"])
def test_killed_at_any_moment_the_next_run_has_the_video_of_its_jobs_or_says_that_it_cannot_know(tmp_path, node):
    """The moments are random within equal parts of a whole run. Each stage is slow enough to be hit."""
    chance = random.Random(25)
    parts = KILLS + SPARE
    moments = [(part + chance.random()) / parts for part in range(parts)]
    jobs, frames = WANTED[node]
    with FalStandIn(tmp_path / "fal", clock=Clock(real=True)) as fal:
        fal.queue_seconds, fal.run_seconds = 0.6, 0.8
        fal.fault("tls", Hang(0.05), times=FOREVER)
        fal.fault("submit", Hang(0.6, accept=True), times=FOREVER)
        fal.fault("media", Hang(1.2, accept=True), times=FOREVER)
        worker = subprocess.run(
            [sys.executable, str(WORKER)],
            input=json.dumps(
                {
                    "node": node,
                    "folder": str(tmp_path),
                    "runs": list(zip(SEEDS, moments, strict=False)),
                    "at_once": AT_ONCE,
                }
            ),
            env={**os.environ, **fal.environ},
            capture_output=True,
            text=True,
            timeout=300,
        )
        (tmp_path / "worker.log").write_text(worker.stderr)
        assert worker.returncode == 0, worker.stderr[-3000:]
        report = json.loads(worker.stdout)
        accepted = [job.input["seed"] // 10 * 10 for job in fal.jobs.values()]
        assert fal.violations == []

    runs = sorted(report["runs"], key=lambda run: run["moment"])
    print(f"\na whole run takes {report['seconds']:.2f} s")
    for run in runs:
        end = "killed" if run["killed"] else "over  "
        outcome = run["outcome"].get("error", "video")
        count = accepted.count(run["seed"])
        print(f"{run['moment']:5.2f} s  {end}  found {run['found']:<14}  {count} job  then {outcome}")

    killed = [run for run in runs if run["killed"]]
    assert len(killed) >= KILLS
    found = {run["found"] for run in killed}
    assert all(found & stage for stage in STAGES), found
    for run in runs:
        if "frames" in run["outcome"]:
            assert (accepted.count(run["seed"]), run["outcome"]["frames"]) == (jobs, frames)
        else:
            assert run["outcome"]["error"] == "OutcomeUnknownError"
            assert "may be running and may be charged" in run["outcome"]["message"]
            # fal's list would have told of a job.
            assert accepted.count(run["seed"]) < jobs
            assert run["found"] == "SUBMIT_UNKNOWN"
