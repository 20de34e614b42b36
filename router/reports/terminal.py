"""How figures are written in a terminal, and what clients and models wrote, some of which a terminal obeys.

Escape sequences set the clipboard and rewrite what stands on the screen, bidirectional controls show a text in
another order than it has. So everything that is printed passes through ``shown``, and no text is markup.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table

from router.logs import ACTING, shown

BASE = "base student"
"""What serves where no bundle does."""

_IN_JSON = {c: json.dumps(chr(c))[1:-1] for c in ACTING if c >= 0x7F}


def shown_json(text: bytes) -> bytes:
    """JSON that says the same, and that no terminal obeys. In JSON such characters stand in strings alone, where those
    of ASCII are written out already."""
    return text if text.isascii() else text.decode().translate(_IN_JSON).encode()


class Terminal(Console):
    """Rich's console for texts of whatever origin: what acts on a terminal is shown, and markup is text."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        return map(_shown, super().render(renderable, options))


class PagePart:
    """A part of a page as ``Terminal`` shows it, on any console."""

    def __init__(self, part: RenderableType) -> None:
        self._part = part

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        return map(_shown, console.render(self._part, options.update(markup=False, highlight=False)))


def _shown(segment: Segment) -> Segment:
    return segment if segment.control else segment._replace(text=shown(segment.text))


def table_of(*columns: str, title: str = "") -> Table:
    """The first column is text, the others are numbers."""
    table = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def usd(amount: Decimal) -> str:
    return f"{amount:.4f}"


def share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:,.1f}"


def date(unix: float) -> str:
    return datetime.fromtimestamp(unix).astimezone().strftime("%Y-%m-%d %H:%M")
