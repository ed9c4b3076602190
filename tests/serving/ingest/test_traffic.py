"""Whose traffic is kept out."""

from ipaddress import ip_network

import pytest

from serving.ingest.traffic import Traffic

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/141.0.0.0 Safari/537.36"
)


@pytest.mark.parametrize(
    ("user_agent", "found"),
    [
        (CHROME, None),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Mobile/15E148 Safari/604.1", None),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", None),
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "bot"),
        (CHROME.replace("Chrome/", "HeadlessChrome/"), "bot"),
        ("curl/8.5.0", "bot"),
        ("", "bot"),
        ("Mozilla/5.0 bingbot" + "x" * 100_000, "bot"),
    ],
)
def test_crawlers(user_agent: str, found: str | None) -> None:
    assert Traffic().foreign(user_agent, "203.0.113.9") == found


def test_the_shops_own_networks() -> None:
    traffic = Traffic([ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")])
    assert traffic.foreign(CHROME, "10.1.2.3") == "internal"
    assert traffic.foreign(CHROME, "2001:db8::7") == "internal"
    assert traffic.foreign(CHROME, "203.0.113.9") is None
    assert traffic.foreign(CHROME, None) is None
    assert traffic.foreign(CHROME, "unix-socket") is None
