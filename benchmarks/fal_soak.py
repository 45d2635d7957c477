"""A thousand videos through the fal node, each with a random fault at a random stage, half of them with a kill.

Then a list of a tenth as many at once, half of which the day's limit allows, in a program that is killed ten times.

    .demo/env/bin/python benchmarks/fal_soak.py [--jobs 1000] [--seed 25]

The faults are those of devtools/fal_faults.py, and no money is spent: fal is the stand-in. A video that does
not come at once is asked for again, without the fault. Ends with an error if a video was paid for twice, or if the run
without a fault ended neither with the one video nor with a plain statement that no job was taken, or if the prices in
the list's records are not those of the jobs that were accepted, to the cent.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmos_predict25.devtools.fal_faults import FAULTS, Case
from cosmos_predict25.devtools.fal_list import PRICE, KilledList, killed_list
from cosmos_predict25.devtools.fal_standin import Clock, FalStandIn, Reset
from cosmos_predict25.devtools.report import publish
from cosmos_predict25.pipeline.fal.budget import LIMIT_VARIABLE

LANES = 4
"""As many stand-ins, each with a process that runs the node."""
MAX_SECONDS_UNTIL_A_KILL = 0.8
FIRST_SEED = 1000


@dataclass(frozen=True)
class Outcome:
    """What came of one wanted video. `ends`: of its runs, "video" or the name of an error."""

    case: Case
    is_killed: bool
    ends: tuple[str, ...]
    accepted: int

    @property
    def is_good(self) -> bool:
        if self.accepted:
            return self.accepted == 1 and self.ends[-1] == "video"
        return self.ends[-1] == "OutcomeUnknownError"


class Lane:
    """One stand-in and the process that runs the node against it, one video at a time."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self._folder = folder
        self._chance = chance

    def run(self, seeds: range) -> list[Outcome]:
        with FalStandIn(self._folder / "fal", clock=Clock(real=True)) as fal:
            fal.queue_seconds, fal.run_seconds = 0.05, 0.05
            with subprocess.Popen(
                [sys.executable, __file__, "--worker", str(self._folder)],
                env={**os.environ, **fal.environ, LIMIT_VARIABLE: "none"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            ) as worker:
                outcomes = [self._video(fal, worker, seed) for seed in seeds]
                assert worker.stdin
                worker.stdin.close()
            assert fal.violations == [], fal.violations
        return outcomes

    def _video(self, fal: FalStandIn, worker: "subprocess.Popen[str]", seed: int) -> Outcome:
        case, is_killed = self._chance.choice(FAULTS), self._chance.random() < 0.5
        before = fal.accepted
        fal.fault(case.stage, case.fault, case.times)
        if case.stage == "listing":
            fal.fault("submit", Reset(accept=True))
        seconds = self._chance.uniform(0.02, MAX_SECONDS_UNTIL_A_KILL) if is_killed else 0.0
        ends = [ask(worker, seed=seed, seconds=seconds, policy=dict(case.policy))]
        fal.clear_faults()
        fal.release()
        if ends[-1] != "video":
            ends.append(ask(worker, seed=seed, seconds=0.0, policy={}))
        return Outcome(case, is_killed, tuple(ends), fal.accepted - before)


def ask(worker: "subprocess.Popen[str]", **order: Any) -> str:
    """How a run of the node ended."""
    assert worker.stdin
    assert worker.stdout
    print(json.dumps(order), file=worker.stdin, flush=True)
    return json.loads(worker.stdout.readline())


def work(folder: Path) -> None:
    """Runs the node for each order on the standard input. Everything is imported once, and each run is a fork."""
    from dataclasses import replace

    from cosmos_predict25.devtools import fal_kill_worker
    from cosmos_predict25.devtools.fal_faults import FAST

    for line in sys.stdin:
        order = json.loads(line)
        fal_kill_worker.POLICY = replace(FAST, **order["policy"])
        run = fal_kill_worker.Run("generate", folder, order["seed"], order["seconds"])
        while not run.is_over():
            time.sleep(fal_kill_worker.TICK)
        print(json.dumps("video" if "frames" in run.outcome else run.outcome["error"]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=25)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options.worker)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as base, ThreadPoolExecutor(LANES) as lanes:
        shares = [range(FIRST_SEED + lane, FIRST_SEED + options.jobs, LANES) for lane in range(LANES)]
        work_of = [Lane(Path(base, str(lane)), random.Random(f"{options.seed} {lane}")).run for lane in range(LANES)]
        outcomes = [
            one for lane in lanes.map(lambda lane: lane[0](lane[1]), zip(work_of, shares, strict=True)) for one in lane
        ]
    many = options.jobs // 10
    limit = round(many * PRICE / 2, 2)
    killed = run_list(many, limit, random.Random(options.seed))
    in_list = (
        f"A list of {many} with a limit of ${limit:.2f} and 10 kills: {killed.accepted} jobs accepted, "
        f"${killed.charged:.2f} in the records, ${killed.unknown:.2f} of jobs that may not have been taken."
    )
    publish(*table(outcomes), f"{len(outcomes)} videos in {time.monotonic() - start:.0f} s. {in_list}")
    bad = [outcome for outcome in outcomes if not outcome.is_good]
    for outcome in bad:
        print(f"{outcome.case}, killed: {outcome.is_killed}: {outcome.accepted} jobs, {outcome.ends}")
    return sys.exit(1 if bad or not killed.is_good(limit) else 0)


def run_list(count: int, limit: float, chance: random.Random) -> KilledList:
    with tempfile.TemporaryDirectory() as base, FalStandIn(Path(base, "fal"), clock=Clock(real=True)) as fal:
        fal.queue_seconds, fal.run_seconds = 0.3, 0.5
        killed = killed_list(Path(base), fal, count, limit, chance)
        assert fal.violations == [], fal.violations
    return killed


def table(outcomes: list[Outcome]) -> tuple[list[str], list[list[str]]]:
    header = ["fault at", "videos", "killed", "at once", "run again", "no job, said so", "most jobs for a video"]
    rows = []
    for stage in ["submit", "listing", "pricing", "status", "result", "media"]:
        of_stage = [outcome for outcome in outcomes if outcome.case.stage == stage]
        ends = Counter(len(outcome.ends) if outcome.ends[-1] == "video" else 0 for outcome in of_stage)
        counts = [len(of_stage), sum(outcome.is_killed for outcome in of_stage), ends[1], ends[2], ends[0]]
        rows.append([stage, *map(str, counts), str(max((outcome.accepted for outcome in of_stage), default=0))])
    return header, rows


if __name__ == "__main__":
    main()
