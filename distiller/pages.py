"""What the project's pages have in common: one style, and HTML that needs nothing else."""

from __future__ import annotations

from pathlib import Path

STYLE = Path(__file__).with_name("page.css")
STYLE_HOLE = "/*STYLE*/"


def styled(template: str) -> str:
    """A page's template with the common style in its place."""
    return template.replace(STYLE_HOLE, STYLE.read_text(encoding="utf-8"))
