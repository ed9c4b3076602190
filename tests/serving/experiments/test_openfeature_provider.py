"""Through OpenFeature's own client: the variants of the gateway, and its own kinds of error."""

from collections.abc import Iterator
from typing import Any

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import Reason

from contract.experiments import personalised_against_generic
from serving.experiments.openfeature_provider import TillwiseProvider
from tests.serving.conftest import ALL, NOON, Running

KEY = "personalised-against-generic"
FIRST = personalised_against_generic().model_dump(mode="json") | {"status": "running"}


def of(visitor: str, **attributes: Any) -> EvaluationContext:
    return EvaluationContext(visitor, attributes)


@pytest.fixture
def client() -> Iterator[OpenFeatureClient]:
    api.set_provider(TillwiseProvider([FIRST], lambda: NOON), "shop")
    yield api.get_client("shop")
    api.clear_providers()


async def test_it_says_what_the_gateway_says(running: Running, client: OpenFeatureClient) -> None:
    path = f"/v1/experiments/{KEY}"
    written = {"experiment": {k: v for k, v in FIRST.items() if v is not None}}
    await running.client.put(path, json=written, headers=running.bearer("admin"))
    listed = await running.client.get("/v1/experiments", headers=running.bearer("admin"))
    api.set_provider(TillwiseProvider(listed.json()["experiments"], lambda: NOON), "shop")
    for n in range(8):
        answer = (await running.decide(visitor_id=f"visitor-{n}", consent=ALL)).json()
        told = client.get_string_details(KEY, "none", of(f"visitor-{n}"))
        assert [told.variant] == [one["variant"] for one in answer["experiments"]]
        assert told.reason == Reason.SPLIT
        left = client.get_boolean_value(f"{KEY}.personalization", True, of(f"visitor-{n}"))
        assert left is (told.value == "personalised")


def test_who_is_not_in_it_gets_the_default(client: OpenFeatureClient) -> None:
    told = client.get_string_details(KEY, "none", of("visitor-1", personalization=False))
    assert (told.value, told.reason, told.variant) == ("none", Reason.DEFAULT, None)


def test_what_can_not_be_answered(client: OpenFeatureClient) -> None:
    someone = of("visitor-1")
    assert client.get_string_details("nope", "d", someone).error_code == ErrorCode.FLAG_NOT_FOUND
    nobody = client.get_string_details(KEY, "d", EvaluationContext())
    assert nobody.error_code == ErrorCode.TARGETING_KEY_MISSING
    assert client.get_integer_details(KEY, 1, someone).error_code == ErrorCode.TYPE_MISMATCH
    assert client.get_boolean_details(KEY, True, someone).error_code == ErrorCode.TYPE_MISMATCH
    with pytest.raises(ValueError, match="variants"):
        TillwiseProvider([{"key": "a", "title": "A"}])
