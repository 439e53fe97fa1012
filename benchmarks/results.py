"""Measurements as values, and the table of them. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

OURS = "ours"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One measurement.

    Attributes:
        value: In the row's unit.
        flaw: Why it does not count; "" where it does.
        disk_bytes: What its image takes beside the base; None where it was not looked at.
        steps: When each step began, in seconds, where that is known.
        load: The machine's load average at its end.
    """

    value: float
    flaw: str = ""
    disk_bytes: int | None = None
    steps: dict[str, float] = field(default_factory=dict)
    load: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a row is to reach.

    Attributes:
        against: The contestant to which ours is compared; "" for ours alone.
        at_most: The largest ratio, value of ours, or difference.
        of: "ratio", "value", "difference", or "disk ratio".
        contestant: Which of ours is meant.
        store: Only on this store; "" for each.
    """

    against: str
    at_most: float
    of: str = "ratio"
    store: str = ""
    contestant: str = OURS


@dataclass(kw_only=True)
class Row:
    """One workload on one engine.

    Attributes:
        key: As `B2`.
        title: What is asked for.
        state: What was cold and what warm.
        engine: Version and store.
        unit: Of the values.
        samples: By contestant, in the order of the table.
        not_run: Why a contestant, or the row (""), was not measured.
        remarks: What else was seen.
    """

    key: str
    title: str
    state: str
    engine: str = ""
    store: str = ""
    unit: str = "s"
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    targets: tuple[Target, ...] = ()
    not_run: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def add(self, contestant: str, sample: Sample) -> None:
        """One more measurement of a contestant."""
        self.samples.setdefault(contestant, []).append(sample)

    def values(self, contestant: str) -> list[float]:
        """Those that count."""
        return [sample.value for sample in self.samples.get(contestant, ()) if not sample.flaw]

    def flaws(self, contestant: str) -> list[str]:
        """Of those that do not."""
        return [sample.flaw for sample in self.samples.get(contestant, ()) if sample.flaw]

    def median(self, contestant: str) -> float | None:
        """None where nothing counts: a contestant of which one measurement is invalid has no result."""
        values = self.values(contestant)
        return statistics.median(values) if values and not self.flaws(contestant) else None

    def disk_bytes(self, contestant: str) -> int | None:
        """What a contestant's image takes: the median."""
        sizes = [each.disk_bytes for each in self.samples.get(contestant, ()) if each.disk_bytes is not None]
        return int(statistics.median(sizes)) if sizes else None

    def reached(self, target: Target) -> tuple[float, bool] | None:
        """What was measured for a target, and whether it is met; None where something is missing."""
        ours, theirs = self.median(target.contestant), self.median(target.against)
        if target.of == "value":
            found = ours
        elif target.of == "difference":
            found = None if ours is None or theirs is None else ours - theirs
        elif target.of == "disk ratio":
            found = _ratio(self.disk_bytes(target.contestant), self.disk_bytes(target.against))
        else:
            found = _ratio(ours, theirs)
        return None if found is None else (found, found <= target.at_most)


@dataclass(kw_only=True)
class Run:
    """All rows of one run, and where it ran.

    Attributes:
        machine: Processors, memory, kernel and so on, as text by name.
        load_before, load_after: The machine's load averages of one minute.
    """

    machine: dict[str, str]
    load_before: float
    load_after: float = 0.0
    rows: list[Row] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Everything that was measured."""
        return {
            "machine": self.machine,
            "load": {"before": self.load_before, "after": self.load_after},
            "rows": [
                {
                    **asdict(row),
                    "medians": {name: row.median(name) for name in row.samples},
                    "reached": [
                        {**asdict(target), "found": found[0] if found else None, "met": found[1] if found else None}
                        for target in row.targets
                        for found in [row.reached(target)]
                    ],
                }
                for row in self.rows
            ],
        }


def markdown(run: Run) -> str:
    """The tables of a run."""
    machine = "; ".join(f"{name} {value}" for name, value in run.machine.items())
    lines = [
        f"{machine}. Load average {run.load_before:.1f} before and {run.load_after:.1f} after.",
        "",
        *_measurements(run.rows),
        "",
        "Targets, ours to the contestant:",
        "",
        *_targets(run.rows),
        "",
        *_remarks(run.rows),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _measurements(rows: Sequence[Row]) -> list[str]:
    head = ("row", "engine", "contestant", "median", "min to max", "n", "ours to it", "disk", "load")
    lines = [_line(head), _line(["---"] * len(head))]
    for row in rows:
        for name, samples in row.samples.items():
            median = row.median(name)
            values = row.values(name)
            ours = row.median(OURS)
            ratio = _ratio(ours, median) if name != OURS else None
            disk = row.disk_bytes(name)
            cells = [
                row.key,
                row.engine,
                name,
                "invalid" if median is None else _value(median, row.unit),
                f"{_value(min(values), '')} to {_value(max(values), '')}" if values else "",
                str(len(samples)),
                "" if ratio is None else f"{ratio:.2f}",
                "" if disk is None else f"{disk / 10**6:.0f} MB",
                f"{statistics.median(sample.load for sample in samples):.1f}",
            ]
            lines.append(_line(cells))
        for name, why in row.not_run.items():
            lines.append(_line([row.key, row.engine, name or "all", f"not run: {why}", "", "", "", "", ""]))
    return lines


def _targets(rows: Sequence[Row]) -> list[str]:
    lines = [_line(("row", "engine", "against", "at most", "found", "met")), _line(["---"] * 6)]
    for row in rows:
        for target in row.targets:
            if target.store and target.store != row.store:
                continue
            found = row.reached(target)
            unit = row.unit if target.of in ("value", "difference") else ""
            kind = "" if target.of in ("ratio", "value") else f" ({target.of.removesuffix(' ratio')})"
            what = target.against or "itself"
            if target.contestant != OURS:
                what = f"{target.contestant} to {what}"
            lines.append(
                _line(
                    [
                        row.key,
                        row.engine,
                        what + kind,
                        _value(target.at_most, unit),
                        "not measured" if found is None else _value(found[0], unit),
                        "" if found is None else "yes" if found[1] else "**no**",
                    ]
                )
            )
    return lines


def _remarks(rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in rows:
        lines.append(f"- **{row.key}**: {row.title}. {row.state}")
        lines += [f"  - {remark}" for remark in row.remarks]
        for name in row.samples:
            lines += [f"  - {name} is invalid: {flaw}" for flaw in dict.fromkeys(row.flaws(name))]
    return lines


def _ratio(one: float | None, other: float | None) -> float | None:
    return None if one is None or not other else one / other


def _value(value: float, unit: str) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}{' ' + unit if unit else ''}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
