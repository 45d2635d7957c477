"""The daily limit for jobs on fal, counted in the journal before each job is sent."""

import math
import os
import time
from dataclasses import dataclass
from datetime import datetime

from ..errors import FalError, InvalidRequestError
from ..lock import release
from ..observer import NullObserver
from .client import FalClient
from .endpoints import Endpoint
from .journal import Charge, JobState, Journal, Record, wait_for_lock
from .queue.platform import Price

LIMIT_VARIABLE = "COSMOS_PREDICT25_FAL_DAY_LIMIT"
DEFAULT_LIMIT = 10.0
NO_LIMIT = "none"
PRICE_AGE = 3600
"""Seconds after which fal is asked for the price again."""
MAX_RATIO = 2
"""A price above this multiple of the documented one is refused."""
LOCK_SECONDS = 60
CENT = 0.01


@dataclass(frozen=True)
class Quote:
    """A price in dollars. `asked`: when fal was asked, in seconds since 1970. `told`: whether fal answered."""

    dollars: float
    asked: float
    told: bool = True

    def __str__(self) -> str:
        return (
            f"{in_dollars(self.dollars)} a video" if self.told else f"price unknown, about {in_dollars(self.dollars)}"
        )


def day_limit() -> float:
    """Return the daily limit in dollars, infinity if there is none. Raises `InvalidRequestError`."""
    text = os.environ.get(LIMIT_VARIABLE, "").strip().removeprefix("$")
    if text.lower() == NO_LIMIT:
        return math.inf
    try:
        limit = float(text or DEFAULT_LIMIT)
    except ValueError:
        limit = math.nan
    if not 0 <= limit < math.inf:
        raise InvalidRequestError(
            f"{LIMIT_VARIABLE} is {text!r}, but must be dollars per day, such as {DEFAULT_LIMIT:g}, or {NO_LIMIT}."
        )
    return limit


def spent_today(journal: Journal) -> float:
    """Return the dollars of all jobs sent on the current calendar day."""
    midnight = datetime.now().replace(hour=0, minute=0, second=0, microsecond=0)
    return sum(charge.price for charge in journal.charges(midnight.timestamp()))


def in_dollars(amount: float) -> str:
    return Price(amount, "USD", "video").times(1)


async def quote(client: FalClient, journal: Journal, endpoint: Endpoint) -> Quote:
    """Return the price of a job: fal's from the last hour, or the documented one if fal does not tell.

    Without a limit, the documented price is used without asking. Raises `FalError` for a price of more than twice the
    documented one.
    """
    if known := known_quote(journal, endpoint):
        return known
    if math.isinf(day_limit()):
        return Quote(endpoint.dollars, 0, told=False)
    price = await told_price(client, endpoint)
    if not price:
        return Quote(endpoint.dollars, time.time(), told=False)
    if price.dollars > MAX_RATIO * endpoint.dollars:
        raise FalError(
            f"fal now charges {price} for {endpoint.id}, more than twice the documented "
            f"{in_dollars(endpoint.dollars)}: nothing was sent. Check the price at https://fal.ai/models. To accept "
            f"it, set {LIMIT_VARIABLE} to {NO_LIMIT}, start ComfyUI again and run the same again.",
            stage="price",
        )
    return price


async def told_price(client: FalClient, endpoint: Endpoint) -> Quote | None:
    """Return fal's price, or None if fal does not give one in dollars per video."""
    price = await client.price(endpoint.id)
    if price and (price.currency, price.unit) == ("USD", "video"):
        return Quote(price.amount, time.time())
    return None


def known_quote(journal: Journal, endpoint: Endpoint) -> Quote | None:
    """Return the newest price of the endpoint from the last hour, or None."""
    oldest = time.time() - PRICE_AGE
    of_endpoint = [record for record in journal.records(oldest) if record.endpoint == endpoint.id]
    charges = [charge for record in of_endpoint for charge in record.charges if oldest <= charge.priced <= time.time()]
    newest = max(charges, key=lambda charge: charge.priced, default=None)
    return newest and Quote(newest.price, newest.priced)


async def save_with_charge(journal: Journal, record: Record, price: Quote) -> None:
    """Save the record of a job that is about to be sent, with its price, unless the daily limit forbids it.

    One job is counted at a time, by all processes with this journal. Raises `FalError`, and `JobKeptError` when the
    disk does not take the record.
    """
    lock = await wait_for_lock(journal.folder / "day.lock", NullObserver(), LOCK_SECONDS)
    try:
        limit = day_limit()
        if not math.isinf(limit):
            check_limit(spent_today(journal), price.dollars, limit)
        record.state = JobState.SUBMIT_UNKNOWN
        record.add_charge(Charge(record.created, price.dollars, price.asked))
        journal.save(record)
    finally:
        release(lock)


def check_limit(spent: float, price: float, limit: float) -> None:
    """Raise `FalError` for a job that would exceed the limit."""
    if spent + price < limit + CENT / 2:
        return
    raise FalError(
        f"The job was not sent: it costs {in_dollars(price)}, you spent {in_dollars(spent)} on fal today, and the "
        f"daily limit is {in_dollars(limit)}. Run the same again tomorrow, or set the environment variable "
        f"{LIMIT_VARIABLE} to more dollars, or to {NO_LIMIT}, and start ComfyUI again.",
        stage="limit",
    )
