from collections.abc import Sequence

import pytest

from router.engine.text import Detokenizer, StopScanner

BYTES = "Grüße 🦊".encode()


def decode(ids: Sequence[int]) -> str:
    return bytes(BYTES[i] for i in ids).decode(errors="replace")


def test_a_character_over_several_tokens_leaves_whole_or_not_at_all() -> None:
    detokenizer = Detokenizer(decode)
    pieces = [detokenizer.push(i) for i in range(len(BYTES))]
    assert "".join(pieces) == "Grüße 🦊"
    assert not any("�" in piece for piece in pieces)
    assert detokenizer.flush() == ""


def test_an_unfinished_character_shows_at_the_end() -> None:
    detokenizer = Detokenizer(decode)
    assert "".join(detokenizer.push(i) for i in range(3)) == "Gr"[: len("Gr")]
    assert detokenizer.flush() == "�"


@pytest.mark.parametrize(
    ("stops", "pieces", "left", "stopped"),
    [
        ((), ["a", "b"], "ab", False),
        (("END",), ["one E", "N", "D two"], "one ", True),
        (("END",), ["one E", "N", "ough"], "one ENough", False),
        (("b", "ab"), ["xa", "b"], "x", True),
        (("\n\n",), ["line\n", "line", "\n\nrest"], "line\nline", True),
    ],
)
def test_stop_strings_over_pieces(stops: tuple[str, ...], pieces: list[str], left: str, stopped: bool) -> None:
    scanner = StopScanner(stops)
    out = ""
    for piece in pieces:
        out += scanner.push(piece)
        if scanner.stopped:
            break
    assert out + scanner.flush() == left
    assert scanner.stopped is stopped
