from __future__ import annotations

from distiller.logs.calls import LoggedCall, Source
from distiller.scan.kinds import OTHERS, RequestTemplate, kinds_of, parted
from distiller.scan.rows import ScanRow, row_of
from router.heads.kinds import masked

FRAME = "Answer with the sentiment of this review of a product, as one word. Review: "


def row(place: int, system: str, asked: str, **more: object) -> ScanRow:
    messages = [{"role": "system", "content": system}] if system else []
    request = {"messages": [*messages, {"role": "user", "content": asked}], **more}
    return row_of(LoggedCall(source=Source.OPENAI, request=request, message={"content": "x"}), place, None)


def templates(rows: list[ScanRow]) -> list[RequestTemplate]:
    return parted(kinds_of(rows), rows)


def test_a_request_that_comes_later_is_of_the_kind_that_it_would_have_been_in() -> None:
    rows = [row(n, "", f"{FRAME}words {n * 7} of it" if n % 2 else f"tell me {n * 13}") for n in range(200)]
    kinds = kinds_of(rows)
    framed = next(kind for kind in parted(kinds, rows) if kind.name.startswith("Answer"))
    assert kinds.of(row(0, "", f"{FRAME}words about something new").features) == framed.key
    assert kinds.of(row(0, "", "tell me more").features) != framed.key


def test_a_prompt_with_a_clock_or_an_id_in_it_is_one_kind() -> None:
    systems = [f"You help at {n // 60}:{n % 60:02} on 2026-11-{n % 28 + 1:02}. Session {n:032x}." for n in range(90)]
    (kind,) = templates([row(n, system, f"question {n}") for n, system in enumerate(systems)])
    assert len(kind.rows) == 90
    assert masked(systems[3]) == masked(systems[77])


def test_a_prompt_with_a_user_s_name_in_it_is_one_kind_and_names_nobody() -> None:
    base = "You are the assistant of a shop that sells shoes, and you answer politely. You talk to"
    rows = [row(n, f"{base} customer-{'abcdefghij'[n % 10] * 3}{'klmnopqrst'[n // 10]}.", f"q {n}") for n in range(100)]
    (kind,) = templates(rows)
    assert "customer-" not in kind.name


def test_a_frame_around_the_message_tells_kinds_apart() -> None:
    rows = [row(n, "", f"{FRAME}words {n * 7} of it" if n % 2 else f"tell me {n * 13}") for n in range(200)]
    kinds = templates(rows)
    assert sorted(len(kind.rows) for kind in kinds) == [100, 100]
    assert any(kind.name.startswith("Answer with the sentiment") for kind in kinds)


def test_shapes_tell_kinds_apart_by_name() -> None:
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {}}}
    rows = [row(n, "Help.", f"q {n}", **({"tools": [tool]} if n % 2 else {})) for n in range(100)]
    names = {kind.name for kind in templates(rows)}
    assert names == {"Help.", "Help. (tools look_up)"}


def test_what_comes_seldom_is_told_together() -> None:
    rows = [row(n, f"Do thing {'abcdefghijklmnopqrst'[n % 20] * 9}.", f"q {n}") for n in range(100)]
    (kind,) = templates(rows)
    assert (kind.name, len(kind.rows)) == (OTHERS, 100)
