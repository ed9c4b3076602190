"""What shoppers send: bodies of decide requests, from real baskets or from the gateway itself."""

import json
import random
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from contract.errors import UserError

DECIDE = "/v1/checkout/decide"
_AGREED = {"personalization": True, "analytics": True, "offers": False}
_REFUSED = {"personalization": False, "analytics": False, "offers": False}
_UNKNOWN_SHARE = 0.2  # shoppers without consent, as far as a shop can expect
_MOST_BASKETS = 2_000
_MOST_ITEMS = 200
_WALKS = 40
_MOST_ASKED = 200


def from_baskets(source: Path, after: datetime | None, seed: int) -> list[bytes]:
    """The first halves of baskets in the import `source`, bought from `after` on, or else the
    latest ones; a fifth of them by somebody unknown. Raises UserError."""
    try:
        known = pq.read_table(source / "subjects.parquet", columns=["subject_id", "visitor_id"])
        baskets = _baskets(source / "events", after)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{source}: {' '.join(str(error).split())}") from None
    visitors = dict(
        zip(known["subject_id"].to_pylist(), known["visitor_id"].to_pylist(), strict=True)
    )
    draw = random.Random(seed)
    draw.shuffle(baskets)
    bodies = [
        _body(visitors.get(one["subject_id"]), one, draw.random() < _UNKNOWN_SHARE)
        for one in baskets[:_MOST_BASKETS]
        if len(one["items"]) >= 2
    ]
    if not bodies:
        raise UserError(f"{source} holds no basket to send")
    return bodies


def _baskets(folder: Path, after: datetime | None) -> list[dict[str, Any]]:
    files = [str(path) for path in sorted(folder.glob("*.parquet"))]
    if not files:
        raise UserError(f"{folder} holds no Parquet files")
    wanted = pc.field("event_name") == "purchase"
    if after is not None:
        wanted &= pc.field("occurred_at") >= pa.scalar(after)
    columns = ["subject_id", "session_id", "currency", "occurred_at", "items"]
    table = ds.dataset(files, format="parquet").to_table(columns=columns, filter=wanted)
    latest = table.sort_by([("occurred_at", "descending"), ("session_id", "ascending")])
    rows: list[dict[str, Any]] = latest.slice(0, 10 * _MOST_BASKETS).to_pylist()
    return rows


def _body(visitor_id: str | None, basket: dict[str, Any], unknown: bool) -> bytes:
    cart = basket["items"][: len(basket["items"]) // 2]
    lines = [
        {"item_id": line["item_id"], "quantity": line["quantity"] or 1, "price": line["price"]}
        for line in cart[:100]
    ]
    stranger = visitor_id is None or unknown
    return _encode(
        "somebody-unknown" if stranger else visitor_id,
        basket["session_id"],
        basket["currency"] or "USD",
        lines,
        _REFUSED if stranger else _AGREED,
    )


def from_gateway(url: str, key: str | None, currency: str, seed: int) -> list[bytes]:
    """Carts of items that the gateway itself suggests, found by putting suggestion after suggestion
    into carts. Nobody in it consents, so a real gateway remembers none of it. Raises UserError."""
    draw = random.Random(seed)
    found: dict[str, None] = {}
    headers = _headers(key)
    with httpx.Client(timeout=10.0, trust_env=False) as client:
        for _ in range(_WALKS):
            items = draw.sample(list(found), min(len(found), draw.randint(0, 4)))
            body = stranger(items, currency, 0)
            found.update(dict.fromkeys(_ask(client, url, headers, body)))
            if len(found) >= _MOST_ITEMS:
                break
    ids = list(found)
    carts = [draw.sample(ids, min(len(ids), draw.randint(1, 12))) for _ in range(500)]
    return [stranger(cart, currency, number) for number, cart in enumerate(carts)]


def stranger(items: Sequence[str], currency: str, number: int) -> bytes:
    """A checkout of somebody who consents to nothing."""
    lines = [{"item_id": item_id, "quantity": 1} for item_id in items]
    return _encode(f"load-{number}", f"load-{number}", currency, lines, _REFUSED)


def _ask(client: httpx.Client, url: str, headers: dict[str, str], body: bytes) -> list[str]:
    """The items suggested for `body`. Raises UserError."""
    try:
        answer = _answer(client, url, headers, body)
        return [one["item_id"] for one in answer["recommendations"]]
    except UserError:  # a ValueError too, which says better what is wrong
        raise
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{url} does not answer like a Tillwise gateway") from None


def _answer(client: httpx.Client, url: str, headers: dict[str, str], body: bytes) -> Any:
    """What is answered to `body`; an answer that is none says what to do. Raises UserError, and
    ValueError for what is not JSON."""
    try:
        answer = client.post(url.rstrip("/") + DECIDE, content=body, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UserError(f"no gateway answers at {url}: {error}") from None
    if answer.status_code in (401, 403):
        raise UserError(
            f"the gateway refuses the key (HTTP {answer.status_code}); give --key or TILLWISE_KEY "
            "one made by `tillwise-serve keys create --role checkout`"
        )
    if answer.status_code != 200:
        raise UserError(f"the gateway answers HTTP {answer.status_code}: {answer.text[:200]}")
    return answer.json()


def probe(url: str, key: str | None, body: bytes) -> None:
    """One request, so that what is wrong is said before any load. Raises UserError."""
    with httpx.Client(timeout=10.0, trust_env=False) as client:
        _ask(client, url, _headers(key), body)


def with_offers(url: str, key: str | None, bodies: Sequence[bytes]) -> int:
    """How many of `bodies` are answered with an offer. Raises UserError."""
    with httpx.Client(timeout=10.0, trust_env=False) as client:
        answers = [_answer(client, url, _headers(key), body) for body in bodies]
    return sum(bool(answer.get("offers")) for answer in answers)


def check_items(url: str, key: str | None, bodies: Sequence[bytes]) -> None:
    """Raises UserError unless the gateway knows most of the items in the carts of `bodies`:
    shoppers of another catalogue would only ever be answered with what is popular."""
    carts = [json.loads(body)["cart"] for body in bodies]
    items = list(dict.fromkeys(line["item_id"] for cart in carts for line in cart["items"]))
    asked = json.loads(stranger(items[:_MOST_ASKED], carts[0]["currency"], 0))
    asked["validate_only"] = True
    with httpx.Client(timeout=10.0, trust_env=False) as client:
        try:
            answer = _answer(client, url, _headers(key), json.dumps(asked).encode())
            missing = len(answer.get("missing_item_ids", ()))
        except UserError:
            raise
        except (ValueError, AttributeError, TypeError):
            raise UserError(f"{url} does not answer like a Tillwise gateway") from None
    if missing * 2 > len(asked["cart"]["items"]):
        raise UserError(
            f"the gateway's release does not know {missing} of {len(asked['cart']['items'])} items "
            "in these carts; simulate with the --catalogue of the import that it was trained on"
        )


def _headers(key: str | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return headers


def _encode(
    visitor_id: str | None,
    session_id: str,
    currency: str,
    lines: list[dict[str, Any]],
    consent: dict[str, bool],
) -> bytes:
    body = {
        "visitor_id": visitor_id,
        "session_id": session_id,
        "cart": {"cart_id": session_id, "currency": currency, "items": lines},
        "consent": consent,
        "placements": ["recommendations"],
    }
    return json.dumps(body, separators=(",", ":")).encode()
