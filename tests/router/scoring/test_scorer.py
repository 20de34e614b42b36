import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from router.contracts.records import Signals
from router.errors import BundleError
from router.scoring.linear import Platt, sigmoid
from router.scoring.model import Example
from router.scoring.prior import prior_score
from router.scoring.scorer import NOBODY, STEEPNESS, Scorer, together
from router.scoring.signals import summarise
from router.scoring.text.encoder import Encoder
from router.scoring.text.features import STRUCTURE, Features, extract
from router.scoring.text.reader import ANY_STRUCTURE, Blocks, Reader
from router.scoring.text.static_encoder import StaticEncoder
from router.scoring.text.templates import Templates
from tests.router.scoring.texts import MARKS, PLAIN

EASY = ["card", "balance", "transfer", "pin", "top-up", "fee", "limit", "address"]
HARD = ["derivative", "tax law", "merger", "proof", "integral", "patent", "theorem", "lawsuit"]
FRAME = "You are a helpful assistant of a bank. Answer in one sentence. Be kind and precise. " * 5


def request(rng: np.random.Generator, hard: bool) -> Features:
    words = rng.choice(HARD if hard else EASY, 2)
    text = f"Please tell me about the {words[0]} and the {words[1]}, number {rng.integers(100)}"
    return extract({"messages": [{"role": "system", "content": FRAME}, {"role": "user", "content": text}]})


