"""The break-even curve as a picture."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from distiller.economics.report import Economics

TEACHER, NOW, NEXT, GREY = "#6b7280", "#2563eb", "#059669", "#9aa1ad"


def plot(found: Economics, path: Path) -> Path | None:
    """Draws what a month costs against requests a day, teacher alone and with the student; None without matplotlib."""
    if find_spec("matplotlib") is None:
        return None
    from matplotlib.figure import Figure  # noqa: PLC0415  (a second to load, and no display needed this way)

    volumes, alone, now, after = zip(*found.curve(), strict=True)
    figure = Figure(figsize=(9, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.loglog(volumes, alone, color=TEACHER, lw=1.8, label="teacher alone")
    axes.loglog(volumes, now, color=NOW, lw=1.8, label=f"student serves {found.share:.0%}")
    if found.next is not None and found.gain.mean > 0:
        share = min(1.0, found.share + found.gain.mean)
        axes.loglog(volumes, after, color=NEXT, lw=1.8, ls=(0, (5, 2)), label=f"after the next round: {share:.0%}")
    axes.axvline(found.requests_per_day, color=GREY, lw=0.9, ls=(0, (2, 3)))
    axes.annotate("now", (found.requests_per_day, 0.01), xycoords=("data", "axes fraction"), fontsize=8, color=GREY)
    if found.student_pays_from:
        axes.axvline(found.student_pays_from, color=NOW, lw=0.9, ls=(0, (4, 3)))
        axes.annotate(
            f" pays from {found.student_pays_from:,.0f}", (found.student_pays_from, 0.95),
            xycoords=("data", "axes fraction"), fontsize=8, color=NOW,
        )  # fmt: skip
    axes.set_xlabel("requests a day")
    axes.set_ylabel("USD a month, rounds included")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, lw=0.6)
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    figure.savefig(path)
    return path
