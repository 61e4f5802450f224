"""What outcomes have taught: as scripts read it, with rates as numbers, and as a person does."""

from typing import Any

from client.json_form import Json, short_name, to_json
from client.render.layout import fields, table, when
from gonogo.v1 import orchestrator_pb2

PARTS = 10_000
"""The contract's rates are in hundredths of a percent; the Brier score and the calibration error have as many parts."""
WEIGHTS = 100

Signals = orchestrator_pb2.GetSignalsResponse


def signals_json(found: Signals) -> Json:
    """Return signals as scripts read them.

    Every rate is a number from 0 to 1 with four digits behind the point, as many as the orchestrator gives; where there
    were too few outcomes the rate and its interval are null. `weight` has two digits.
    """
    return {
        "rates": [_rate_json(rate) for rate in found.rates],
        "calibration": _calibration_json(found.calibration),
        "failures": [to_json(failure) for failure in found.failures],
        "stages": [to_json(stage) for stage in found.stages],
    }


def signals_text(found: Signals) -> str:
    """Return signals as a person reads them; nothing at all where there is nothing."""
    parts = [
        ("how often it worked", _rates(found)),
        ("stated against realised", _calibration(found.calibration)),
        ("what went wrong, the most frequent first", _failures(found)),
        ("the slowest stages", _stages(found)),
    ]
    return "\n\n".join(f"{title}\n{text}" for title, text in parts if text)


def part(value: int) -> float:
    """Return a number of ten-thousandths as a number from 0 to 1."""
    return round(value / PARTS, 4)


def _rate_json(rate: orchestrator_pb2.SignalRate) -> Json:
    known: dict[str, Any] = {
        name: None if rate.insufficient else part(getattr(rate, name)) for name in ("success_rate", "low", "high")
    }
    return {**to_json(rate), **known, "weight": round(rate.weight / WEIGHTS, 2)}


def _calibration_json(one: orchestrator_pb2.Calibration) -> Json:
    said = {name: part(getattr(one, name)) if one.samples else None for name in SCORES}
    bins = [
        {name: part(getattr(found, name)) for name in ("low", "high", "stated", "realised")}
        | {"samples": found.samples}
        for found in one.bins
    ]
    return {"samples": one.samples, **said, "bins": bins}


SCORES = ("brier", "brier_of_mean", "calibration_error")


def _rates(found: Signals) -> str:
    rows = [
        (
            rate.kind,
            rate.tool or "-",
            rate.workspace_id,
            "insufficient data" if rate.insufficient else f"{_percent(rate.success_rate)}",
            "-" if rate.insufficient else f"{_percent(rate.low)} to {_percent(rate.high)}",
            str(rate.samples),
            str(rate.drifts),
            str(rate.divergences),
            str(rate.rollbacks),
            f"{rate.rated_good}/{rate.rated_bad}",
            f"{rate.median_duration_ms} ms",
            f"{rate.p95_duration_ms} ms",
        )
        for rate in found.rates
    ]
    headers = (
        "kind",
        "tool",
        "workspace",
        "success",
        "95 %",
        "n",
        "drifts",
        "diverged",
        "undone",
        "good/bad",
        "median",
        "p95",
    )
    return table(headers, rows) if rows else ""


def _calibration(one: orchestrator_pb2.Calibration) -> str:
    if not one.samples:
        return ""
    head = fields(
        [
            ("missions", str(one.samples)),
            ("Brier score", f"{part(one.brier):.4f} (always stating the mean: {part(one.brier_of_mean):.4f})"),
            ("calibration error", f"{part(one.calibration_error):.4f}"),
        ]
    )
    rows = [
        (
            f"{_percent(found.low)} to {_percent(found.high)}",
            str(found.samples),
            _percent(found.stated),
            _percent(found.realised),
        )
        for found in one.bins
        if found.samples
    ]
    return f"{head}\n{table(('stated', 'n', 'mean', 'came true'), rows)}" if rows else head


def _failures(found: Signals) -> str:
    rows = [
        (str(one.count), one.kind, one.reason, one.path or "-", when(one.last_time), one.last_mission_id, one.message)
        for one in found.failures
    ]
    return table(("n", "kind", "reason", "path", "last", "mission", "then"), rows) if rows else ""


def _stages(found: Signals) -> str:
    rows = [
        (short_name(one, "stage"), str(one.samples), f"{one.median_ms} ms", f"{one.p95_ms} ms") for one in found.stages
    ]
    return table(("stage", "n", "median", "p95"), rows) if rows else ""


def _percent(hundredths: int) -> str:
    return f"{hundredths / 100:.1f} %"
