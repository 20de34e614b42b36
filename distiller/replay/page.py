"""The replay as one HTML page that needs nothing else: a slider for the threshold, and what each one gives."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distiller.pages import styled
from distiller.replay.report import Forecast, Point, Replay
from distiller.replay.tables import threshold_text
from router.scoring.statistics.estimates import FIGURES, Interval

TEMPLATE = Path(__file__).with_name("page.html")
HOLE = "/*DATA*/ null"


def page(replay: Replay) -> str:
    """The whole page. The data stands in it as JSON, with no ``<`` in it that a browser could take for a tag."""
    data = json.dumps(_data(replay), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return styled(TEMPLATE.read_text(encoding="utf-8")).replace(HOLE, data)


def _data(replay: Replay) -> dict[str, Any]:
    traffic, best = replay.traffic, replay.cheapest
    return {
        "policy": replay.policy.name,
        "requests": len(traffic),
        "audits": int(traffic.audited.sum()),
        "pairs": traffic.pairs,
        "days": round(traffic.days, 2),
        "bundle": traffic.bundle or "base",
        "ratio": round(traffic.output_ratio, 3),
        "ahead": replay.ahead,
        "target": replay.target,
        "confidence": replay.confidence,
        "policies": [_outlook(o) for o in replay.policies],
        "baselines": [_outlook(o) for o in replay.baselines],
        "sweeps": {way.value: [_point(p) for p in points] for way, points in replay.sweeps.items()},
        "choices": [
            {
                "way": c.way.value,
                "threshold": None if c.plan is None else _threshold(c.plan.route, c.plan.accept),
                "figures": _figures(c.figures),
                "cheapest": c is best,
            }
            for c in replay.choices
        ],
    }


def _outlook(outlook: Forecast) -> dict[str, Any]:
    plan = outlook.plan
    return {
        "name": outlook.name,
        "plan": threshold_text(plan),
        "route": None if plan is None else plan.route,
        "accept": None if plan is None else plan.accept,
        "lasting": _figures(outlook.lasting),
        "coming": _figures(outlook.coming),
    }


def _point(point: Point) -> dict[str, Any]:
    return {"t": point.threshold, "lasting": _figures(point.lasting), "coming": _figures(point.coming)}


def _threshold(route: float, accept: float | None) -> float:
    return route if accept is None else accept


def _figures(found: Mapping[str, Interval]) -> list[list[float | None]]:
    """In the order of ``FIGURES``: [estimate, low, high], five significant digits; None for what is unbounded."""
    return [[_short(x) for x in (found[n].estimate, found[n].low, found[n].high)] for n in FIGURES]


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")
