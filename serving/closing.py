"""Closes a gateway, the parts that still write first."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from serving.api.gateway import Gateway

log = logging.getLogger(__name__)


async def close_gateway(gateway: Gateway) -> None:
    """Finish what is being written, take a snapshot, and let go of everything. What fails is logged
    and noted in `gateway.left_undone`; the steps after it are taken all the same."""

    async def step(name: str, act: Callable[[], Awaitable[None] | None]) -> None:
        try:
            ended = act()
            if ended is not None:
                await ended
        except Exception as error:
            log.error("shutting down, %s: %s: %s", name, type(error).__name__, error)
            gateway.left_undone.append(name)

    await asyncio.gather(*gateway.background, return_exceptions=True)
    await step("writing events", gateway.ingest.drain)
    await step("writing impressions", gateway.impressions.stop)
    if gateway.feed is not None:
        await step("following the event log", gateway.feed.stop)
    # Without it the next start replays more of the log.
    await step("writing a snapshot", gateway.features.snapshot)
    await step("closing the feature store", gateway.features.aclose)
    await step("closing the event log", gateway.event_log.close)
    await step("writing anonymous sums", gateway.anonymous.flush)
    await step("writing what was counted", lambda: gateway.shelf.pacing.flush(gateway.clock.now()))
    await step("closing the coupon ledger", gateway.ledger.close)
    await step("closing the control store", gateway.control.close)
    await step("ending the shadow", gateway.shadow.close)
    await step("ending the decisions", gateway.decider.close)
    await step("letting go of the release", gateway.live.close)
    if gateway.triton is not None:
        await step("leaving the model server", gateway.triton.close)
    await step("sending traces", gateway.tracing.close)
