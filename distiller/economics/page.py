"""The economics as one HTML page that needs nothing else: the picture stands in it."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

from distiller.economics.report import Economics
from distiller.economics.tables import Rows, sections
from distiller.pages import styled

TEMPLATE = Path(__file__).with_name("page.html")
HOLE = "<!--BODY-->"


def page(policy: str, found: Economics, picture: Path | None) -> str:
    """The whole page; without a ``picture`` (a PNG) it has the tables alone."""
    parts = [f"<header><h1>What {escape(policy)} costs and saves</h1></header>"]
    if picture is not None:
        data = base64.b64encode(picture.read_bytes()).decode()
        image = f'<img alt="USD a month by requests a day" src="data:image/png;base64,{data}">'
        parts.append(f'<section class="card">{image}</section>')
    parts += [_section(name, rows) for name, rows in sections(found).items()]
    return styled(TEMPLATE.read_text(encoding="utf-8")).replace(HOLE, "\n".join(parts))


def _section(name: str, rows: Rows) -> str:
    cells = "".join(f"<tr><td>{escape(what)}</td><td>{escape(much)}</td></tr>" for what, much in rows)
    return f'<section class="card"><h2>{escape(name)}</h2><table>{cells}</table></section>'
