"""fal's platform API ("Platform API" in fal's documentation): prices, and the list of the account's jobs."""

import math
import urllib.parse
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ...errors import FalError
from ..redaction import printable_line
from .errors import error_from
from .reply import TransportFailure
from .transport import Transport

TIMEOUT = 10
PAGE = 100
MAX_PAGES = 50


class IncompleteListError(FalError):
    """fal's list goes on, and no more of it was read."""


@dataclass(frozen=True)
class Price:
    """Of one `unit`, such as a video."""

    amount: float
    currency: str
    unit: str

    def __str__(self) -> str:
        return f"{self.times(1)} a {self.unit}"

    def times(self, count: int) -> str:
        """Return the price of `count` units."""
        whole, _, cents = f"{count * self.amount:.6f}".rstrip("0").partition(".")
        amount = f"{whole}.{cents:0<2}"
        return f"${amount}" if self.currency == "USD" else f"{amount} {self.currency}"


async def read_price(transport: Transport, endpoint_id: str) -> Price | None:
    """Return the price of a job now, None where fal does not tell."""
    query = urllib.parse.urlencode({"endpoint_id": endpoint_id})
    url = f"{transport.policy.platform_url}/models/pricing?{query}"
    timeout = transport.policy.price_timeout
    reply = await transport.send("GET", url, timeout=timeout, deadline=timeout)
    if isinstance(reply, TransportFailure) or not reply.is_success:
        return None
    try:
        entry = next(item for item in reply.json["prices"] if item["endpoint_id"] == endpoint_id)
        amount = float(entry["unit_price"])
        unit = printable_line(str(entry["unit"]), 20).removesuffix("s")
        price = Price(amount, printable_line(str(entry["currency"]), 8), unit)
    except (LookupError, TypeError, ValueError, OverflowError, StopIteration):
        return None
    return price if math.isfinite(amount) and amount >= 0 else None


async def list_requests(
    transport: Transport, endpoint_id: str, start: datetime | None = None, end: datetime | None = None
) -> AsyncIterator[dict[str, Any]]:
    """Yield the account's jobs that were sent from `start` to `end`, at most 5000, with their inputs.

    Without a start, those of the last 24 hours by fal's clock. An entry that is no object is yielded as an empty one.
    No more than a page is held at once. Raises `FalError`, and `IncompleteListError` where that is not the whole list.
    """
    query = {"endpoint_id": endpoint_id, "limit": str(PAGE), "expand": "payloads"}
    query |= {name: moment.isoformat() for name, moment in (("start", start), ("end", end)) if moment}
    for _ in range(MAX_PAGES):
        body = await _read_page(transport, query)
        for item in body["items"]:
            yield item if isinstance(item, dict) else {}
        cursor = body.get("next_cursor")
        if body.get("has_more") is False:
            return
        if not isinstance(cursor, str):
            break
        query["cursor"] = cursor
    raise IncompleteListError("fal did not list all of the account's jobs.", stage="listing")


async def _read_page(transport: Transport, query: dict[str, str]) -> dict[str, Any]:
    url = f"{transport.policy.platform_url}/models/requests/by-endpoint?{urllib.parse.urlencode(query)}"
    reply = await transport.send("GET", url, timeout=TIMEOUT, deadline=2 * TIMEOUT)
    if isinstance(reply, TransportFailure):
        raise FalError(f"fal did not list the account's jobs ({reply.reason}).", stage="listing")
    if not reply.is_success or not isinstance(reply.json, dict) or not isinstance(reply.json.get("items"), list):
        raise error_from(reply, "listing", "fal did not list the account's jobs")
    return reply.json
