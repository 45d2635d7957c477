"""A list of videos that one program makes at once on fal and that is killed again and again, and what its records say.

    python fal_list.py FOLDER COUNT

makes `COUNT` videos with the journal and the videos in `FOLDER`, and prints how each ended: "video" or an error's name.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cosmos_predict25.devtools.fal_faults import FAST
from cosmos_predict25.devtools.fal_standin import FalStandIn
from cosmos_predict25.pipeline.fal import Journal, generate
from cosmos_predict25.pipeline.fal.budget import LIMIT_VARIABLE
from cosmos_predict25.pipeline.request import GenerationRequest

PRICE = 0.20
MAX_SECONDS_UNTIL_A_KILL = 1.0
MAX_SECONDS = 600


@dataclass(frozen=True)
class KilledList:
    """`accepted`: jobs that fal took. `charged`: dollars of the jobs in the records. `unknown`: those of which the
    records do not know whether fal took them. `ends`: how often the videos ended so in the last run.
    """

    accepted: int
    charged: float
    unknown: float
    ends: Counter[str]

    def is_good(self, limit: float) -> bool:
        """Return whether the records have the jobs of fal to the cent, and no more than the limit was spent."""
        is_exact = round(100 * self.charged) == round(100 * PRICE * self.accepted)
        return is_exact and round(100 * (self.charged + self.unknown)) <= round(100 * limit)


def killed_list(
    folder: Path, fal: FalStandIn, count: int, limit: float, chance: random.Random, kills: int = 10
) -> KilledList:
    """Make a list, kill the program at random moments after its first request, and then let it come to its end."""
    for _ in range(kills):
        asked = len(fal.journal)
        with start(folder, fal, count, limit) as worker:
            fal.wait_for(lambda asked=asked, worker=worker: len(fal.journal) > asked or worker.poll() is not None)
            with suppress(subprocess.TimeoutExpired):
                worker.wait(chance.uniform(0, MAX_SECONDS_UNTIL_A_KILL))
            worker.kill()
    with start(folder, fal, count, limit) as worker:
        printed, _ = worker.communicate(timeout=MAX_SECONDS)
    charges = [charge for record in Journal(folder / "journal").records() for charge in record.charges]
    known = sum(charge.price for charge in charges if charge.request_id)
    unknown = sum(charge.price for charge in charges if not charge.request_id)
    return KilledList(fal.accepted, known, unknown, Counter(json.loads(printed)))


def start(folder: Path, fal: FalStandIn, count: int, limit: float) -> "subprocess.Popen[str]":
    environ = {**os.environ, **fal.environ, LIMIT_VARIABLE: str(limit)}
    command = [sys.executable, __file__, str(folder), str(count)]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


async def make_list(folder: Path, count: int) -> list[str]:
    policy = replace(FAST, wait_limit=MAX_SECONDS)
    options = {"folder": folder / "videos", "journal": Journal(folder / "journal"), "policy": policy}
    request = GenerationRequest(prompt="A red cube on a conveyor belt.", num_frames=9)
    work = [generate(replace(request, seed=seed), **options) for seed in range(count)]
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    return [type(outcome).__name__ if isinstance(outcome, BaseException) else "video" for outcome in outcomes]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(make_list(Path(sys.argv[1]), int(sys.argv[2])))))
