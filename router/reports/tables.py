"""How figures are written in the terminal."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from rich.table import Table

BASE = "base student"
"""What serves where no bundle does."""


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
