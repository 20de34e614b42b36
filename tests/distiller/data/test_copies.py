"""Which prompts are copies of each other: templates, conversations and sums are not; a changed word is."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from distiller.data import copies
from distiller.data.copies import Frames, Prompts, SketchFile, find_copies
from distiller.data.shingles import EVERYTHING, digest, limit, normalise, numbers, resemblance, sketches, smallest

DRAWN = random.Random(3)
WORDS = ["".join(DRAWN.choices("abcdefghijklmnopqrstuvwxyz", k=DRAWN.randint(3, 9))) for _ in range(3000)]


def words(n: int, drawn: random.Random) -> str:
    return " ".join(drawn.choices(WORDS, k=n))


def found(tmp_path: Path, turns: list[tuple[str, str]], kept: int = 0, similarity: float = 0.8) -> copies.Copies:
    clean = [(normalise(before), normalise(asked)) for before, asked in turns]
    wholes = [f"{before} {asked}".strip() for before, asked in clean]

    def column(texts: list[str]) -> np.ndarray:
        return np.array([digest(t) for t in texts], np.uint64)

    with SketchFile(tmp_path / "sketches") as file:
        for first in range(0, len(clean), 100):
            file.add(sketches(clean[first : first + 100]))
        file.finish()
        prompts = Prompts(
            file=file,
            sketch=np.arange(len(clean)),
            head=column([w[: copies.EDGE_CHARS] for w in wholes]),
            tail=column([w[-copies.EDGE_CHARS :] for w in wholes]),
            numbers=column([numbers(asked) for _, asked in clean]),
            kept=kept,
        )
        return find_copies(prompts, Frames(prompts), similarity)


def test_shingles_are_the_distinct_runs_of_five_characters() -> None:
    first, second, short = smallest(["abcdefg", "abcdefgabcdefg", "ab"], 100)
    assert len(first) == 3 and len(second) == 7 and len(short) == 1
    assert set(first) < set(second)
    assert smallest(["abcdefgabcdefg"], 4)[0].tolist() == second[:4].tolist()


def test_resemblance_is_shared_over_all_as_far_as_both_are_known() -> None:
    a, b = np.array([1, 2, 3, 4], np.uint32), np.array([2, 3, 4, 9], np.uint32)
    assert resemblance(a, b, EVERYTHING) == 3 / 5
    assert resemblance(a, b, np.uint32(3)) == 2 / 3
    assert resemblance(a, np.zeros(0, np.uint32), EVERYTHING) == 0
    assert limit(a, 4) == 4 and limit(a, 5) == EVERYTHING


def test_a_sketch_of_long_texts_tells_nearly_their_resemblance() -> None:
    drawn = random.Random(1)
    shared, own, other = (words(n, drawn) for n in (4000, 500, 500))
    whole = smallest([f"{shared} {own}", f"{shared} {other}"], 10**6)
    exact = resemblance(*whole, EVERYTHING)
    sketched = smallest([f"{shared} {own}", f"{shared} {other}"], 1024)
    assert resemblance(*sketched, min(limit(s, 1024) for s in sketched)) == pytest.approx(exact, abs=0.05)


def test_prompts_of_which_one_word_in_twelve_is_changed_are_found(tmp_path: Path) -> None:
    drawn = random.Random(2)
    turns = []
    for _ in range(300):
        text = words(60, drawn).split()
        turns.append(("", " ".join(text)))
        text[7] = "changed"
        turns.append(("", " ".join(text)))
    group = found(tmp_path, turns).group
    assert (group[0::2] == np.arange(0, 600, 2)).all(), "the first of each pair is its group's"
    assert (group[1::2] == np.arange(0, 600, 2)).all()


def test_one_application_template_does_not_make_its_prompts_copies_however_rare_it_is(tmp_path: Path) -> None:
    drawn = random.Random(4)
    turns = [("", words(40, drawn)) for _ in range(3000)]
    frame = f"Name the intent of the customer's message, one of: {words(60, drawn)}. Message:"
    turns += [("", f"{frame} {words(12, drawn)}") for _ in range(100)]  # 3% of all
    ending = f"Answer in one word, out of these: {words(60, drawn)}. Nothing else"
    turns += [("", f"{words(12, drawn)}. {ending}") for _ in range(60)]
    turns += [(words(120, random.Random(5)), words(12, drawn)) for _ in range(60)]
    assert (found(tmp_path, turns).group == np.arange(len(turns))).all()


def test_a_kept_prompts_near_copy_leaks_inside_a_template_too(tmp_path: Path) -> None:
    drawn = random.Random(6)
    frame = f"Name the intent of the customer's message, one of: {words(60, drawn)}. Message:"
    said = [words(14, drawn) for _ in range(200)]
    near = " ".join(said[3].split()[:-1])
    turns = [("", f"{frame} {s}") for s in [*said, near]]
    leaks = found(tmp_path, turns, kept=10).leaks
    assert leaks[-1] and leaks.sum() == 1


def test_the_turns_of_a_conversation_are_not_copies_of_each_other(tmp_path: Path) -> None:
    drawn = random.Random(7)
    said = words(200, drawn)
    asked = [words(12, drawn) for _ in range(4)]
    turns = [(f"{said} {' '.join(asked[:i])}", asked[i]) for i in range(4)]
    assert (found(tmp_path, turns).group == np.arange(4)).all()


def test_a_message_under_two_instructions_and_a_sum_with_other_figures_are_other_questions(tmp_path: Path) -> None:
    drawn = random.Random(8)
    message, sum_ = words(30, drawn), words(40, drawn)
    turns = [
        (f"system: {words(30, drawn)}", message),
        (f"system: {words(30, drawn)}", message),
        ("", f"{sum_} takes 60 minutes"),
        ("", f"{sum_} takes 80 minutes"),
    ]
    assert (found(tmp_path, turns).group == np.arange(4)).all()


def test_short_prompts_are_copies_only_if_they_are_equal(tmp_path: Path) -> None:
    assert found(tmp_path, [("", "yes please"), ("", "yes, pleas")]).group.tolist() == [0, 1]


def test_bands_miss_few_pairs_at_the_threshold_and_look_at_few_below() -> None:
    def shares_a_band(similarity: float) -> float:
        return 1 - (1 - similarity**copies.BAND_ROWS) ** copies.BANDS

    assert shares_a_band(0.8) > 0.9999 and shares_a_band(0.3) < 0.16


def test_signatures_meet_as_often_as_theory_says() -> None:
    """Two sets of 150 that share 100 of 200 are 1/2 alike."""
    drawn = np.random.default_rng(0)
    met = []
    for _ in range(400):
        values = drawn.choice(2**32, 200, replace=False).astype(np.uint32)
        a, b = np.sort(values[:150]), np.sort(values[50:])
        keys = copies._keys([a, b])
        met.append((keys[0] == keys[1]).mean())
    assert np.mean(met) == pytest.approx(0.5**copies.BAND_ROWS, abs=0.015)


def test_operators_and_scripts_count_in_what_a_prompt_says() -> None:
    assert normalise("  Ｗｈｅｒｅ is\nMY card?! ") == "where is my card"
    assert normalise("Где карта?") == "где карта" and normalise("??") != normalise("!!")
    assert normalise("What is 3+4?") != normalise("What is 3-4?")
