"""A live scorer learns of new traffic without a refit, and never certifies by what it learnt from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from distiller.rounds.refresh import refreshed
from distiller.rounds.scorer import lent
from router.contracts.decision import NOVEL
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.text.encoder import Encoder, load_encoder
from router.scoring.text.features import extract
from router.settings import Settings

OLD = ("my card has not arrived", "why was I charged a fee", "please raise my transfer limit", "close my account")
NEW = ("Quel temps fera-t-il à Grenoble demain", "Traduisez ce poème de Verlaine", "Écrivez une recette de gratin")
NOTHING = frozenset[str]()
F32 = npt.NDArray[np.float32]


def example(text: str, n: int, acceptable: bool) -> Example:
    body = {"messages": [{"role": "user", "content": f"{text}, case {n}"}]}
    return Example(extract(body), None, acceptable, request_id=f"r{n}")


def traffic(texts: tuple[str, ...], n: int, start: int = 0) -> list[Example]:
    rng = np.random.default_rng(start)
    picked = rng.integers(len(texts), size=n).tolist()
    return [example(texts[k], start + i, bool(rng.uniform() < (0.95 if k % 2 else 0.4))) for i, k in enumerate(picked)]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(Settings().cache)


@pytest.fixture(scope="module")
def live(encoder: Encoder) -> Scorer:
    return Scorer.fit(traffic(OLD, 200), encoder)


def test_a_new_kind_of_traffic_stops_being_strange_once_it_was_judged(live: Scorer) -> None:
    holdout = [*traffic(OLD, 150, 1000), *traffic(NEW, 60, 2000)]
    found = refreshed(live, [], holdout, NOTHING)
    fresh = [e.features for e in traffic(NEW, 30, 3000)]
    assert np.mean([live.look(f).novelty >= NOVEL for f in fresh]) > 0.9
    assert np.mean([found.scorer.look(f).novelty >= NOVEL for f in fresh]) < 0.1
    assert found.report["strange"] > 0.25 and found.report["strange_after"] < 0.05
    assert found.scorer.learned.dense is live.learned.dense


def test_what_refreshed_does_not_certify_and_what_certifies_did_not_refresh(live: Scorer) -> None:
    holdout = [*traffic(OLD, 150, 1000), *traffic(NEW, 60, 2000)]
    found = refreshed(live, traffic(OLD, 40, 500), holdout, NOTHING)
    certifying = {e.request_id for e in found.certifying}
    assert not certifying & found.learnt
    assert certifying | found.learnt == {e.request_id for e in holdout} | {f"r{500 + i}" for i in range(40)}
    assert {e.request_id for e in holdout if lent(e)} == found.learnt - {f"r{500 + i}" for i in range(40)}
    assert 0.2 < found.report["lent_by_holdout"] / len(holdout) < 0.5
    assert found.report["refreshed_on"] == len(found.learnt)


class Counting:
    """An encoder that counts how often each text is read."""

    def __init__(self, encoder: Encoder) -> None:
        self.name, self.dim, self.slow, self._encoder = encoder.name, encoder.dim, encoder.slow, encoder
        self.times = Counter[str]()

    def encode(self, text: str) -> F32:
        self.times[text] += 1
        return self._encoder.encode(text)

    def total(self, text: str) -> F32:
        self.times[text] += 1
        return self._encoder.total(text)

    def read_ahead(self, texts: Iterable[str]) -> None:
        self._encoder.read_ahead(texts)


def test_every_text_is_read_once(live: Scorer, encoder: Encoder) -> None:
    holdout, older = [*traffic(OLD, 150, 1000), *traffic(NEW, 60, 2000)], traffic(OLD, 40, 500)
    counting = Counting(encoder)
    found = refreshed(Scorer(counting, live.learned), older, holdout, NOTHING)
    assert found.report == refreshed(live, older, holdout, NOTHING).report and found.report["lent_by_holdout"] > 0
    around = {live.reader.texts(e.features)[1] for e in (*older, *holdout)}
    assert {n for text, n in counting.times.items() if text not in around} == {1}
    assert {counting.times[text] for text in around} == {2}, "once for the older ones, once for the holdout"


def test_usual_traffic_lends_nothing_and_is_still_learnt_from_once_it_is_old(live: Scorer) -> None:
    holdout, older = traffic(OLD, 150, 1000), traffic(OLD, 40, 500)
    found = refreshed(live, older, holdout, NOTHING)
    assert found.certifying == holdout
    assert found.report["lent_by_holdout"] == 0 and found.report["refreshed_on"] == 40
    turned = [replace(e, acceptable=False) for e in older]
    pessimist = refreshed(live, turned, holdout, NOTHING).scorer
    mean = np.mean([live.score(e.features) - pessimist.score(e.features) for e in holdout])
    assert mean > 0.1, "what was judged since moves the scores"


def test_what_was_learnt_at_an_earlier_round_neither_refreshes_again_nor_ever_certifies(live: Scorer) -> None:
    holdout = [*traffic(OLD, 150, 1000), *traffic(NEW, 60, 2000)]
    first = refreshed(live, traffic(OLD, 40, 500), holdout, NOTHING)
    later = [*holdout[100:], *traffic(NEW, 40, 4000)]
    second = refreshed(first.scorer, [*traffic(OLD, 40, 500), *holdout[:100]], later, first.learnt)
    assert not {e.request_id for e in second.certifying} & first.learnt
    assert second.report["learnt_before"] == sum(e.request_id in first.learnt for e in later) > 0
    assert second.report["refreshed_on"] == sum(e.request_id not in first.learnt for e in holdout[:100])
    assert second.report["lent_by_holdout"] == 0, "it is not strange any more"
    assert first.learnt <= second.learnt
