"""What tools show besides text. Chat's messages of tools carry text only, so it stands in the message behind them."""

from __future__ import annotations

from typing import Any

SHOWN_BELOW = "The result is in the next message."


def behind(call: str, parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts of a tool's result, under a heading that says whose they are."""
    return [{"type": "text", "text": f"From the result of the tool call {call}:"}, *parts] if parts else []
