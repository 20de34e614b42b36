"""How a process logs: events with names in snake_case, to stderr, with nothing in them that a terminal obeys."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

_LINES = frozenset("\n\t")
ACTING = [
    *range(0x20), *range(0x7F, 0xA0),  # C0, DEL, C1
    0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A),  # order, and lines
    0xFEFF, *range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080),  # not to be seen
    *range(0xD800, 0xE000),  # halves of characters: no terminal's encoding has them
]  # fmt: skip
_SHOWN = {c: f"\\x{c:02x}" if c < 0x100 else f"\\u{c:04x}" for c in ACTING if chr(c) not in _LINES}


def shown(text: str) -> str:
    """The text with what a terminal would obey written out (``\\x1b``); only line ends and tabs stay."""
    return text if text.isascii() and text.isprintable() else text.replace("\r\n", "\n").translate(_SHOWN)


class _Unfailing:
    """A text file whose writes are lost where nobody reads it any more: that must fail no request."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._file.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._file.flush()


def _shown(_: Any, __: str, event: EventDict) -> EventDict:
    """What is told in an upstream's words, or a client's, with nothing in it that a terminal obeys."""
    return {key: shown(value) if isinstance(value, str) else value for key, value in event.items()}


def log_to_stderr() -> None:
    """One JSON object a line, or coloured text on a terminal; stdout stays for what people asked for."""
    terminal = sys.stderr.isatty()
    plain = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)  # locals would be prompts and keys
    renderers: list[Processor] = [
        structlog.processors.ExceptionRenderer(plain),
        structlog.processors.JSONRenderer(default=str),
    ]
    if terminal:
        renderers = [_shown, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        logger_factory=structlog.PrintLoggerFactory(_Unfailing(sys.stderr)),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
