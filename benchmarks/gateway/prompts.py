"""The requests that are sent: some hundreds of distinct prompts of about 60 tokens."""

from __future__ import annotations

import random

COUNT = 512
_EASY = ("Extract the dates from this note.", "Rewrite this message politely.", "Which topic fits this text?")
_HARD = ("Prove this claim step by step.", "Derive the closed form and explain why.", "Find the bug and fix it.")
_WORDS = [
    "invoice", "courier", "harvest", "ledger", "window", "copper", "meeting", "refund", "garden", "signal",
    "winter", "orbit", "basket", "tenant", "bridge", "morning", "filter", "candle", "server", "island",
    "pencil", "travel", "market", "engine", "yellow", "kitchen", "border", "letter", "budget", "planet",
    "shadow", "library", "ticket", "module", "forest", "contract", "battery", "season", "record", "village",
    "camera", "museum", "printer", "factory", "station", "weather", "velvet", "doctor", "painter", "account",
    "railway", "compass",
]  # fmt: skip


def prompts(count: int = COUNT) -> list[tuple[str, bool]]:
    """(text, whether it is of the easy kind), always the same ones; one in four is hard."""
    rng = random.Random(7)
    found = []
    for n in range(count):
        easy = n % 4 != 0
        filler = " ".join(rng.choices(_WORDS, k=44))
        found.append((f"{rng.choice(_EASY if easy else _HARD)} {filler} {rng.randrange(10_000)}.", easy))
    rng.shuffle(found)
    return found
