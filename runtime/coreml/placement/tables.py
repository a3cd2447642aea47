"""The tables of a forecast, as the command prints them and the page shows them: rows of text by column."""

from __future__ import annotations

from satchel.runtime.coreml.placement.report import FunctionForecast, Sums
from satchel.runtime.coreml.placement.units import ENGINE, UNITS

NAMES_SHOWN = 3
CONFIDENCE = {"H": "high", "M": "medium", "L": "low"}


def setting_rows(function: FunctionForecast) -> list[dict[str, str]]:
    """A row for each compute-units setting: where its ops, weights and arithmetic are, and what crosses."""
    rows = []
    for name, placement in function.placements.items():
        sums = function.sums[name]
        rows.append(
            {
                "compute units": name,
                **{f"ops on {unit}": f"{sums.ops[unit]:,}" for unit in UNITS},
                "arithmetic on engine": percent(sums, "macs"),
                "weights on engine": percent(sums, "weight_bytes"),
                "crossings": str(len(placement.crossings)),
                "values": str(sum(len(c.values) for c in placement.crossings)),
                "bytes": f"{sum(c.nbytes for c in placement.crossings):,}",
            }
        )
    return rows


def percent(sums: Sums, of: str) -> str:
    """The engine's part; "100 %" only where it is all."""
    share = sums.share(of)
    if share is None:
        return "none there"
    return f"{share:.0%}" if share in (0, 1) else f"{min(max(share, 1e-4), 0.9999):.2%}"


def by_type(function: FunctionForecast, setting: str) -> list[dict[str, str]]:
    """A row for each type of op, those that compute most first."""
    units = function.placements[setting].units
    counts: dict[str, dict[str, int]] = {}
    for op, unit in zip(function.ops, units, strict=True):
        row = counts.setdefault(op.type, {"ops": 0, **dict.fromkeys(UNITS, 0), "macs": 0, "bytes": 0})
        row["ops"] += 1
        row[unit] += 1
        row["macs"] += op.macs
        row["bytes"] += op.weight_bytes
    total = sum(row["macs"] for row in counts.values())
    ranked = sorted(counts.items(), key=lambda item: (-item[1]["macs"], -item[1]["ops"], item[0]))
    return [
        {
            "op": op_type,
            "ops": f"{row['ops']:,}",
            **{unit: f"{row[unit]:,}" if row[unit] else "" for unit in UNITS},
            "multiply-accumulates": f"{row['macs']:,}" if row["macs"] else "",
            "of all": f"{row['macs'] / total:.1%}" if row["macs"] else "",
            "bytes of weights": f"{row['bytes']:,}" if row["bytes"] else "",
        }
        for op_type, row in ranked
    ]


def departures(function: FunctionForecast, setting: str) -> list[dict[str, str]]:
    """A row for each rule, unit and type of op that is not on the engine because of a rule."""
    placement = function.placements[setting]
    groups: dict[tuple[str, str, str], list[int]] = {}
    for i, (op, unit) in enumerate(zip(function.ops, placement.units, strict=True)):
        if unit != ENGINE and placement.reasons(i):
            groups.setdefault((placement.reasons(i)[0].rule.id, unit, op.type), []).append(i)
    rows = []
    for (identifier, unit, op_type), ops in groups.items():
        reason = placement.reasons(ops[0])[0]
        distinct = dict.fromkeys(placement.reasons(i)[0].what for i in ops)
        rows.append(
            {
                "rule": identifier,
                "unit": unit,
                "ops": f"{len(ops):,}",
                "op": op_type,
                "names": _few([function.ops[i].name for i in ops]),
                "found": _few(list(distinct)),
                "confidence": CONFIDENCE[reason.rule.confidence],
                "why": f"{reason.rule.statement} {reason.rule.why}",
                "what to do": reason.rule.advice,
            }
        )
    return rows


def _few(texts: list[str]) -> str:
    more = f" and {len(texts) - NAMES_SHOWN} more" if len(texts) > NAMES_SHOWN else ""
    return ", ".join(texts[:NAMES_SHOWN]) + more


def crossing_rows(function: FunctionForecast, setting: str) -> list[dict[str, str]]:
    """A row for each crossing, those of most bytes first."""
    placement = function.placements[setting]
    return [
        {
            "from": f"{placement.runs[c.source].unit}, run {c.source}",
            "to": f"{placement.runs[c.reader].unit}, run {c.reader}",
            "values": f"{len(c.values):,}",
            "bytes": f"{c.nbytes:,}",
            "names": _few(list(c.values)),
        }
        for c in sorted(placement.crossings, key=lambda c: -c.nbytes)
    ]
