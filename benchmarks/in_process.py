"""A gateway in this process that knows the history of an import, for what HTTP would hide."""

import argparse
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.decide import seeded
from contract.clock import FixedClock
from contract.manifest import ReleaseManifest
from serving.api.gateway import Gateway
from serving.closing import close_gateway
from serving.opening import open_gateway
from serving.settings import load_settings


@asynccontextmanager
async def gateway_of(args: argparse.Namespace, manifest: ReleaseManifest) -> AsyncIterator[Gateway]:
    """It stands at the moment that the release was trained until. `args` names the folders `data`,
    `releases` and `models`. Raises UserError."""
    with tempfile.TemporaryDirectory(prefix="tillwise-") as folder:
        state = Path(folder)
        seeded(args, state, manifest)
        settings = load_settings(state=state, releases=args.releases, models=args.models)
        gateway = await open_gateway(settings, FixedClock(manifest.trained_until))
        try:
            yield gateway
        finally:
            await close_gateway(gateway)
