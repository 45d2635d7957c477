"""The platform API: prices, and the listing of requests."""

import time
from datetime import datetime
from typing import Any

from .inputs import with_defaults
from .jobs import VIDEO, Job, Queue, timestamp
from .switches import DAY, Switches
from .wire import Exchange, Response, json_response

PRICES = {
    "fal-ai/cosmos-predict-2.5/text-to-video": 0.20,
    "fal-ai/cosmos-predict-2.5/image-to-video": 0.20,
    "fal-ai/cosmos-predict-2.5/video-to-video": 0.20,
    "fal-ai/cosmos-predict-2.5/distilled/text-to-video": 0.08,
}
LISTING = "/v1/models/requests/by-endpoint"
PRICING = "/v1/models/pricing"
ESTIMATE = "/v1/models/pricing/estimate"
STAGES = {("GET", LISTING): "listing", ("GET", PRICING): "pricing", ("POST", ESTIMATE): "estimate"}


def failure(status: int, kind: str, message: str) -> Response:
    return json_response({"error": {"type": kind, "message": message, "docs_url": "https://docs.fal.ai"}}, status)


class Platform:
    """`prices`: USD per video by endpoint."""

    def __init__(self, switches: Switches, queue: Queue) -> None:
        self.prices = dict(PRICES)
        self._switches = switches
        self._queue = queue

    def answer(self, exchange: Exchange) -> Response:
        if exchange.stage == "pricing":
            return self.pricing(exchange)
        if exchange.stage == "estimate":
            return self.estimate(exchange.json())
        if exchange.stage == "listing":
            return self.listing(exchange)
        return failure(404, "not_found", "There is no such resource.")

    def pricing(self, exchange: Exchange) -> Response:
        asked = [name for value in exchange.query.get("endpoint_id", []) for name in value.split(",")]
        if not 1 <= len(asked) <= 50:
            return failure(400, "validation_error", "endpoint_id: 1 to 50 are needed.")
        if unknown := [name for name in asked if name not in self.prices]:
            return failure(404, "not_found", f"There is no endpoint {unknown[0]}.")
        prices = [
            {"endpoint_id": name, "unit_price": self.prices[name], "unit": "video", "currency": "USD"} for name in asked
        ]
        return json_response({"prices": prices, "next_cursor": None, "has_more": False})

    def estimate(self, asked: dict[str, Any]) -> Response:
        count = {"unit_price": "unit_quantity", "historical_api_price": "call_quantity"}.get(asked["estimate_type"])
        if count is None:
            return failure(400, "validation_error", "estimate_type is unknown.")
        if unknown := [name for name in asked["endpoints"] if name not in self.prices]:
            return failure(404, "not_found", f"There is no endpoint {unknown[0]}.")
        total = sum(self.prices[name] * wanted[count] for name, wanted in asked["endpoints"].items())
        return json_response({"estimate_type": asked["estimate_type"], "total_cost": total, "currency": "USD"})

    def listing(self, exchange: Exchange) -> Response:
        """The newest first. `cursor` is how many to leave out."""
        self._queue.settle()
        limit, skip = int(exchange.argument("limit", "50")), int(exchange.argument("cursor", "0"))
        endpoints = exchange.query.get("endpoint_id", [])
        if not endpoints or not 1 <= limit <= 100:
            return failure(400, "validation_error", "endpoint_id is needed, and limit is 1 to 100.")
        end = moment(exchange.argument("end")) or float("inf")
        start = moment(exchange.argument("start")) or min(end, time.time()) - DAY
        found = [
            job
            for job in reversed(self._queue.jobs.values())
            if job.endpoint in endpoints and start <= job.sent_at < end and self.listed(job)
        ]
        payloads = "payloads" in exchange.query.get("expand", [])
        more = len(found) > skip + limit
        return json_response(
            {
                "items": [self.item(job, payloads) for job in found[skip : skip + limit]],
                "next_cursor": str(skip + limit) if more else None,
                "has_more": more,
            }
        )

    def _defaults(self, job: Job) -> dict[str, Any]:
        return {**with_defaults(job.endpoint, job.input), "negative_prompt": self._switches.default_negative_prompt}

    def listed(self, job: Job) -> bool:
        far_enough = {"accepted": True, "started": job.started is not None, "completed": job.ended is not None}
        return far_enough[self._switches.listed] and not job.input.get("sync_mode")

    def item(self, job: Job, payloads: bool) -> dict[str, Any]:
        def world(moment: float | None) -> str | None:
            return None if moment is None else timestamp(job.sent_at + moment - job.created)

        item = {
            "request_id": job.request_id,
            "endpoint_id": job.endpoint,
            "sent_at": timestamp(job.sent_at),
            "started_at": world(job.started),
            "ended_at": world(job.ended),
            "status_code": None if job.ended is None else job.outcome.status,
            "duration": job.ended - job.started if job.ended is not None and job.started is not None else None,
        }
        if payloads and job.stored:
            filled = self._switches.listed_defaults and job.outcome == VIDEO
            item["json_input"] = {**self._defaults(job), **job.input} if filled else job.input
            item["json_output"] = None if job.ended is None else self._queue.output(job)
        return item


def moment(text: str) -> float | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else None
