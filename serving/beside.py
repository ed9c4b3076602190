"""What runs beside the requests: following what others wrote, deliveries, and what is due."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from serving.api.gateway import Gateway
from serving.ingest.retention import enforce_when_due
from serving.settings_of_parts import voucherify_place, webhook_place
from serving.state.sqlite_writer import StoreError

if TYPE_CHECKING:
    from serving.state.delivery import Delivery

log = logging.getLogger(__name__)

# How long what one gateway was told of an item, or an erasure by another process, may take to be
# known to the others, at most.
_FOLLOW_SECONDS = 0.5
_ANONYMOUS_SECONDS = 5.0
_OUTSIDE_SECONDS = 1.0
_RETENTION_SECONDS = 600.0  # how often it is looked whether the daily job is due
_PACING_SECONDS = 5.0  # how often it is looked whether the price of spending is to be solved anew
_UNFINISHED_SECONDS = 5.0  # how often what is left of erasures is tried again


@asynccontextmanager
async def running_beside(gateway: Gateway, *, follow_pointer: bool) -> AsyncIterator[None]:
    """Everything of `gateway` that no request asks for, until the context ends."""
    told = _deliveries(gateway)
    period = gateway.settings.snapshot_minutes * 60
    tasks = [
        _every(period, gateway.features.snapshot, "snapshot"),
        _every(_RETENTION_SECONDS, lambda: _retain(gateway), "retention", at_once=True),
        _every(_FOLLOW_SECONDS, lambda: _follow_store(gateway), "control store"),
        _every(_ANONYMOUS_SECONDS, lambda: _write_anonymous(gateway), "anonymous sums"),
        _every(_UNFINISHED_SECONDS, lambda: _finish_erasures(gateway), "erasures"),
        _every(_PACING_SECONDS, gateway.pace_offers, "pacing", at_once=True),
    ]
    tasks += [_every(_OUTSIDE_SECONDS, one.deliver, name) for name, one in told.items()]
    if follow_pointer:
        look = gateway.follower.look
        tasks.append(_every(gateway.settings.release_poll_seconds, look, "releases"))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in told.values():
            await one.aclose()


async def _follow_store(gateway: Gateway) -> None:
    if gateway.follow_erasures():
        await gateway.features.drop_erased()
    gateway.known.check(gateway.control.version(), gateway.control.key_by_id)
    gateway.rules.follow()
    gateway.experiments.follow()
    await gateway.follow_catalogue()
    await gateway.follow_offers()


async def _write_anonymous(gateway: Gateway) -> None:
    await asyncio.to_thread(gateway.anonymous.write, gateway.anonymous.taken())


async def _finish_erasures(gateway: Gateway) -> None:
    try:
        await gateway.rights.finish()
    except StoreError as error:
        log.warning("erasures are not finished: %s", error)


async def _retain(gateway: Gateway) -> None:
    removed = await enforce_when_due(
        gateway.settings.retention, gateway.stores, gateway.rights, gateway.clock
    )
    if removed is not None:
        log.info("retention: %s", removed)


def _every(
    seconds: float, act: Callable[[], Awaitable[object]], name: str, *, at_once: bool = False
) -> asyncio.Task[None]:
    """A task that does `act` again and again; one failure does not end it."""

    async def repeat() -> None:
        wait, told = not at_once, False
        while True:
            if wait:
                await asyncio.sleep(seconds)
            wait = True
            try:
                await act()
                told = False
            except StoreError as error:  # what is away is looked for again, and told of once
                if not told:
                    log.warning("the %s task waits: %s", name, error)
                told = True
            except Exception:
                log.exception("the %s task failed; it goes on", name)

    return asyncio.create_task(repeat(), name=name)


def _deliveries(gateway: Gateway) -> "dict[str, Delivery[Any]]":
    """To the systems outside that the settings name; most name none, and load nothing for it."""
    settings = gateway.settings
    told: dict[str, Delivery[Any]] = {}
    shop = voucherify_place(settings)
    if shop is not None:
        from serving.monitoring.coupon_messages import CouponMessageMetrics
        from serving.state.voucherify import VoucherifyDelivery

        metrics = CouponMessageMetrics(gateway.registry)
        outbox = gateway.ledger.outbox
        told["coupon system"] = VoucherifyDelivery(outbox, shop, gateway.clock, metrics)
    place = webhook_place(settings)
    if place is not None:
        from serving.state.review_webhook import ReviewWebhook

        told["review webhook"] = ReviewWebhook(gateway.control, place, gateway.clock)
    return told
