"""What is told of the price."""

from typing import Any

import pytest

from cosmos_predict25.devtools.fal_standin import FOREVER, FalStandIn, Json, Reply
from cosmos_predict25.pipeline.fal import VIDEO_TO_VIDEO
from cosmos_predict25.pipeline.fal.extension import cost_of
from cosmos_predict25.pipeline.fal.queue.platform import Price
from cosmos_predict25.tests.fal import Recorder, make, run


def messages_while_it_runs(fal: FalStandIn, **options: Any) -> list[str]:
    observer = Recorder()
    run(make(fal, observer=observer, **options))
    return observer.messages


def test_the_price_is_shown(fal: FalStandIn) -> None:
    assert any("$0.20 a video" in message for message in messages_while_it_runs(fal))
    (request,) = fal.requests("pricing")
    assert request.host == "api.fal.ai"
    assert request.headers["authorization"] == f"Key {fal.key}"


def test_an_unknown_price_is_told(fal: FalStandIn) -> None:
    fal.fault("pricing", Reply(500), times=FOREVER)
    assert any("price unknown" in message for message in messages_while_it_runs(fal))


def test_the_price_of_an_endpoint_that_the_platform_does_not_know_is_told_as_unknown(fal: FalStandIn) -> None:
    fal.prices.clear()
    assert any("price unknown" in message for message in messages_while_it_runs(fal))


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        (0.2, "USD", "$0.20"),
        (1.5, "USD", "$1.50"),
        (12, "USD", "$12.00"),
        (0.0, "USD", "$0.00"),
        (0.005, "USD", "$0.005"),
        (0.00125, "USD", "$0.00125"),
        (0.125, "USD", "$0.125"),
        (0.3, "EUR", "0.30 EUR"),
    ],
)
def test_a_price_below_a_cent_is_shown_right(amount: float, currency: str, shown: str) -> None:
    assert str(Price(amount, currency, "video")) == f"{shown} a video"


@pytest.mark.parametrize(("unit", "shown"), [("videos", "$0.60 in all"), ("seconds", "$0.20 a second")])
def test_the_price_of_parts_is_added_up_only_where_it_is_that_of_a_video(
    fal: FalStandIn, unit: str, shown: str
) -> None:
    def of_unit(reply: dict[str, Any]) -> dict[str, Any]:
        return {**reply, "prices": [{**price, "unit": unit} for price in reply["prices"]]}

    fal.fault("pricing", Json(of_unit))
    assert run(cost_of(3, VIDEO_TO_VIDEO)) == shown
