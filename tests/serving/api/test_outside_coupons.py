"""A gateway tells the coupon system that its settings name what its checkouts did."""

import asyncio

import pytest

from contract.errors import UserError
from tests.serving.api.test_offers import TEN, offered, put, redeem, reserve
from tests.serving.conftest import Start
from tests.serving.state.coupon_system import coupon_system

KEY = {"voucherify_app_id": "app", "voucherify_app_token": "token"}


async def test_what_was_redeemed_is_told_outside(start: Start) -> None:
    with coupon_system() as outside:
        running = await start(voucherify_url=outside.url, **KEY)
        await put(running, TEN | {"external_code": "TEN-1"})
        held = (await reserve(running, await offered(running))).json()
        assert (await redeem(running, held)).status_code == 200
        headers, metrics = running.bearer("admin"), ""
        async with asyncio.timeout(60):
            while 'tillwise_coupon_messages_total{outcome="told"} 2.0' not in metrics:
                await asyncio.sleep(0.05)
                metrics = (await running.client.get("/metrics", headers=headers)).text
    (one,) = outside.redemptions.values()
    assert one["metadata"]["reservation_id"] == held["reservation_id"]
    assert "tillwise_coupon_messages_waiting 0.0" in metrics


async def test_an_address_that_can_not_be_right_is_told_at_the_start(start: Start) -> None:
    with pytest.raises(UserError, match="TILLWISE_VOUCHERIFY_URL"):
        await start(voucherify_url="http://coupons.example", **KEY)
