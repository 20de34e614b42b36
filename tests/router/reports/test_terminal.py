"""Nothing that a client or a model wrote acts on the terminal of whoever reads it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from router.reports.terminal import PagePart, Terminal, shown, shown_json

ACTS = {
    "clipboard": "\x1b]52;c;aGk=\x07",
    "colour": "\x1b[31m",
    "title": "\x1b]0;owned\x1b\\",
    "C1 sequence": "\x9b31m",
    "C1 command": "\x9d52;c;aGk=\x9c",
    "line anew": "all is well\rnothing is",
    "backspace": "evil\b\b\b\bgood",
    "form feed": "\x0c",
    "nul": "\x00",
    "delete": "\x7f",
    "other order": "\u202egnp.exe\u202c",
    "isolated": "\u2066a\u2069",
    "line": "a\u2028b\u2029c\x85d",
    "tag": "\U000e0041",
    "half": "\ud83d",
}
MARKUP = "[bold red]loud[/] [link=http://127.0.0.1/]here[/link] [/nothing] :smile:"


def acting(text: str) -> list[str]:
    kept = "\n\t"
    return [c for c in text if not c.isprintable() and c not in kept and not c.isspace()] + [
        c for c in text if c in "\r\x0b\x0c\x1c\x85\u2028\u2029"
    ]


def printed(part: Any, *, console: type[Console] = Terminal) -> str:
    out = io.StringIO()
    console(file=out, width=120, color_system=None).print(part)
    return out.getvalue()


def table(text: str) -> Table:
    found = Table("a", text, title=text, caption=text)
    found.add_row(text, Text(text))
    return found


@pytest.mark.parametrize("text", ACTS.values(), ids=ACTS)
def test_what_acts_on_a_terminal_is_written_out(text: str) -> None:
    assert not acting(shown(text))
    assert shown(shown(text)) == shown(text)
    parts: list[Any] = [text, Text(text), table(text), Panel(text, title=Text(text))]
    for part in parts:
        assert not acting(printed(part))
        assert not acting(printed(PagePart(part), console=Console))


def test_other_text_stays_as_it_is() -> None:
    plain = "Grüße, 漢字, עברית, 👨‍👩‍👧 é\n\ta [bold]word[/] :smile: \\x1b"
    assert shown(plain) == plain
    assert shown("a\r\nb") == "a\nb"
    assert printed(plain).strip().split() == plain.split()


def test_no_text_is_markup() -> None:
    parts: list[RenderableType] = [MARKUP, table(MARKUP), Panel(MARKUP)]
    assert all(MARKUP in printed(part) for part in parts)
    inside = Table("a")
    inside.add_row(MARKUP.removesuffix(" :smile:"))
    assert MARKUP.removesuffix(" :smile:") in printed(PagePart(inside), console=Console)


@pytest.mark.parametrize("text", [t for t in ACTS.values() if t != ACTS["half"]])
def test_json_says_the_same_and_acts_on_nothing(text: str) -> None:
    said = {"text": text, text: [text, "Grüße"]}
    told = shown_json(orjson.dumps(said, option=orjson.OPT_INDENT_2))
    assert json.loads(told) == said
    assert not acting(told.decode())
    assert "Grüße" in told.decode()


def test_every_command_prints_through_it() -> None:
    root = Path(__file__).parents[3]
    files = [f for package in ("router", "distiller") for f in (root / package).rglob("*.py")]
    printing = {
        f.relative_to(root).as_posix() for f in files if "Console(" in f.read_text() or "from_markup" in f.read_text()
    }
    assert not printing
