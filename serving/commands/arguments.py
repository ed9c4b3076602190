"""Arguments that several commands take, and the settings they lead to."""

import argparse
from datetime import UTC, datetime
from pathlib import Path

from contract.errors import UserError
from serving.settings import Settings, load_settings

_DAY_S = 86_400.0


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json [PATH]`, which every command takes."""
    parser.add_argument(
        "--json",
        type=Path,
        metavar="PATH",
        nargs="?",
        const=Path("-"),
        help="write the figures as JSON to PATH, or to standard output without one",
    )


def add_folders(parser: argparse.ArgumentParser, *names: str) -> None:
    """`--releases`, `--models` or `--state`, each with its environment variable behind it."""
    for name in names:
        described = Settings.model_fields[name].description
        parser.add_argument(f"--{name}", type=Path, metavar="DIR", help=described)


def add_release(parser: argparse.ArgumentParser) -> None:
    """`--release ID`."""
    parser.add_argument("--release", metavar="ID", help="the release (default: the live one)")


def require_interval(flag: str, seconds: float, most_days: int = 1) -> None:
    """Refuse what is no time to wait between two rounds of a command: UserError that names `flag`.
    NaN is none either."""
    if not 0 < seconds <= most_days * _DAY_S:
        most = "a day" if most_days == 1 else f"{most_days} days"
        raise UserError(f"{flag}: must be more than 0 seconds, at most {most}")


def settings_of(args: argparse.Namespace) -> Settings:
    """The environment's settings under the flags given. Raises UserError."""
    names = ("host", "port", "releases", "models", "state", "worker")
    return load_settings(**{name: getattr(args, name, None) for name in names})


def moment(text: str) -> datetime:
    """A date or time in ISO 8601 as UTC; without a zone it is taken as UTC. Raises UserError."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(
            f"{text!r} is not a time; write 2017-11-20 or 2017-11-20T08:00:00Z"
        ) from None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
