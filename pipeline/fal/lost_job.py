"""The job whose reply was lost: looked for in fal's own list, and never sent again."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from ..errors import FalError, OutcomeUnknownError
from .client import FalClient
from .endpoints import is_same_input
from .journal import Journal, Record
from .queue.job import Job, is_request_id

CLOCK_ERROR = timedelta(seconds=5)
"""How far off fal's time may be: its `Date` has whole seconds, and takes a moment to come."""
UNKNOWN_OFFSET = timedelta(hours=24)


async def find_lost_job(
    client: FalClient, journal: Journal, record: Record, stored: bool, announce: Callable[[str], None]
) -> Job:
    """Return the one job in fal's list that can be that of `record`.

    `stored`: whether fal keeps the input, which the list then shows. Raises `OutcomeUnknownError` where there is none,
    or more than one.
    """
    listing_error = seen = ""
    again = journal.how_to_send_again(record)
    next_step = f"if the job is not there, {again}"
    for pause in client.policy.reconcile_pauses:
        announce("Looking for the job, since fal's reply was lost")
        await asyncio.sleep(pause)
        try:
            matches, ended = await matching_requests(client, journal, record)
        except FalError as error:
            listing_error = listing_error or str(error)
            continue
        if len(matches) == 1:
            return client.job(record.endpoint, matches.pop())
        seen = describe(matches, ended, stored)
        next_step = f"if {'that was this job' if ended and not matches else 'the job is not there'}, {again}"
    raise OutcomeUnknownError(
        "The job was sent to fal, but the reply was lost: it may be running and may be charged. "
        f"{seen or listing_error} Run the same again to look once more, at no charge. Or look at "
        f"https://fal.ai/dashboard/requests: {next_step}. Another seed makes another job.",
        stage="submit",
    )


def describe(matches: set[str], ended: set[str], stored: bool) -> str:
    """Return a sentence on a list that does not show just one job."""
    if matches:
        return f"fal's list shows {len(matches)} jobs like it, so it is not clear which one it is."
    if ended:
        return f"fal's list shows a job like it that failed or was cancelled: {', '.join(sorted(ended))}."
    if stored:
        return "fal's list shows no job like it, or not yet."
    return "fal's list cannot show it, as store is off."


async def matching_requests(client: FalClient, journal: Journal, record: Record) -> tuple[set[str], set[str]]:
    """Return the request ids of jobs that may be that of `record`, and of those that have failed.

    Raises `FalError`.
    """
    claimed = {other.request_id for other in journal.records()} | set(record.past_ids)
    matches, ended = set(), set()
    async for item in listed(client, record):
        request_id = item.get("request_id")
        if (
            is_request_id(request_id)
            and request_id not in claimed
            and is_same_input(item.get("json_input"), record.input_keys, record.input_sha256)
        ):
            (ended if has_ended_badly(item) else matches).add(request_id)
    return matches, ended


def listed(client: FalClient, record: Record) -> AsyncIterator[dict[str, Any]]:
    """Return fal's list from when the job was sent, as far as the clocks tell."""
    start = end = datetime.fromtimestamp(record.created, timezone.utc)
    if record.clock_offset is None:
        start -= UNKNOWN_OFFSET
    else:  # which may be that of a relay or a gateway, so that both times may be the right one
        start += timedelta(seconds=min(0, record.clock_offset)) - CLOCK_ERROR
        end += timedelta(seconds=max(0, record.clock_offset))
    end += 2 * UNKNOWN_OFFSET + timedelta(seconds=client.policy.wait_limit)
    return client.requests(record.endpoint, start, end)


def has_ended_badly(item: Mapping[str, Any]) -> bool:
    """Return whether an entry of fal's list tells of a job that failed or was cancelled."""
    code = item.get("status_code")
    return isinstance(code, int) and not 200 <= code < 300
