"""What the environment says, and what it may have meant to say."""

import pytest

from serving.__main__ import main
from serving.settings import Settings, mistaken


def test_a_misspelt_setting_is_told_with_what_may_be_meant() -> None:
    assert mistaken({"TILLWISE_GUARD_WINDOW_S": "60", "PATH": "/bin"}) == [
        "TILLWISE_GUARD_WINDOW_S is no setting; did you mean TILLWISE_GUARD_WINDOW_SECONDS?"
    ]
    (said,) = mistaken({"TILLWISE_NONSENSE": "1"})
    assert said.startswith("TILLWISE_NONSENSE is no setting; ")


def test_every_setting_is_one() -> None:
    assert mistaken({f"TILLWISE_{name.upper()}": "" for name in Settings.model_fields}) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TILLWISE_GATEWAY_SERVICE_HOST", "10.0.0.7"),
        ("TILLWISE_GATEWAY_SERVICE_PORT_HTTP", "80"),
        ("TILLWISE_GATEWAY_PORT", "tcp://10.0.0.7:80"),
        ("TILLWISE_GATEWAY_PORT_80_TCP_ADDR", "10.0.0.7"),
    ],
)
def test_what_kubernetes_says_of_our_services_is_no_mistake(name: str, value: str) -> None:
    assert mistaken({name: value}) == []


def test_the_settings_are_listed_and_no_value_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TILLWISE_VALKEY_PASSWORD", "open-sesame")
    monkeypatch.setenv("TILLWISE_NONSENSE", "1")
    assert main(["settings"]) == 0
    said = capsys.readouterr().out
    assert "open-sesame" not in said
    assert "* TILLWISE_VALKEY_PASSWORD\n" in said
    assert "  TILLWISE_PORT (default: 8080)\n" in said
    assert "! TILLWISE_NONSENSE is no setting" in said
    assert all(f" TILLWISE_{name.upper()}" in said for name in Settings.model_fields)
