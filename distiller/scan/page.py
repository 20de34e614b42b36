"""The day-one report as one HTML page that needs nothing else: its plots are drawn in it."""

from __future__ import annotations

from html import escape
from pathlib import Path

from rich.table import Table

from distiller.pages import framed
from distiller.scan import tables
from distiller.scan.outlook import FLOORS
from distiller.scan.report import Scan, language_model_line, next_steps, policy_text
from router.logs import shown

STYLE = Path(__file__).with_name("page.css")
WIDTH, HEIGHT, LEFT, BOTTOM, ROW = 640, 280, 44, 34, 26
MIDDLE = 1
"""The floor that the bars are of."""
NAME_CHARACTERS = 34


def page(scan: Scan) -> str:
    """The whole page."""
    files = ", ".join(Path(name).name for name in scan.files)
    about = f"{files}: {tables.headline(scan)}"
    parts = [
        f'<header><h1>What the log tells</h1><p class="soft">{_text(about)}</p></header>',
        _card("What heads would have carried", _curve(scan), _table(tables.floors(scan)), _notes(scan)),
        _card("Kinds of requests", _bars(scan), _table(tables.kinds(scan))),
        _card("Money", _table(tables.money(scan))),
        _card("What may be trained on", _table(tables.rights(scan)), f"<p>{_text(language_model_line(scan))}</p>"),
        _card("What to do next", _steps(scan), f"<pre><code>{_text(policy_text(scan))}</code></pre>"),
        _card("What was read", _table(tables.reading(scan))),
    ]
    return framed("What the log tells", STYLE, parts)


def _text(said: str) -> str:
    return escape(shown(said))


def _card(name: str, *parts: str) -> str:
    return f'<section class="card"><h2>{_text(name)}</h2>{"".join(parts)}</section>'


def _notes(scan: Scan) -> str:
    return "".join(f'<p class="soft small">{_text(line)}</p>' for line in tables.notes(scan).split("\n"))


def _steps(scan: Scan) -> str:
    return "<ol>" + "".join(f"<li>{_text(step)}</li>" for step in next_steps(scan)) + "</ol>"


def _table(table: Table) -> str:
    """The terminal's table as HTML's."""
    columns = [list(column.cells) for column in table.columns]
    head = "".join(f"<th>{_text(str(column.header))}</th>" for column in table.columns)
    rows = "".join(
        f"<tr>{''.join(f'<td>{_text(str(cell))}</td>' for cell in row)}</tr>" for row in zip(*columns, strict=True)
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


def _curve(scan: Scan) -> str:
    """Parity of all requests against the share that heads carry, with the certified thresholds marked."""
    curve = scan.outlook.curve
    least = min(0.85, *(parity for _, parity in curve))
    wide, high = WIDTH - LEFT - 12, HEIGHT - BOTTOM - 12

    def at(share: float, parity: float) -> tuple[float, float]:
        return LEFT + wide * share, 12 + high * (1 - (parity - least) / (1 - least))

    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in curve))
    marks = []
    for floor in FLOORS:
        _, y = at(0, floor)
        marks.append(f'<line class="target" x1="{LEFT}" x2="{LEFT + wide}" y1="{y:.1f}" y2="{y:.1f}"/>')
        marks.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{floor:.2f}</text>')
    for carried in scan.outlook.carried:
        if carried.share.estimate:
            x, y = at(carried.share.estimate, 1 - carried.wrong / carried.looked_at)
            about = f"floor {carried.floor:.2f}: {tables.limits(carried.share)}"
            marks.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{_text(about)}</title></circle>')
    for tenth in range(0, 11, 2):
        x, y = at(tenth / 10, least)
        marks.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{tenth * 10}%</text>')
    axis = f'<text x="{LEFT + wide / 2}" y="{HEIGHT - 2}" text-anchor="middle">of all requests carried by heads</text>'
    body = f'{"".join(marks)}<polyline class="curve" points="{line}"/>{axis}'
    return _drawing(body, HEIGHT, "Parity by the share that heads carry; dots are the certified thresholds")


def _bars(scan: Scan) -> str:
    """Each kind's share at the middle floor, with its limits."""
    rows = [(one.kind.name, one.carried[MIDDLE].share) for one in scan.outlook.kinds if one.carried]
    if not rows:
        return ""
    name_wide = 250
    wide = WIDTH - name_wide - 70
    drawn: list[str] = []
    for n, (name, share) in enumerate(rows):
        y, value = 6 + n * ROW, share.estimate or 0.0
        short = name if len(name) <= NAME_CHARACTERS else name[: NAME_CHARACTERS - 2] + " …"
        drawn.append(f'<text x="{name_wide - 8}" y="{y + 14}" text-anchor="end">{_text(short)}</text>')
        drawn.append(f'<rect class="bar" x="{name_wide}" y="{y + 2}" width="{wide * value:.1f}" height="16" rx="3"/>')
        low, high = (name_wide + wide * limit for limit in (share.low, share.high))
        drawn.append(f'<line class="limit" x1="{low:.1f}" x2="{high:.1f}" y1="{y + 10}" y2="{y + 10}"/>')
        drawn.append(f'<text x="{name_wide + wide + 8}" y="{y + 14}">{value:.0%}</text>')
    about = f"Share of each kind that a head would have carried at a floor of {FLOORS[MIDDLE]:.2f}, for it alone"
    return _drawing("".join(drawn), 12 + len(rows) * ROW, about)


def _drawing(body: str, height: int, about: str) -> str:
    box = f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{_text(about)}"'
    return f'<div class="chart"><p class="soft small">{_text(about)}</p><svg {box}>{body}</svg></div>'
