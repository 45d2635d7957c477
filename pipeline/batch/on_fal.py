"""The same jobs on fal, some at a time: each is charged once, in whatever way a run ends."""

import asyncio
import math
import shutil
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

from .. import fal
from ..errors import CosmosError, InvalidRequestError
from ..export.mp4 import mp4_bytes
from ..fal.budget import LIMIT_VARIABLE, day_limit, in_dollars, quote, spent_today
from ..fal.client import FalClient
from ..fal.start import start_to_send
from ..video import RemoteVideo
from .jobs import InvalidJobsError, Job
from .output import Output, values_of
from .progress import Display, Outcome, reason
from .starts import load_start

RECORDS, FILES = ".fal_jobs", ".fal_videos"
"""Folders in the output folder: the records of paid jobs, and fal's own files."""


@dataclass(frozen=True)
class FalSettings:
    """`at_once`: jobs that run at fal at the same time. `confirmed`: whether the price needs no question."""

    format: str
    quality: str
    at_once: int
    confirmed: bool


def make_on_fal(jobs: list[Job], output: Output, settings: FalSettings, display: Display) -> int:
    """Make the jobs on fal, after the price of all has been confirmed. Return how many failed.

    Raises `InvalidRequestError` without a confirmation, and `CosmosError` where nothing can be sent.
    """
    refuse_long(jobs)
    print_price(jobs, output)
    confirm(settings.confirmed)
    journal = fal.Journal(output.folder / RECORDS)
    with display:
        return asyncio.run(_make_all(jobs, output, settings, journal, display))


def refuse_long(jobs: list[Job]) -> None:
    """Raise `InvalidJobsError` for videos of more than one segment."""
    problems = [
        f"{job.place}: a video of {job.num_frames} frames cannot be made on fal." for job in jobs if job.new_frames
    ]
    if problems:
        raise InvalidJobsError(problems)


async def price_of(jobs: list[Job], journal: fal.Journal) -> float:
    """Return the dollars that all jobs cost, each as if none had been paid for before."""
    async with FalClient() as client:
        prices = {endpoint: (await quote(client, journal, endpoint)).dollars for endpoint in {*map(endpoint_of, jobs)}}
    return sum(prices[endpoint_of(job)] for job in jobs)


def print_price(jobs: list[Job], output: Output) -> None:
    """Print what the jobs cost, what was spent today, and the day's limit."""
    journal, limit = fal.Journal(output.folder / RECORDS), day_limit()
    dollars = asyncio.run(price_of(jobs, journal))
    print(f"{len(jobs)} videos on fal: {in_dollars(dollars)}. Spent today: {in_dollars(spent_today(journal))}.")
    if limit < math.inf:
        print(f"The limit is {in_dollars(limit)} per day. {LIMIT_VARIABLE} changes it.")


def confirm(confirmed: bool) -> None:
    """Ask on a terminal. Raises `InvalidRequestError` where the answer is not yes, or nobody can answer."""
    if confirmed:
        return
    if not sys.stdin.isatty():
        raise InvalidRequestError("Nothing was sent: add --yes to pay that.")
    if input("Pay that? [y/N] ").strip().lower() not in ("y", "yes"):
        raise InvalidRequestError("Nothing was sent.")


def endpoint_of(job: Job) -> fal.Endpoint:
    """Return where a job is sent: a picture and a clip have an endpoint each."""
    if job.input_path is None:
        return fal.TEXT_TO_VIDEO
    return fal.IMAGE_TO_VIDEO if job.inference_type == "image2world" else fal.VIDEO_TO_VIDEO


async def _make_all(
    jobs: list[Job], output: Output, settings: FalSettings, journal: fal.Journal, display: Display
) -> int:
    places, failed = asyncio.Semaphore(settings.at_once), 0

    async def make(job: Job) -> Outcome | None:
        async with places:
            return await _make(job, output, settings, journal)

    for coming in asyncio.as_completed([make(job) for job in jobs]):
        if outcome := await coming:
            failed += display.add(outcome)
    return failed


async def _make(job: Job, output: Output, settings: FalSettings, journal: fal.Journal) -> Outcome | None:
    """Return what came of the job, or None where another process has it."""
    claim, begun = output.claim(job), time.monotonic()
    if claim is None:
        return None
    try:
        video = await _generate(job, output, settings, journal)
        copy = claim.folder / f"video{output.suffix}"
        await asyncio.to_thread(shutil.copyfile, video.path, copy)
        seconds = time.monotonic() - begun
        output.publish(job, copy, {**values_of(job, video), "endpoint": endpoint_of(job).id, "seconds": seconds})
    except (CosmosError, OSError) as error:
        return Outcome(job, time.monotonic() - begun, reason(error))
    finally:
        claim.release()
    return Outcome(job, seconds)


async def _generate(job: Job, output: Output, settings: FalSettings, journal: fal.Journal) -> RemoteVideo:
    request = replace(job.request, video_output_type=settings.format, video_quality=settings.quality)
    options: dict[str, Any] = {"folder": output.folder / FILES, "journal": journal}
    if job.input_path:
        sent = await asyncio.to_thread(lambda: start_to_send(load_start(job), mp4_bytes, journal))
        options |= {"media": sent.media, "endpoint": sent.endpoint}
    return await fal.generate(request, **options)
