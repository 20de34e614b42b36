"""The evaluation page's charts, as inline SVG: intervals by slice, reliability, and curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

COLOURS = ("var(--both)", "var(--routing)", "var(--cascade)", "#a855f7", "#db2777", "#0891b2", "var(--soft)")
ROW, NAME, WIDTH, RIGHT = 24, 210, 1000, 190


class IntervalLine(NamedTuple):
    """One row of intervals: ``limits`` are [estimate, low, high] as shares; ``note`` stands at its end."""

    name: str
    limits: Sequence[float | None]
    note: str = ""
    bad: bool = False


def intervals(lines: Sequence[IntervalLine], low: float, high: float, mark: float | None = None) -> str:
    """A row for each, its interval on one scale from ``low`` to ``high``; a line at ``mark``."""
    height = ROW * len(lines) + 34
    left, right = NAME + 10, WIDTH - RIGHT
    at = _scale(low, high, left, right)
    parts = []
    for tick in ticks(low, high, 5):
        parts.append(_line(at(tick), 4, at(tick), height - 30, "grid-line"))
        parts.append(_text(at(tick), height - 12, percent(tick, 0), "middle"))
    if mark is not None:
        parts.append(_line(at(mark), 4, at(mark), height - 30, "target"))
    for i, line in enumerate(lines):
        parts += _interval_row(line, 18 + ROW * i, at, right)
    return _svg(WIDTH, height, parts, "Intervals by slice")


def _interval_row(line: IntervalLine, y: float, at: Any, right: float) -> list[str]:
    estimate, low, high = line.limits
    parts = [_text(NAME, y + 4, line.name, "end", "label" if line.name == "overall" else "")]
    if estimate is not None:
        colour = "var(--bad)" if line.bad else "var(--now)"
        ends = [at(x) for x in (low if low is not None else estimate, high if high is not None else estimate)]
        parts.append(
            f'<line x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="5" '
            'stroke-linecap="round" opacity=".35"/>'
        )
        parts.append(f'<circle cx="{at(estimate):.1f}" cy="{y}" r="4.5" fill="{colour}"/>')
    parts.append(_text(right + 12, y + 4, line.note, "start"))
    return parts


def reliability(bins: Sequence[Mapping[str, float]]) -> str:
    """What came true beside what was said, a point for each bin with its limits; the diagonal is perfect."""
    box = _Box(0.0, 1.0, 0.0, 1.0, width=300, height=300, left=46)
    parts = [*box.axes("said", 2), _line(box.x(0), box.y(0), box.x(1), box.y(1), "target")]
    for b in bins:
        x, y = box.x(b["probability"]), box.y(b["rate"])
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{box.y(b["low"]):.1f}" y2="{box.y(b["high"]):.1f}" '
            'stroke="var(--now)" stroke-width="2" opacity=".45"/>'
        )
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="var(--now)"/>')
    return _svg(box.width, box.height, parts, "Reliability")


def curves(series: Mapping[str, Sequence[Sequence[float]]], across: str) -> str:
    """A line for each series of (x, y), both shares, x from 0 to 1."""
    lowest = min((y for points in series.values() for _, y in points), default=0.0)
    box = _Box(0.0, 1.0, max(0.0, math.floor(lowest * 20 - 1) / 20), 1.0, width=620, height=330, left=46)
    parts = box.axes(across, 5)
    for colour, points in reversed(list(zip(COLOURS, series.values(), strict=False))):
        path = "L".join(f"{box.x(x):.1f},{box.y(y):.1f}" for x, y in points)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>')
    return _svg(box.width, box.height, parts, "Share acceptable by share kept")


class _Box:
    """Axes of shares over the drawing's inner part."""

    def __init__(
        self, x_low: float, x_high: float, y_low: float, y_high: float, *, width: int, height: int, left: int
    ) -> None:
        self.width, self.height, self._left, self._bottom, self._right = width, height, left, height - 46, width - 14
        self._xs, self._ys = (x_low, x_high), (y_low, y_high)
        self.x = _scale(x_low, x_high, left, self._right)
        self.y = _scale(y_low, y_high, self._bottom, 12)

    def axes(self, across: str, count: int) -> list[str]:
        parts = []
        for tick in ticks(*self._ys, 5):
            parts.append(_line(self._left, self.y(tick), self._right, self.y(tick), "grid-line"))
            parts.append(_text(self._left - 8, self.y(tick) + 4, percent(tick, 0), "end"))
        for tick in ticks(*self._xs, count):
            parts.append(_text(self.x(tick), self._bottom + 18, percent(tick, 0), "middle"))
        middle = (self._left + self._right) / 2
        return [*parts, _text(middle, self._bottom + 38, across, "middle")]


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers from ``low`` to ``high``, about ``count`` of them."""
    raw = (high - low) / count or 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def percent(value: float | None, decimals: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{decimals}f}%".replace("-", "−")


def _scale(low: float, high: float, start: float, end: float) -> Any:
    def at(value: float) -> float:
        return start + (end - start) * (min(max(value, low), high) - low) / ((high - low) or 1.0)

    return at


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, words: str, anchor: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _svg(width: int, height: int, parts: Sequence[str], name: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(name)}">{"".join(parts)}</svg>'
