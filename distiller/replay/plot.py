"""The cost-quality frontier as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distiller.replay.plans import Way
from distiller.replay.report import Forecast, Point, Replay

COLOURS = {Way.ROUTING: "#2563eb", Way.CASCADE: "#d97706", Way.BOTH: "#059669"}
GREY, INK = "#6b7280", "#111827"


def plot(replay: Replay, path: Path) -> None:
    """Draws parity against cost for every threshold, intervals as bands."""
    from matplotlib.figure import Figure  # a second to load, and no display needed this way

    figure = Figure(figsize=(9, 5.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for way, points in replay.sweeps.items():
        _line(axes, way, points)
    _marks(axes, replay.policies, "D", INK)
    _marks(axes, [o for o in replay.baselines if o.lasting["parity"].estimate is not None], "o", GREY)
    if replay.confidence is not None:
        axes.axhline(100 * replay.target, color=GREY, lw=0.9, ls=(0, (4, 3)))
        axes.annotate(
            f"target {replay.target:.0%}", (0.995, 100 * replay.target), xycoords=("axes fraction", "data"),
            ha="right", va="bottom", fontsize=8, color=GREY,
        )  # fmt: skip
    axes.set_xlabel("USD per 1,000 requests, audits included")
    axes.set_ylabel("parity, %")
    audits = int(replay.traffic.audited.sum())
    axes.set_title(
        f"{replay.policy.name}: {len(replay.traffic):,} requests, {audits:,} audits; bands hold 95%",
        loc="left", fontsize=11,
    )  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, lw=0.6)
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    figure.savefig(path)


def _line(axes: Any, way: Way, points: Sequence[Point]) -> None:
    known = [p for p in points if p.lasting["parity"].estimate is not None]
    cost = [1000 * (p.lasting["cost"].estimate or 0.0) for p in known]
    low, high = ([100 * getattr(p.lasting["parity"], side) for p in known] for side in ("low", "high"))
    parity = [100 * (p.lasting["parity"].estimate or 0.0) for p in known]
    axes.fill_between(cost, low, high, color=COLOURS[way], alpha=0.13, lw=0)
    axes.plot(cost, parity, color=COLOURS[way], lw=1.8, label=way.value)


def _marks(axes: Any, outlooks: Sequence[Forecast], marker: str, colour: str) -> None:
    for outlook in outlooks:
        parity, cost = outlook.lasting["parity"].estimate, outlook.lasting["cost"].estimate
        if parity is None or cost is None:
            continue
        axes.plot(1000 * cost, 100 * parity, marker, color=colour, ms=6)
        axes.annotate(
            outlook.name, (1000 * cost, 100 * parity), xytext=(6, -11), textcoords="offset points",
            fontsize=8, color=colour,
        )  # fmt: skip
