"""The stores and the rights of shoppers, for commands that run while no gateway does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from contract.clock import Clock
from serving.ingest.accept import Ingest
from serving.ingest.rights import Rights, Stores
from serving.ingest.subjects import Subjects
from serving.monitoring.kpis import FILE as FACTS
from serving.settings import Settings
from serving.state.fact_file import FactFile
from serving.state.receipts import ReceiptSigner
from serving.state.sealing import SubjectKeys
from serving.state.secrets import Secrets
from serving.state.sql_control_store import SqlControlStore
from serving.stores import open_stores


@asynccontextmanager
async def opened_rights(
    settings: Settings, control: SqlControlStore, secrets: Secrets, clock: Clock
) -> AsyncIterator[tuple[Stores, Rights]]:
    """All stores beside `control`; what memory holds is saved at the end. Raises UserError."""
    opened = open_stores(settings, SubjectKeys(control))
    try:
        facts = FactFile(settings.state / FACTS, settings.control_store == "sqlite")
        stores = Stores(control, opened.event_log, opened.features, facts)
        ingest = Ingest(Subjects(control, secrets, clock), opened.event_log, opened.told, clock)
        signer = ReceiptSigner(control.service_key("receipt"))
        yield stores, Rights(stores, ingest, clock, signer, lambda _: {}, lambda *_: ())
        await opened.features.snapshot()
    finally:
        await opened.features.aclose()
        opened.event_log.close()
