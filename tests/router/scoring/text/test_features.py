import math
import re
import time

import numpy as np
import pytest

from router.scoring.text.features import (
    CLASSES,
    CONTEXT_WINDOW,
    QUESTIONS,
    SCRIPTS,
    STRUCTURE,
    USER_WINDOW,
    Features,
    extract,
)
from router.scoring.text.ngrams import BUCKETS, hashed_ngrams
from tests.router.scoring.texts import MARKS, PLAIN, mixtures


def ask(text: str, **body: object) -> Features:
    return extract({"model": "m", "messages": [{"role": "user", "content": text}], **body})


def named(features: Features) -> dict[str, float]:
    return dict(zip(STRUCTURE, features.structure.tolist(), strict=True))


def test_all_turns_are_read_and_the_last_user_turn_stands_apart() -> None:
    f = extract(
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "First question"},
                {"role": "assistant", "content": None, "tool_calls": [
                    {"function": {"name": "look_up", "arguments": '{"city": "Oslo"}'}}]},
                {"role": "tool", "content": "rain"},
                {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
            ]
        }
    )  # fmt: skip
    assert f.last_user == "And now?" and f.turns == 5
    for piece in ("Be brief.", "First question", "look_up", "Oslo", "rain"):
        assert piece in f.context
    assert f.text == f"{f.context}\nAnd now?"


def test_a_long_prompt_keeps_head_and_tail() -> None:
    system = {"role": "system", "content": "S" * 9000 + "end of system"}
    user = {"role": "user", "content": "start " + "x" * 50_000 + " and answer in French"}
    f = extract({"messages": [system, user]})
    assert f.user_window.startswith("start ") and f.user_window.endswith("and answer in French")
    assert f.context_window.endswith("end of system")
    assert len(f.user_window) <= USER_WINDOW + 1 and len(f.context_window) <= CONTEXT_WINDOW + 1
    assert f.input_tokens == pytest.approx((50_027 + 9013) / 4, rel=0.01)


def test_the_middle_of_a_long_prompt_still_counts_in_the_structure() -> None:
    plain, digits = ask("a" * 9000), ask("a" * 4000 + "7" * 1000 + "a" * 4000)
    assert named(plain)["share_digit"] == 0 and named(digits)["share_digit"] == pytest.approx(1 / 9)


def test_capabilities_are_seen() -> None:
    image = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    f = extract({"messages": [{"role": "user", "content": image}], "tools": [{"type": "function"}]})
    assert f.has_images and f.has_tools and not f.has_audio and not f.wants_json
    assert f.input_tokens > 700
    f = ask("x", response_format={"type": "json_schema", "json_schema": {}})
    assert f.wants_json and f.wants_schema
    assert ask("x", response_format={"type": "json_object"}).wants_json
    assert extract({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}).has_audio


@pytest.mark.parametrize(
    ("text", "script", "language"),
    [
        ("Where is my new card?", "latin", "en"),
        ("Wo ist meine neue Karte und wie lange dauert das?", "latin", "de"),
        ("Où est ma carte et pourquoi elle n'est pas là ?", "latin", "fr"),
        ("¿Dónde está la tarjeta que pedí por correo?", "latin", "es"),
        ("Где моя новая карта?", "cyrillic", "ru"),
        ("Πού είναι η κάρτα μου;", "greek", "el"),
        ("我的新卡在哪里", "cjk", "zh"),
        ("新しいカードはどこですか", "cjk", "ja"),
        ("새 카드는 어디에 있나요", "hangul", "ko"),
        ("أين بطاقتي الجديدة", "arabic", "ar"),
        ("12 + 30 = ?", "", ""),
    ],
)
def test_script_and_language_are_guessed(text: str, script: str, language: str) -> None:
    f = ask(text)
    assert (f.script if script else "", f.language) == (script, language)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": None},
        {"messages": []},
        {"messages": ["hi", None, {"content": 3}, {"role": "user", "content": [None, "x", {"type": "text"}]}]},
        {"messages": [{"role": "user", "content": "a\ud800b"}], "max_tokens": "many", "n": "two", "tools": 1},
        {"messages": [{"role": "assistant", "content": "x", "tool_calls": [None, {"function": None}]}]},
    ],
)
def test_malformed_requests_are_read_as_far_as_they_go(body: dict[str, object]) -> None:
    f = extract(body)
    assert f.structure.shape == (len(STRUCTURE),) and np.isfinite(f.structure).all()
    hashed_ngrams(f.user_window, f.context_window)


