"""A job looked for in fal's own list: the one whose reply was lost, or one that another run has sent."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import anyio

from ..errors import FalError, OutcomeUnknownError
from .client import FalClient
from .endpoints import is_same_input, sha256_of
from .journal import Journal, Record
from .media.upload import is_at
from .queue.job import Job, is_request_id
from .queue.platform import IncompleteListError
from .submission import Submission

CLOCK_ERROR = timedelta(seconds=5)
"""How far off fal's time may be: its `Date` has whole seconds, and takes a moment to come."""
UNKNOWN_OFFSET = timedelta(hours=24)
WRONG_CLOCK = timedelta(days=3)
"""How far back from now a job is looked for if the time was not known when it was sent."""

log = logging.getLogger("cosmos_predict25.fal")


class NotTakenError(OutcomeUnknownError):
    """fal's list, read to its end long enough after the job was sent, shows no such job: fal has not taken it."""


@dataclass
class Search:
    """The traces of a job in fal's list. `matches`: ids of jobs that may be it. `ended`: ids of failed ones.

    `is_clear`: the list was read to its end, and each other entry tells that it is another job.
    """

    matches: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    is_clear: bool = True


async def find_lost_job(
    client: FalClient, journal: Journal, record: Record, stored: bool, announce: Callable[[str], None]
) -> Job:
    """Return the one job in fal's list that can be that of `record`.

    `stored`: whether fal keeps the input, which the list then shows. Raises `NotTakenError` where it is sure that there
    is none, and else `OutcomeUnknownError` where there is none, or more than one.
    """
    listing_error, search = "", None
    for pause in client.policy.reconcile_pauses:
        announce("Looking for the job, since fal's reply was lost")
        await asyncio.sleep(pause)
        try:
            search = await search_list(client, journal, record)
        except FalError as error:
            listing_error, search = listing_error or str(error), None
            continue
        if len(search.matches) == 1:
            return client.job(record.endpoint, search.matches.pop())
    if search and not search.matches and not search.ended and search.is_clear and is_due(client, record):
        raise NotTakenError("fal's list shows no such job, so fal did not take it.", stage="submit")
    again = journal.how_to_send_again(record)
    was_this = bool(search and search.ended and not search.matches)
    raise OutcomeUnknownError(
        "The job was sent to fal, but the reply was lost: it may be running and may be charged. "
        f"{describe(search, stored) if search else listing_error} Run the same again to look once more, at no charge"
        f"{when_due(client, record)}. Or look at https://fal.ai/dashboard/requests: "
        f"if {'that was this job' if was_this else 'the job is not there'}, {again}. Another seed makes another job.",
        stage="submit",
    )


def describe(search: Search, stored: bool) -> str:
    """Return a sentence on a list that does not show just one job."""
    if search.matches:
        return f"fal's list shows {len(search.matches)} jobs like it, so it is not clear which one it is."
    if search.ended:
        return f"fal's list shows a job like it that failed or was cancelled: {', '.join(sorted(search.ended))}."
    if stored:
        return "fal's list shows no job like it, or not yet."
    return "fal's list cannot show it, as store is off."


def is_due(client: FalClient, record: Record) -> bool:
    """Return whether fal's list is sure to show the job of `record` by now, if there is one.

    Only where fal's time was known when the job was sent, and nothing has set this computer's clock since.
    """
    then, now = record.clock_offset, client.clock_offset
    if not is_listed(client, record) or then is None or now is None:
        return False
    return abs(now - then) <= CLOCK_ERROR.total_seconds() and seconds_until_due(client, record) < 0


def is_listed(client: FalClient, record: Record) -> bool:
    """Return whether this account's list would show the job."""
    return record.listed_for is not None and record.listed_for == client.account


def seconds_until_due(client: FalClient, record: Record) -> float:
    return client.policy.listed_within - (time.time() - record.created)


def when_due(client: FalClient, record: Record) -> str:
    """Return from when on the same run sends the job again, where that will be known."""
    seconds = seconds_until_due(client, record)
    if not is_listed(client, record) or record.clock_offset is None or seconds < 0:
        return ""
    return f"; in {math.ceil(seconds / 60)} minutes that sends it again where fal's list still shows no such job"


async def search_list(client: FalClient, journal: Journal, record: Record) -> Search:
    """Look through fal's list for the job of `record`. Raises `FalError`."""
    claimed = {other.request_id for other in journal.records()} | set(record.past_ids)
    search = Search()
    try:
        async for item in listed(client, record):
            request_id, given = item.get("request_id"), item.get("json_input")
            if request_id in claimed:
                continue
            if is_request_id(request_id) and is_same_input(given, record.input_keys, record.input_sha256):
                (search.ended if has_ended_badly(item) else search.matches).add(request_id)
            elif not isinstance(given, dict) or given.get("seed", record.seed) == record.seed:
                search.is_clear = False  # it may be the job, with its input left out or written in another way
    except IncompleteListError:
        search.is_clear = False
    return search


def listed(client: FalClient, record: Record) -> AsyncIterator[dict[str, Any]]:
    """Return fal's list from when the job was sent, as far as the clocks tell."""
    start = end = datetime.fromtimestamp(record.created, timezone.utc)
    if record.clock_offset is None:
        now = datetime.fromtimestamp(time.time() + (client.clock_offset or 0), timezone.utc)
        start, end = min(start - UNKNOWN_OFFSET, now - WRONG_CLOCK), max(end, now)
    else:  # which may be that of a relay or a gateway, so that both times may be the right one
        start += timedelta(seconds=min(0, record.clock_offset)) - CLOCK_ERROR
        end += timedelta(seconds=max(0, record.clock_offset))
    end += 2 * UNKNOWN_OFFSET + timedelta(seconds=client.policy.wait_limit)
    return client.requests(record.endpoint, start, end)


def has_ended_badly(item: Mapping[str, Any]) -> bool:
    """Return whether an entry of fal's list tells of a job that failed or was cancelled."""
    code = item.get("status_code")
    return isinstance(code, int) and not 200 <= code < 300


async def find_same_job(client: FalClient, journal: Journal, submission: Submission) -> Job | None:
    """Return a job of the last 24 hours with the input of `submission`, None where fal lists none in time.

    For example a job of another ComfyUI of the account, or one whose record was deleted. Jobs of the records here are
    left out, and so are jobs that the user was told how to replace.
    """
    records = journal.records()
    known = {other.request_id for other in records} | {past for other in records for past in other.past_ids}
    known |= journal.ids_set_aside()
    with anyio.move_on_after(client.policy.look_time):
        await anyio.sleep(0)  # where no time is given, nothing is asked
        try:
            async with aclosing(client.requests(submission.endpoint.id)) as items:  # pyright: ignore
                async for item in items:
                    request_id = item.get("request_id")
                    is_usable = is_request_id(request_id) and request_id not in known and not has_ended_badly(item)
                    if is_usable and await has_input_of(item.get("json_input"), submission, client):
                        return client.job(submission.endpoint.id, request_id)
        except FalError as error:
            log.info("No look for a job with the same input: %s", error)
    return None


async def has_input_of(given: Any, submission: Submission, client: FalClient) -> bool:
    """Return whether `given`, from fal's list, is the input of `submission`.

    A file that is uploaded has another address each time, so its content is compared.
    """
    media, arguments = submission.media, dict(submission.arguments)
    uploaded = None if media is None or media.address else media
    if uploaded:
        arguments.pop(submission.endpoint.media)
    if not is_same_input(given, sorted(arguments), sha256_of(arguments)):
        return False
    return not uploaded or await is_at(given.get(submission.endpoint.media), uploaded, client.policy)