def examples(n: int, seed: int = 0, signals: bool = False, noise: float = 0.1) -> list[Example]:
    """Easy words are mostly acceptable; with ``signals`` the student hesitates where it is wrong."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(n):
        hard = bool(rng.uniform() < 0.5)
        acceptable = bool(rng.uniform() < (noise if hard else 1 - noise))
        p = rng.beta(9, 1, 12) if acceptable else rng.beta(4, 2, 12)
        seen = summarise(np.log(p).tolist(), complete=True) if signals else None
        found.append(Example(request(rng, hard), seen, acceptable))
    return found


def auroc(scores: list[float], labels: list[bool]) -> float:
    good = [s for s, y in zip(scores, labels, strict=True) if y]
    bad = [s for s, y in zip(scores, labels, strict=True) if not y]
    return float(np.mean([(g > b) + 0.5 * (g == b) for g in good for b in bad]))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    words = sorted({w for t in (*EASY, *HARD, "please tell me about the and number") for w in t.split()})
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(["[UNK]", *words])}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    table = np.random.default_rng(0).normal(size=(len(words) + 1, 16)).astype(np.float32)
    return StaticEncoder(table, tokenizer, "tiny")


@pytest.fixture(scope="module")
def scorer(encoder: Encoder) -> Scorer:
    return Scorer.fit(examples(400, signals=True), encoder)


def test_what_the_student_can_do_scores_high_and_calibrated(scorer: Scorer) -> None:
    fresh = examples(400, seed=1)
    scores = [scorer.score(e.features) for e in fresh]
    assert auroc(scores, [e.acceptable for e in fresh]) > 0.85  # 0.9 is the most the noise allows
    assert np.mean(scores) == pytest.approx(np.mean([e.acceptable for e in fresh]), abs=0.06)
    assert scorer.held_out_.shape == (400,) and 0.05 < np.quantile(scorer.held_out_, 0.1) < 0.25


def test_the_answers_certainty_adds_to_the_requests(scorer: Scorer) -> None:
    fresh = examples(300, seed=2, signals=True)
    labels, scores = [e.acceptable for e in fresh], [scorer.score(e.features) for e in fresh]
    accepts = [scorer.accept(s, e.signals) for s, e in zip(scores, fresh, strict=True)]
    assert auroc(accepts, labels) > auroc(scores, labels) + 0.04
    assert scorer.accept(0.42, None) == 0.42
    assert np.mean(accepts) == pytest.approx(np.mean(labels), abs=0.06)


def test_scores_are_the_same_to_the_last_bit_after_saving(scorer: Scorer, encoder: Encoder, tmp_path: Path) -> None:
    scorer.save(tmp_path / "scorer")
    loaded = Scorer.load(tmp_path / "scorer", encoder)
    for e in examples(50, seed=3, signals=True):
        score = scorer.score(e.features)
        assert loaded.score(e.features) == score
        assert loaded.accept(score, e.signals) == scorer.accept(score, e.signals)
    assert sorted(p.suffix for p in (tmp_path / "scorer").iterdir()) == [".json", ".safetensors"]


def two_headed(n: int, seed: int = 0) -> list[Example]:
    """Hard words defeat the student; the teacher fails where the second word is an easy one, tagged "x" or "y"."""
    rng, found = np.random.default_rng(seed), []
    for i in range(n):
        hard, lost = bool(rng.uniform() < 0.5), bool(rng.uniform() < 0.3)
        words = f"{rng.choice(HARD if hard else EASY)} {'patent' if lost else 'card'}"
        body = {"messages": [{"role": "user", "content": f"about the {words}"}], "metadata": {"task": "xy"[i % 2]}}
        student, teacher = bool(rng.uniform() < (0.15 if hard else 0.9)), bool(rng.uniform() < (0.1 if lost else 0.9))
        acceptable = student or not teacher
        found.append(Example(extract(body), None, acceptable, student=student, teacher=teacher, request_id=f"r{i}"))
    return found


@pytest.mark.parametrize("encoded", [True, False])
@pytest.mark.parametrize("examples_of", [examples, two_headed])
def test_a_score_is_what_the_fitted_weights_give_for_the_reading(
    encoder: Encoder, encoded: bool, examples_of: Callable[[int], list[Example]]
) -> None:
    scorer = Scorer.fit(examples_of(200), encoder if encoded else None)
    learned, reader = scorer.learned, scorer.reader
    texts = [*PLAIN, MARKS, *(e.features.last_user for e in examples(20, seed=11))]
    for text, around in zip(texts, [*texts[3:], FRAME, FRAME, FRAME], strict=True):
        turns = [{"role": "system", "content": around}, {"role": "user", "content": text}]
        features = extract({"messages": turns, "metadata": {"task": "x"}})
        reading = reader(features)
        grams = [np.repeat(learned.grams[g.buckets].astype(float), g.times.astype(int), axis=0) for g in reading[1:3]]
        rows, own, others = np.concatenate(grams), grams[0][:, 3], grams[1][:, 3]
        squared = rows[:, 2].sum()
        heads = learned.dense @ reading.dense + learned.bias + learned.tasks.get("x", (0.0,) * len(learned.bias))
        heads = heads + rows[:, : len(heads)].sum(axis=0) / math.sqrt(squared)
        z = float(heads[0]) if len(heads) == 1 else together(*heads.tolist())[0]
        opinion, familiar = NOBODY, learned.familiarity.share((own.sum(), len(own)), (others.sum(), len(others)))
        if learned.neighbours and reader.message(reading).any():
            opinion = learned.neighbours.ask(reader.message(reading), "x")
            familiar = min(familiar, learned.neighbours.familiar(opinion.nearest))
        expected = sigmoid(learned.blend.logit(z, opinion)) * familiar**STEEPNESS
        assert scorer.score(features) == pytest.approx(expected, abs=1e-4)
        assert scorer.look(features).novelty == pytest.approx(1 - familiar**STEEPNESS, abs=1e-6)
        assert scorer.score(features) == scorer.score(features)  # with the context remembered


def test_two_heads_tell_what_escalating_gains(encoder: Encoder, tmp_path: Path) -> None:
    scorer, fresh = Scorer.fit(two_headed(600), encoder), two_headed(400, seed=1)
    looks = [scorer.look(e.features) for e in fresh]
    gains = [float(bool(e.teacher)) - float(bool(e.student)) for e in fresh]
    told = [look.gain or 0.0 for look in looks]
    assert np.corrcoef(told, gains)[0, 1] > 0.6 and abs(np.mean(told) - np.mean(gains)) < 0.06
    assert auroc([look.score for look in looks], [e.acceptable for e in fresh]) > 0.8
    assert scorer.held_out_gain_ is not None and np.corrcoef(scorer.held_out_gain_, _gains())[0, 1] > 0.6
    scorer.save(tmp_path)
    assert [Scorer.load(tmp_path, encoder).look(e.features) for e in fresh[:20]] == looks[:20]


def _gains() -> list[float]:
    return [float(bool(e.teacher)) - float(bool(e.student)) for e in two_headed(600)]


def test_without_labels_of_both_tiers_there_is_no_gain(encoder: Encoder) -> None:
    scorer = Scorer.fit([replace(e, teacher=None) for e in two_headed(200)], encoder)
    assert scorer.look(two_headed(1)[0].features).gain is None and len(scorer.learned.bias) == 1


def test_a_clients_tag_counts_where_it_tells_something(encoder: Encoder) -> None:
    def tagged(task: str, good: bool) -> Example:
        body = {"messages": [{"role": "user", "content": "about the card"}], "metadata": {"task": task}}
        return Example(extract(body), None, good)

    rng = np.random.default_rng(0)
    made = [tagged("easy", bool(rng.uniform() < 0.95)) for _ in range(80)]
    made += [tagged("hard", bool(rng.uniform() < 0.2)) for _ in range(80)]
    scorer = Scorer.fit(made, encoder)
    easy, hard, unknown = (scorer.score(tagged(task, True).features) for task in ("easy", "hard", "never seen"))
    assert easy > unknown > hard and easy > 0.85 and hard < 0.35


@pytest.mark.parametrize("both", [False, True])
def test_a_long_fit_tells_how_far_it_is(encoder: Encoder, both: bool) -> None:
    told: list[tuple[int, int, str]] = []
    known = [replace(e, student=e.acceptable, teacher=True) if both else e for e in examples(1200)]
    if both:
        known[:20] = [replace(e, teacher=False) for e in known[:20]]
    scorer = Scorer.fit(known, encoder, on_step=lambda *step: told.append(step))
    regressions = 7 * len(scorer.learned.bias)  # five strengths, what is held out, and all together
    assert [step for step in told if step[2] == "examples read"] == [
        (n, 1200, "examples read") for n in (500, 1000, 1200)
    ]
    assert told[3:] == [(n, regressions, "regressions") for n in range(1, regressions + 1)]


def test_fresh_judgements_move_the_scores_of_their_like_without_a_refit(encoder: Encoder) -> None:
    scorer = Scorer.fit(examples(400), encoder)
    turned = [replace(e, acceptable=not e.acceptable, request_id=f"new{i}") for i, e in enumerate(examples(200, 5))]
    fresh = scorer.refreshed(turned)
    assert fresh.learned.facts["refreshed"] == 200 and fresh.learned.dense is scorer.learned.dense
    good = [e.features for e in examples(100, 6) if e.acceptable]
    assert np.mean([fresh.score(f) for f in good]) < np.mean([scorer.score(f) for f in good]) - 0.2
    assert fresh.neighbours(turned[7].features, 3)[0][0].startswith("new")
    same = scorer.refreshed([])
    assert same.score(good[0]) == scorer.score(good[0])


def test_what_was_strange_is_familiar_once_it_was_judged(encoder: Encoder) -> None:
    scorer = Scorer.fit([e for e in examples(400) if not set(HARD) & set(e.features.last_user.split())], encoder)
    strange = [e for e in examples(100, seed=3) if set(HARD) & set(e.features.last_user.split())]
    before = np.mean([scorer.look(e.features).novelty for e in strange])
    after = np.mean([scorer.refreshed(strange).look(e.features).novelty for e in strange])
    assert after < before


def test_a_second_look_of_an_older_version_is_refused_and_said_so(encoder: Encoder, tmp_path: Path) -> None:
    Scorer.fit(examples(80, signals=True), encoder).save(tmp_path)
    numbers = tmp_path / "scorer.json"
    kept = orjson.loads(numbers.read_bytes())
    kept["head"] = {"weights": [0.1] * 17, "bias": 0.0, "knows_partial": False}
    numbers.write_bytes(orjson.dumps(kept))
    with pytest.raises(BundleError, match="an older version's, and a new bundle is needed"):
        Scorer.load(tmp_path, encoder)


def test_a_second_look_with_a_weight_too_few_is_refused(encoder: Encoder, tmp_path: Path) -> None:
    Scorer.fit(examples(80, signals=True), encoder).save(tmp_path)
    numbers = tmp_path / "scorer.json"
    kept = orjson.loads(numbers.read_bytes())
    kept["head"]["whole"]["weights"].pop()
    numbers.write_bytes(orjson.dumps(kept))
    with pytest.raises(BundleError, match="16 weights, not 15"):
        Scorer.load(tmp_path, encoder)


def test_fitting_twice_gives_the_same(encoder: Encoder) -> None:
    found = [Scorer.fit(examples(80, signals=True), encoder, seed=7) for _ in range(2)]
    fresh = examples(5, seed=4)
    assert [found[0].score(e.features) for e in fresh] == [found[1].score(e.features) for e in fresh]


def test_a_scorer_for_another_encoder_or_a_damaged_one_is_refused(
    scorer: Scorer, encoder: Encoder, tmp_path: Path
) -> None:
    scorer.save(tmp_path)
    with pytest.raises(BundleError, match="not for"):
        Scorer.load(tmp_path, None)
    weights = tmp_path / "scorer.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(BundleError, match="cannot be read"):
        Scorer.load(tmp_path, encoder)
    weights.write_bytes(whole)
    arrays = load_file(weights)
    save_file({**arrays, "dense": arrays["dense"][:-1]}, weights)
    with pytest.raises(BundleError, match="shape"):
        Scorer.load(tmp_path, encoder)
    weights.unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        Scorer.load(tmp_path, encoder)


def test_thirty_examples_are_enough_to_learn_something(encoder: Encoder) -> None:
    fresh = examples(200, seed=5)
    scorer = Scorer.fit(examples(30), encoder)
    scores = [scorer.score(e.features) for e in fresh]
    assert auroc(scores, [e.acceptable for e in fresh]) > 0.65
    assert all(0.01 < s < 0.99 for s in scores)


@pytest.mark.parametrize(("outcomes", "expected"), [([], 0.5), ([True] * 8, 0.9), ([False] * 8, 0.1), ([True], 2 / 3)])
def test_one_outcome_alone_gives_its_share_by_laplace(
    outcomes: list[bool], expected: float, encoder: Encoder, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    scorer = Scorer.fit([Example(request(rng, False), None, y) for y in outcomes], encoder)
    f = request(rng, True)
    assert scorer.score(f) == pytest.approx(expected)
    scorer.save(tmp_path)
    assert Scorer.load(tmp_path, encoder).score(f) == scorer.score(f)


def test_it_works_without_an_encoder() -> None:
    scorer, fresh = Scorer.fit(examples(200), None), examples(200, seed=6)
    assert auroc([scorer.score(e.features) for e in fresh], [e.acceptable for e in fresh]) > 0.8


def test_weights_count(encoder: Encoder) -> None:
    data = examples(200, noise=0.4)
    heavy = [Example(e.features, None, e.acceptable, 20.0 if e.acceptable else 1.0) for e in data]
    f = data[0].features
    assert Scorer.fit(heavy, encoder).score(f) > Scorer.fit(data, encoder).score(f) + 0.2


def test_traffic_of_another_kind_scores_lower(scorer: Scorer) -> None:
    usual = [scorer.score(request(np.random.default_rng(i), False)) for i in range(20)]
    strange = [
        "Schreibe ein Gedicht über den Herbst in Königsberg",
        "SELECT max(x) FROM t GROUP BY y HAVING count(*) > 3",
        "напиши сочинение о войне и мире",
    ]
    scores = [scorer.score(extract({"messages": [{"role": "user", "content": t}]})) for t in strange]
    assert max(scores) < np.mean(usual) / 2


def test_scores_need_no_scikit_learn_signals_may_be_missing_for_some(encoder: Encoder) -> None:
    data = examples(120, signals=True) + examples(120, seed=8)
    scorer = Scorer.fit(data, encoder)
    assert (scorer.held_out_[120:] == scorer.held_out_accept_[120:]).all()
    assert (scorer.held_out_[:120] != scorer.held_out_accept_[:120]).all()


def test_calibration_never_turns_a_ranking_round() -> None:
    y = np.array([True] * 20 + [False] * 20)
    wrong_way = Platt.fit(np.where(y, -2.0, 2.0), y, np.ones(40))
    assert wrong_way.slope == 0 and wrong_way(3.0) == pytest.approx(0.5)
    right_way = Platt.fit(np.where(y, 2.0, -2.0), y, np.ones(40))
    assert right_way(2.0) == pytest.approx(21 / 22, abs=1e-3)  # Platt's smoothed target, no more


def test_the_prior_ranks_by_declared_structure() -> None:
    def prior(text: str, **body: object) -> float:
        return prior_score(extract({"messages": [{"role": "user", "content": text}], **body}))

    easy, hard = prior("Classify this message: where is my card?"), prior("Prove why x^2 + 3 = 7 holds; " * 30)
    assert 0 < hard < 0.3 and 0.5 < easy < 1
    assert prior("Classify: hello", tools=[{"type": "function"}] * 9) < prior("Classify: hello")


def test_signals_alone_decide_nothing_without_a_head(encoder: Encoder) -> None:
    scorer = Scorer.fit(examples(100), encoder)
    sure = Signals(tokens=1, sum_logprob=0, mean_logprob=0, min_logprob=0, first_logprob=0, q10_logprob=0,
                   q25_logprob=0, q50_logprob=0)  # fmt: skip
    assert scorer.learned.head is None and scorer.accept(0.3, sure) == 0.3


def test_a_frame_around_every_message_changes_little(encoder: Encoder, tmp_path: Path) -> None:
    frame = f"Topics are {', '.join(EASY + HARD)}. Say which of them the customer's message is about. Message: "

    def framed(e: Example) -> Example:
        body = {"messages": [{"role": "user", "content": frame + e.features.last_user}]}
        return Example(extract(body), None, e.acceptable)

    train, fresh = [framed(e) for e in examples(300)], [framed(e) for e in examples(300, seed=9)]
    scorer = Scorer.fit(train, encoder)
    assert auroc([scorer.score(e.features) for e in fresh], [e.acceptable for e in fresh]) > 0.85
    scorer.save(tmp_path)
    loaded = Scorer.load(tmp_path, encoder)
    assert [loaded.score(e.features) for e in fresh] == [scorer.score(e.features) for e in fresh]


def test_part_of_an_answer_never_raises_the_score_of_a_head_that_saw_whole_ones_only(scorer: Scorer) -> None:
    sure = summarise([-0.001] * 24, complete=True)
    partial = replace(sure, complete=False)
    assert scorer.accept(0.5, sure) > 0.6 and scorer.accept(0.5, partial) == 0.5
    shaky = summarise([-3.0] * 24, complete=False)
    assert scorer.accept(0.5, shaky) < 0.4


def test_what_never_varied_in_training_is_given_no_weight(encoder: Encoder) -> None:
    """In 32 bits the spread of hundreds of equal numbers comes out above zero, and one over it enormous."""
    readings = [Reader(encoder, Templates(), ANY_STRUCTURE)(e.features) for e in examples(1000)]
    scale = dict(zip(STRUCTURE, Blocks.fit(readings).scale.tolist(), strict=False))
    assert scale["log_turns"] == scale["images"] == 0 < scale["log_user_chars"] < 10
