"""The one shape in which every command reports figures: a table for people, JSON for machines."""

import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Metrics = Mapping[str, Sequence[float]]


@dataclass
class Figures:
    """Figures of one command.

    A row's metrics map a name to one value per seed or run. Quality metrics are fractions 0..1,
    latencies end in `_ms`, rates are `per_second`, memory is in MiB.
    """

    command: str
    machine: Mapping[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(
        self,
        name: str,
        metrics: Metrics,
        *,
        seconds: float | None = None,
        peak_mib: float | None = None,
    ) -> None:
        """Append the row `name`."""
        self.rows.append(
            {
                "name": name,
                "metrics": {metric: _summary(values) for metric, values in metrics.items()},
                "seconds": None if seconds is None else round(seconds, 3),
                "peak_mib": None if peak_mib is None else round(peak_mib, 1),
            }
        )

    def as_json(self) -> dict[str, Any]:
        """What is written to `--json PATH`."""
        return {
            "command": self.command,
            "machine": {**describe_machine(), **self.machine},
            "rows": self.rows,
            "notes": self.notes,
        }

    def table(self) -> str:
        """Aligned text: a row a name, a column a metric, `mean +- std` where there are several."""
        metrics = list(dict.fromkeys(name for row in self.rows for name in row["metrics"]))
        header = ["", *metrics, "seconds", "peak MiB"]
        body = [
            [
                row["name"],
                *(_cell(row["metrics"].get(metric)) for metric in metrics),
                "" if row["seconds"] is None else f"{row['seconds']:.1f}",
                "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}",
            ]
            for row in self.rows
        ]
        columns = [c for c in range(len(header)) if c == 0 or any(line[c] for line in body)]
        widths = [max(len(line[c]) for line in [header, *body]) for c in columns]
        lines = [
            "  ".join(
                line[c].ljust(width) if c == 0 else line[c].rjust(width)
                for c, width in zip(columns, widths, strict=True)
            ).rstrip()
            for line in [header, *body]
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def describe_machine() -> dict[str, Any]:
    """The machine's make, without its name or any path."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }


def _summary(values: Sequence[float]) -> dict[str, Any]:
    kept = [float(value) for value in values]
    return {
        "mean": statistics.fmean(kept),
        "std": statistics.stdev(kept) if len(kept) > 1 else 0.0,
        "values": kept,
    }


def _cell(summary: Mapping[str, Any] | None) -> str:
    if summary is None:
        return ""
    mean, spread = summary["mean"], summary["std"]
    if len(summary["values"]) == 1 and float(mean).is_integer() and abs(mean) >= 2:
        return f"{mean:,.0f}"
    style = ".1e" if 0 < abs(mean) < 1e-3 else ".4f" if abs(mean) < 10 else ".1f"
    return f"{mean:{style}}" + (f" +-{spread:{style}}" if len(summary["values"]) > 1 else "")
