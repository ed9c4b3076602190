"""The demo, as `tillwise-serve demo` runs it: it seeds a state folder from the import and
serves the live release at the time it was trained until; it replays one checkout that the release
has never seen over real HTTP, prints the decision, lets simulated shoppers of the days after come
through the same gateway, and goes on serving the API, the page and the dashboard."""

import argparse
import asyncio
import os
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

from contract.clock import AsOfClock
from contract.consent import PURPOSES
from contract.errors import UserError
from contract.figures import Figures
from contract.manifest import MANIFEST, ReleaseManifest
from contract.rollout_file import live_release_id
from serving.api.auth import digest_of_key, new_key
from serving.api.demo_page import STRANGER, DemoShopper, Shelf, checkout_of, mount
from serving.api.demo_shop import DECIDE, SOURCE, WORDING_VERSION, ShopKeys
from serving.api.gateway import Gateway
from serving.api.static_files import web_folder
from serving.commands.arguments import settings_of
from serving.commands.backfill import SeededElsewhere, backfill
from serving.commands.child_worker import ChildWorker, counted_until
from serving.commands.demo import STATE
from serving.commands.demo_baskets import baskets
from serving.commands.demo_offers import put_examples
from serving.commands.demo_shoppers import CONTROL, TEST, Shoppers, start_test
from serving.commands.held_out import choose_shoppers
from serving.commands.port import bind
from serving.commands.process import Application, serve
from serving.commands.replay import describe
from serving.commands.shop_client import ShopClient
from serving.monitoring.http import configure_logging
from serving.settings import Settings
from serving.state.audit import COMMAND_LINE
from serving.state.control_records import ROLES, Consent, Identity, Role

_SECONDS = 15.0  # for simulated shoppers, however slow the machine


def run(args: argparse.Namespace) -> Figures:
    """Seed, serve, replay; then serve on or end."""
    own_folder = args.state is None and "TILLWISE_STATE" not in os.environ
    args.state = STATE if own_folder else args.state
    settings = settings_of(args)
    configure_logging("warning")
    bind(settings.host, settings.port).close()
    manifest = _manifest(settings)
    clock = AsOfClock(manifest.trained_until)
    try:
        seeded = backfill(settings, args.data, manifest.trained_until, clock)
    except SeededElsewhere:
        if not own_folder:
            raise
        # The import or the release is a new one. Nothing in the demo's own folder is of value.
        shutil.rmtree(STATE)
        seeded = backfill(settings, args.data, manifest.trained_until, clock)
    demo = _Demo(
        settings, args.data, clock, ends=args.exit, shoppers=0 if args.exit else args.shoppers
    )
    try:
        serve(settings, clock, extend=demo.extend, when_ready=demo.replay)
    finally:
        demo.close()
    return Figures("demo", rows=[*seeded.rows, *demo.figures.rows], notes=seeded.notes)


def _manifest(settings: Settings) -> ReleaseManifest:
    release_id = live_release_id(settings.releases)
    path = settings.releases / release_id / MANIFEST
    try:
        return ReleaseManifest.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        raise UserError(f"{path}: can not be read; `tillwise-serve check` says why") from None


def _progress(share: float) -> None:
    if sys.stderr.isatty():
        done = round(share * 30)
        bar = "#" * done + "." * (30 - done)
        end = "\r" if share < 1 else "\n"
        print(f"Simulated shoppers [{bar}] {share:4.0%}", end=end, file=sys.stderr, flush=True)


def is_shown_all(gateway: Gateway, visitor_id: str) -> bool:
    """Whether the visitor is known, of the personalised variant of the demo's test, and not one who
    is shown no offers: the page is there to show what personalization and offers do."""
    now, offers = gateway.clock.now(), gateway.shelf
    if (TEST.key, CONTROL) in gateway.experiments.current.assign(visitor_id, now):
        return False
    subject_id = _found(gateway, visitor_id).subject_id
    if subject_id is None:
        return False
    return offers.draw(subject_id, now) >= offers.current.book.holdout_share


def _found(gateway: Gateway, visitor_id: str) -> Identity:
    return gateway.control.look_up(*gateway.subjects.pseudonyms(visitor_id, None))


async def agree_to_offers(gateway: Gateway, shoppers: Sequence[DemoShopper]) -> None:
    """The import knows of personalization alone. Those whom the page plays agreed to offers as
    well, unless they have said something themselves since."""
    word = Consent(PURPOSES, gateway.clock.now(), SOURCE, WORDING_VERSION)
    for shopper in shoppers:
        if shopper.visitor_id == STRANGER:
            continue
        found = _found(gateway, shopper.visitor_id)
        if found.subject_id is not None and found.consent and found.consent.source != SOURCE:
            await gateway.control.record_consent(found.subject_id, word, COMMAND_LINE)


