"""What the project's pages have in common: one style, one frame, and HTML that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

STYLE = Path(__file__).with_name("page.css")
FRAME = Path(__file__).with_name("page.html")
STYLE_HOLE, TITLE_HOLE, BODY_HOLE = "/*STYLE*/", "<!--TITLE-->", "<!--BODY-->"


def styled(template: str, own: str = "") -> str:
    """A page's template with the common style in its place, and the page's ``own`` behind it."""
    return template.replace(STYLE_HOLE, STYLE.read_text(encoding="utf-8") + own)


def framed(title: str, style: Path, parts: Iterable[str]) -> str:
    """A page of these parts, those that are empty left out. ``style``: the file with what is the page's own."""
    whole = styled(FRAME.read_text(encoding="utf-8"), style.read_text(encoding="utf-8"))
    return whole.replace(TITLE_HOLE, escape(title)).replace(BODY_HOLE, "\n".join(filter(None, parts)))
