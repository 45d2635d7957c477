"""fal's platform API: prices, and the list of the account's jobs."""

import math
import urllib.parse
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from ...errors import FalError
from ..redaction import printable_line
from .reply import UnreadableReplyError, error_from
from .transport import Transport, reason_of

TIMEOUT = 10
PAGE = 100
MAX_PAGES = 50


@dataclass(frozen=True)
class Price:
    """Of one `unit`, such as a video."""

    amount: float
    currency: str
    unit: str

    def __str__(self) -> str:
        amount = f"${self.amount:.2f}" if self.currency == "USD" else f"{self.amount:.2f} {self.currency}"
        return f"{amount} a {self.unit}"


async def read_price(transport: Transport, http: httpx.AsyncClient, endpoint_id: str) -> Price | None:
    """What fal says that a job costs now, or None where it does not tell."""
    query = urllib.parse.urlencode({"endpoint_id": endpoint_id})
    url = f"{transport.policy.platform_url}/models/pricing?{query}"
    try:
        reply = await transport.send(http, "GET", url, timeout=TIMEOUT, deadline=TIMEOUT)
        prices = reply.json()["prices"] if reply.is_success else []
        entry = next(item for item in prices if item["endpoint_id"] == endpoint_id)
        amount = float(entry["unit_price"])
        unit = printable_line(str(entry["unit"]), 20).removesuffix("s")
        price = Price(amount, printable_line(str(entry["currency"]), 8), unit)
    except (
        httpx.TransportError,
        UnreadableReplyError,
        LookupError,
        TypeError,
        ValueError,
        OverflowError,
        StopIteration,
    ):
        return None
    return price if math.isfinite(amount) else None


async def list_requests(
    transport: Transport, http: httpx.AsyncClient, endpoint_id: str, start: datetime, end: datetime
) -> list[dict[str, Any]]:
    """The account's jobs that were sent from `start` to `end`, at most 5000, with their inputs. Raises `FalError`."""
    query = {
        "endpoint_id": endpoint_id,
        "start": start.isoformat(),
        "end": end.isoformat(),
        "limit": str(PAGE),
        "expand": "payloads",
    }
    found: list[dict[str, Any]] = []
    for _ in range(MAX_PAGES):
        body = await _read_page(transport, http, query)
        found += [item for item in body["items"] if isinstance(item, dict)]
        cursor = body.get("next_cursor")
        if not body.get("has_more") or not isinstance(cursor, str):
            break
        query["cursor"] = cursor
    return found


async def _read_page(transport: Transport, http: httpx.AsyncClient, query: dict[str, str]) -> dict[str, Any]:
    url = f"{transport.policy.platform_url}/models/requests/by-endpoint?{urllib.parse.urlencode(query)}"
    try:
        reply = await transport.send(http, "GET", url, timeout=TIMEOUT, deadline=2 * TIMEOUT)
        body = reply.json()
    except (httpx.TransportError, UnreadableReplyError) as error:
        raise FalError(f"fal did not list the account's jobs ({reason_of(error)}).", stage="listing") from None
    if not reply.is_success or not isinstance(body, dict) or not isinstance(body.get("items"), list):
        raise error_from(reply, "listing", "fal did not list the account's jobs", transport.key)
    return body
