"""The economics as a picture, and as one HTML page that needs nothing else: the picture stands in it."""

from __future__ import annotations

import base64
from html import escape
from importlib.util import find_spec
from pathlib import Path

from distiller.economics.report import Economics
from distiller.economics.tables import Rows, sections
from distiller.pages import framed

TEACHER, NOW, NEXT, GREY = "#6b7280", "#2563eb", "#059669", "#9aa1ad"
STYLE = Path(__file__).with_name("page.css")


def plot(found: Economics, path: Path) -> Path | None:
    """Draws what a month costs against requests a day, teacher alone and with the student; None without matplotlib."""
    if find_spec("matplotlib") is None:
        return None
    from matplotlib.figure import Figure  # a second to load, and no display needed this way

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


def page(policy: str, found: Economics, picture: Path | None) -> str:
    """The whole page; without a ``picture`` (a PNG) it has the tables alone."""
    parts = [f"<header><h1>What {escape(policy)} costs and saves</h1></header>"]
    if picture is not None:
        data = base64.b64encode(picture.read_bytes()).decode()
        image = f'<img alt="USD a month by requests a day" src="data:image/png;base64,{data}">'
        parts.append(f'<section class="card">{image}</section>')
    parts += [_section(name, rows) for name, rows in sections(found).items()]
    return framed("Locum economics", STYLE, parts)


def _section(name: str, rows: Rows) -> str:
    cells = "".join(f"<tr><td>{escape(what)}</td><td>{escape(much)}</td></tr>" for what, much in rows)
    return f'<section class="card"><h2>{escape(name)}</h2><table>{cells}</table></section>'
