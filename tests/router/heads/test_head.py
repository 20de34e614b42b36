from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from router.heads.answers import Fields
from router.heads.head import LabelHead
from router.scoring.text.features import Features, extract

THINGS = {"card": "card_arrival", "transfer": "transfer_fee", "cash": "cash_withdrawal", "rate": "exchange_rate"}
FRAME = "You route messages of a bank to the team that handles them. Answer with the intent alone. Message: "


def drawn(count: int, seed: int) -> tuple[list[Features], list[Fields]]:
    """Messages that name their label by one word among others, and some that name none."""
    draw = random.Random(seed)
    words = [f"word{i}" for i in range(50)]
    requests, answers = [], []
    for _ in range(count):
        thing, label = draw.choice(list(THINGS.items()))
        said = draw.choices(words, k=6)
        said.insert(draw.randrange(6), thing if draw.random() < 0.9 else "thing")
        requests.append(extract({"messages": [{"role": "user", "content": FRAME + " ".join(said)}]}))
        answers.append((("", label),))
    return requests, answers


def right(head: LabelHead, requests: Sequence[Features], answers: Sequence[Fields]) -> tuple[np.ndarray, np.ndarray]:
    found = head.answers(requests, head.inputs.reader(None))
    good = np.array([f.fields == a for f, a in zip(found, answers, strict=True)])
    return good, np.array([f.score for f in found])


def test_a_head_learns_what_words_tell_and_knows_when_they_do_not() -> None:
    head = LabelHead.fit(*drawn(600, 0), None)
    assert head is not None
    good, scores = right(head, *drawn(600, 1))
    assert good.mean() > 0.85
    assert scores[good].mean() - scores[~good].mean() > 0.2
    assert abs(scores.mean() - good.mean()) < 0.06


def test_every_field_has_a_layer_and_all_must_be_right() -> None:
    requests, answers = drawn(600, 0)
    both = [(("intent", a[0][1]), ("urgent", "false")) for a in answers]
    head = LabelHead.fit(requests, both, None)
    assert head is not None
    fresh, labels = drawn(300, 1)
    good, _ = right(head, fresh, [(("intent", a[0][1]), ("urgent", "false")) for a in labels])
    assert good.mean() > 0.85
    wrong, _ = right(head, fresh, [(("intent", a[0][1]), ("urgent", "true")) for a in labels])
    assert not wrong.any()


def test_an_answer_that_was_never_there_is_never_given() -> None:
    requests, answers = drawn(400, 0)
    odd: list[Fields | None] = [(("", f"alone {i}"),) if i % 8 == 0 else None for i in range(len(answers))]
    head = LabelHead.fit(
        requests, [o if i % 4 == 0 else a for i, (o, a) in enumerate(zip(odd, answers, strict=True))], None
    )
    assert head is not None
    assert {f.fields[0][1] for f in head.answers(drawn(200, 1)[0], head.inputs.reader(None))} <= set(THINGS.values())
    _, scores = right(head, *drawn(200, 1))
    assert scores.mean() < 0.85


def test_one_answer_for_all_is_learnt() -> None:
    requests, answers = drawn(100, 0)
    head = LabelHead.fit(requests, [(("", "yes"),)] * len(answers), None)
    assert head is not None
    good, scores = right(head, requests[:9], [(("", "yes"),)] * 9)
    assert good.all()
    assert (scores > 0.9).all()


def test_what_has_nothing_in_common_has_no_head() -> None:
    requests, _ = drawn(40, 0)
    assert LabelHead.fit(requests, [((f"field {i}", "x"),) for i in range(40)], None) is None
    assert LabelHead.fit(requests, [(("", f"x {i}"),) for i in range(40)], None) is None
    assert LabelHead.fit([], [], None) is None


def test_strange_requests_score_lower() -> None:
    head = LabelHead.fit(*drawn(600, 0), None)
    assert head is not None
    usual = np.mean([a.score for a in head.answers(drawn(100, 1)[0], head.inputs.reader(None))])
    strange = extract(
        {"messages": [{"role": "user", "content": "Schreib mir bitte ein Gedicht über den Herbst am See."}]}
    )
    assert head.answers([strange], head.inputs.reader(None))[0].score < usual
