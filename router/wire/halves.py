"""Characters that were cut in two: a server that counts text in UTF-16 sends one half of an emoji with one event and
the other with the next."""

from __future__ import annotations

from typing import Any

from router.wire.sse import piece_of

TEXTS = frozenset({"content", "refusal", "reasoning", "reasoning_content"})
"""Of a delta: what adds up from chunk to chunk."""
LOST = "\ufffd"
_FIRST_OF_TWO = ("\ud800", "\udbff")
_Place = tuple[str, str]


class Halves:
    """Puts them together over the chunks of one stream. ``waiting`` for the second half of so many."""

    def __init__(self) -> None:
        self._waiting: dict[_Place, str] = {}

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def join(self, chunk: dict[str, Any]) -> bool:
        """Gives the chunk's texts whole characters (changes ``chunk``): a last half waits for the next chunk, and one
        that belongs to none is replaced. Whether none of the answer's was."""
        whole = True
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                whole = self._joined(choice) and whole
        try:
            fresh = _sound(chunk)
        except RecursionError:  # nested deeper than anything that is said
            return False
        chunk.clear()
        chunk.update(fresh)
        return whole

    def _joined(self, choice: dict[str, Any]) -> bool:
        said, at, whole = dict(piece_of(choice)), str(choice.get("index")), True
        for field in TEXTS & said.keys():
            whole = self._text(said, field, (at, field)) and whole
        calls = said.get("tool_calls")
        for part in calls if isinstance(calls, list) else ():
            inner = part.get("function") if isinstance(part, dict) else None
            if isinstance(inner, dict):
                whole = self._text(inner, "arguments", (at, f"call {part.get('index')}")) and whole
        if choice.get("finish_reason"):
            for place in [place for place in self._waiting if place[0] == at]:
                del self._waiting[place]
                whole = False
                if place[1] in TEXTS:
                    said[place[1]] = f"{said.get(place[1]) or ''}{LOST}"
        if said:
            choice["delta"] = said
        return whole

    def _text(self, within: dict[str, Any], field: str, place: _Place) -> bool:
        text = within.get(field)
        if not isinstance(text, str) or not text:
            return True
        text = self._waiting.pop(place, "") + text
        if _FIRST_OF_TWO[0] <= text[-1] <= _FIRST_OF_TWO[1]:
            self._waiting[place], text = text[-1], text[:-1]
        within[field] = joined = _whole(text)
        return joined.count(LOST) == text.count(LOST)


def _whole(text: str) -> str:
    """Two halves that stand together are one character, and one alone is replaced."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _sound(value: Any) -> Any:
    match value:
        case str():
            return value if value.isascii() else _whole(value)
        case list():
            return [_sound(inner) for inner in value]
        case dict():
            return {_sound(key): _sound(inner) for key, inner in value.items()}
    return value