class _Demo:
    """One run of the demo."""

    def __init__(
        self, settings: Settings, source: Path, clock: AsOfClock, *, ends: bool, shoppers: int
    ) -> None:
        self._settings = settings
        self._source = source
        self._clock = clock
        self._trained_until = clock.start
        self._ends = ends
        self._most = shoppers
        self._shoppers: list[DemoShopper] = []
        self._keys: dict[Role, str] = {}
        self._worker: ChildWorker | None = None
        self.figures = Figures("demo")

    def close(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.close()

    async def extend(self, app: Application, gateway: Gateway) -> None:
        """Add the page, with fresh keys and shoppers."""
        await self._renew_keys(gateway)
        await put_examples(gateway)
        shelf = Shelf(gateway.live.current)

        if self._most:
            await start_test(gateway)
        self._shoppers = choose_shoppers(
            self._source, self._trained_until, shelf, partial(is_shown_all, gateway)
        )
        await agree_to_offers(gateway, self._shoppers)
        keys = self._keys
        shop_keys = ShopKeys(keys["checkout"], keys["admin"], keys["collect"])
        mount(app, gateway, self._shoppers, shop_keys, web_folder("demo"))

    async def replay(self, gateway: Gateway) -> bool:
        """Send the first shopper's checkout, print what came back; whether to end now."""
        shopper, shelf = self._shoppers[0], Shelf(gateway.live.current)
        began = time.perf_counter()
        answer = await asyncio.to_thread(self._client.post, DECIDE, checkout_of(shopper))
        seconds = time.perf_counter() - began
        bought = {item.item_id for item in shopper.bought_too}
        hits = sum(one["item_id"] in bought for one in answer["recommendations"])
        print(describe(shopper, answer, shelf, gateway.clock.now(), seconds), flush=True)
        metrics = {"round_trip_ms": [seconds * 1_000], "hits": [float(hits)]}
        self.figures.add("replayed checkout", metrics)
        if not self._ends:
            print(self._urls(), flush=True)
            if self._most:
                await self._simulate(gateway, shelf)
        return self._ends

    async def _simulate(self, gateway: Gateway, shelf: Shelf) -> None:
        """Let shoppers come, unless they came at an earlier start, and have them counted."""
        self._worker = ChildWorker(
            gateway.settings,
            *("--every", "1", "--reports-every", "10"),
            *("--as-of", self._clock.now().isoformat()),
        )
        latest = await asyncio.to_thread(counted_until, self._settings.state)
        if latest is not None and latest > self._trained_until + timedelta(hours=12):
            self._clock.move_to(latest)  # they came at an earlier start
        else:
            await asyncio.to_thread(self._let_come, shelf)
        print(f"  {self._base}/dashboard  (figures of simulated shoppers)", flush=True)

    def _let_come(self, shelf: Shelf) -> None:
        began = time.perf_counter()
        known = [one.visitor_id for one in self._shoppers]
        visits = baskets(self._source, self._trained_until, shelf, known, self._most)
        shoppers = Shoppers(self._client, shelf, self._clock)
        came = shoppers.come(visits, _SECONDS, _progress)
        seconds = time.perf_counter() - began
        counts = {"visits": [float(came)], "redeemed": [float(shoppers.redeemed)]}
        self.figures.add("shoppers", {**counts, "seconds": [seconds]})
        print(
            f"{came} simulated shoppers came in {seconds:.0f} s, "
            f"{shoppers.redeemed} of them took an offer; what they did is on"
        )

    async def _renew_keys(self, gateway: Gateway) -> None:
        """A secret can not be read again, so every start has keys of its own."""
        now = gateway.clock.now()
        for key in gateway.control.list_keys():
            if key.revoked_at is None:
                await gateway.control.revoke_key(key.key_id, now)
        for role in ROLES:
            api_key, key = new_key(role, now, gateway.secrets)
            await gateway.control.add_key(key, digest_of_key(api_key))
            self._keys[role] = api_key

    @property
    def _base(self) -> str:
        host = self._settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self._settings.port}"

    @property
    def _client(self) -> ShopClient:
        return ShopClient(self._settings.host, self._settings.port, self._keys["checkout"])

    def _urls(self) -> str:
        lines = [
            "Serving until Ctrl-C:",
            f"  {self._base}/demo     the shop; /demo/rules: its rules and offers",
            f"  {self._base}/docs     the API",
            f"  {self._base}/metrics  for Prometheus",
            f"  {self._base}/dashboard  key figures, experiments",
            "Keys of this run:",
            *(f"  {role:8}  {api_key}" for role, api_key in self._keys.items()),
        ]
        return "\n".join(lines)