def test_ngrams_are_hashed_the_same_wherever_they_stand() -> None:
    words = {t: set(hashed_ngrams(t, "").tolist()) for t in ("lost card", "my lost card", "LOST CARD", "card lost")}
    assert words["lost card"] == words["LOST CARD"]
    assert len(words["lost card"] - words["my lost card"]) == 0  # every n-gram, edges included, is there too
    assert len(words["lost card"] - words["card lost"]) > 0


def test_context_and_user_have_ngrams_of_their_own() -> None:
    user, context = hashed_ngrams("refund policy", ""), hashed_ngrams("", "refund policy")
    assert not set(user.tolist()) & set(context.tolist())
    assert len(context) == 3 and user.min() >= 0 and user.max() < BUCKETS


def test_ngrams_spread_over_the_buckets() -> None:
    found = hashed_ngrams(" ".join(f"w{i:05d}" for i in range(3000)), "")
    assert len(np.unique(found >> 10)) == BUCKETS >> 10


def test_quick_counts_are_what_plain_expressions_count() -> None:
    for text in [*PLAIN, MARKS, "why " * 2000, *mixtures(200)]:
        f = ask(text)
        found, raw, words = named(f), text.encode(), set(re.findall(r"[^\W\d_]+", f.user_window.lower()))
        for question, cues in QUESTIONS.items():
            assert found[f"asks_{question}"] == (not words.isdisjoint(cues)), (question, text)
        counted = {
            "log_numbers": len(re.findall(r"\d[\d.,]*", f.user_window)),
            "log_sentences": len(re.findall(r"[.!?;:。！？](?=\s|$)|\n", f.user_window)),
            "log_lines": text.count("\n") + 1,
            "log_mean_word": len(raw) / (1 + raw.count(b" ") + raw.count(b"\n")),
            "log_code_fences": text.count("```"),
        }
        assert {n: found[n] for n in counted} == pytest.approx({n: math.log1p(c) for n, c in counted.items()})
        for name, members in CLASSES.items():
            assert found[f"share_{name}"] == pytest.approx(sum(b in members for b in raw) / max(1, len(text)))
        for name, firsts in SCRIPTS.items():
            assert found[f"script_{name}"] == pytest.approx(sum(b in firsts for b in raw) / max(1, len(text)))


def test_reading_a_long_prompt_stays_cheap() -> None:
    body = {"messages": [{"role": "user", "content": "Could you check the balance of it? " * 1000}]}
    best = min(_seconds(body) for _ in range(20))
    assert best < 0.003  # 0.3 ms on an idle core; the rest is room for a busy one


def _seconds(body: dict[str, object]) -> float:
    start = time.perf_counter()
    f = extract(body)
    hashed_ngrams(f.user_window, f.context_window)
    return time.perf_counter() - start


def test_of_a_text_that_no_model_reads_the_beginning_and_the_end_are_counted() -> None:
    part = "Is 1 + 1 = 2? "
    long, longer = (extract({"messages": [{"role": "user", "content": part * n}]}) for n in (40_000, 80_000))
    assert longer.input_tokens == 2 * long.input_tokens - 4
    same = [n for n, name in enumerate(STRUCTURE) if name.startswith(("share_", "script_"))]
    assert longer.structure[same] == pytest.approx(long.structure[same], abs=1e-3)
