"""New kinds of requests, found among the strange ones and named by what sets them apart.

Leader clustering (Hartigan 1975, "Clustering Algorithms", ch. 3) in one pass over unit vectors, oldest first:
a request joins the nearest centre if it is near enough, or else is the first of a new one. So a cluster
grows but never moves, and it keeps its name: that is made of words of its first members alone.

Names end in metrics and on screens, so no word may come from one person: each must stand in several
different requests of several sources.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from router.contracts.decision import Tier
from router.scoring.text.encoder import Encoder
from router.scoring.text.ngrams import BITS, hashed_ngrams

NEAR = 0.4
"""Cosine from which on a request belongs to a centre; what all usual traffic shares is taken out before."""
LEAST_REQUESTS = 10
"""Different requests that make a cluster."""
LEAST_SHARED = 3
"""Different requests, and different sources, that a word of a name stands in."""
MOST_CLUSTERS = 8
NAME_WORDS = 3
LEAST_USUAL = 20
"""A word that stands in none of fewer usual requests counts as if there were so many."""
LEAST_LIFT = 3.0
"""How many times as often as in usual traffic a word of a name stands in the cluster."""
_PLAIN = (
    "aan about after all also although and any are auf aus avec been before bei being between bien both but can "
    "cannot ces che chi com come comment como con could cómo dans das dat degli del della dem den der des did die "
    "does doing dos each een ein eine einen ele elle est este find following for from für get give given got "
    "haben had has hat have her here het him his hoe how ich ik into ist its just kann las les let leur like los "
    "made mais make many may mein meine meu mijn mit mon more most much must muy más need nicht niet nos not nous "
    "now não oder off one only ook other our out over par para pas per pero please plus por pour que qui qué same "
    "ser ses she should sich sie sin some son sono sont such sur than that the their them then there these they "
    "this those through too two uma una und under une uno use used using van very von voor vous want was wat way "
    "wenn were what when where which while who why wie will wird with would yet you your zijn zum zur"
)
PLAIN = frozenset(_PLAIN.split())
"""Words that say nothing of what a request is about."""
_HASHED_BITS = 9
_WORD = re.compile(r"[^\W\d_]{3,30}")  # letters alone: no number, id or address ever names a cluster

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StrangeRequest:
    """One request as clustering sees it.

    ``text`` is the last user turn's, redacted as the policy says; ``source`` tells people apart (the client's
    word for its user, else the conversation). ``place`` is its number in the traffic, for shares;
    ``acceptable`` the audit's verdict on the student, None without one.
    """

    request_id: str
    at: float
    text: str
    source: str
    place: int
    tier: Tier | None
    acceptable: bool | None = None


@dataclass(frozen=True, slots=True)
class Cluster:
    """A new kind of requests. ``first_at`` is unix time; ``share`` is of all traffic since then;
    ``to_teacher`` is the share that the teacher answered; of ``audited`` ones the student's answer was
    acceptable ``acceptable`` times."""

    name: str
    requests: int
    first_at: float
    share: float
    to_teacher: float
    audited: int
    acceptable: int


def vectors(texts: Sequence[str], encoder: Encoder | None) -> F32:
    """The texts' directions: float32, (n, d), of length one; by hashed words where there is no encoder."""
    if encoder is not None:
        return np.stack([encoder.encode(t) for t in texts]) if texts else np.zeros((0, encoder.dim), np.float32)
    size = 1 << _HASHED_BITS
    counts = [np.bincount(hashed_ngrams("", t) >> (BITS - _HASHED_BITS), minlength=size) for t in texts]
    return _unit(np.array(counts, np.float32).reshape(-1, size))


def clusters(
    strange: Sequence[StrangeRequest], usual: Sequence[StrangeRequest], requests: int, encoder: Encoder | None
) -> list[Cluster]:
    """The largest new kinds among ``strange`` requests, at most ``MOST_CLUSTERS``, largest first.

    ``usual`` is a sample of the other requests, for contrast; ``requests`` is how many there were in all,
    on the scale of ``StrangeRequest.place``.
    """
    strange = sorted(strange, key=lambda s: s.at)
    known, centre = _word_shares(usual), np.float32(0)
    if usual:
        centre = vectors([s.text for s in usual], encoder).mean(axis=0)
    groups = _grouped(_unit(vectors([s.text for s in strange], encoder) - centre))
    sources = min(LEAST_SHARED, len({s.source for s in (*strange, *usual)}))
    found: dict[str, list[StrangeRequest]] = defaultdict(list)
    for group in groups:
        members = [strange[i] for i in group]
        if name := _name(members, known, sources):
            found[name] += members
    largest = sorted(found.items(), key=lambda item: -len(item[1]))[:MOST_CLUSTERS]
    return [_cluster(name, members, requests) for name, members in largest]


def kinds(seen: Sequence[StrangeRequest], encoder: Encoder | None) -> dict[str, list[StrangeRequest]]:
    """All traffic parted into kinds, by name, oldest first; what is of none that has a name is left out.

    As ``clusters`` does it, but each kind is set apart from all others instead of from usual traffic.
    """
    seen = sorted(seen, key=lambda s: s.at)
    directions = vectors([s.text for s in seen], encoder)
    groups = _grouped(_unit(directions - directions.mean(axis=0))) if seen else []
    times = Counter(word for s in seen for word in _words(s.text))
    sources = min(LEAST_SHARED, len({s.source for s in seen}))
    found: dict[str, list[StrangeRequest]] = defaultdict(list)
    for group in groups:
        members = [seen[i] for i in group]
        own, others = Counter(word for m in members for word in _words(m.text)), len(seen) - len(members)
        known = {word: (times[word] - n) / max(1, others) for word, n in own.items()} | {"": float(others)}
        if name := _name(members, known, sources):
            found[name] += members
    return dict(found)


def _unit(rows: F32) -> F32:
    unit: F32 = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit


def _grouped(rows: F32) -> list[list[int]]:
    """Indices of ``rows`` (n, d), of length one, by nearest centre."""
    sums = np.zeros_like(rows)  # of each group's members: only the first len(groups) rows count
    centres = np.zeros_like(rows)
    groups: list[list[int]] = []
    for i, row in enumerate(rows):
        near = centres[: len(groups)] @ row
        g = int(near.argmax()) if groups else 0
        if not groups or near[g] < NEAR:
            g = len(groups)
            groups.append([])
        groups[g].append(i)
        sums[g] += row
        centres[g] = sums[g] / max(float(np.linalg.norm(sums[g])), 1e-12)
    return groups


def _different(members: Iterable[StrangeRequest]) -> list[StrangeRequest]:
    """One of each text: a client that says the same again and again is no new kind of requests."""
    return list({" ".join(m.text.lower().split()): m for m in reversed(list(members))}.values())[::-1]


def _name(members: Sequence[StrangeRequest], known: dict[str, float], sources: int) -> str:
    """The words that set the first members apart from usual traffic; none where they are too few, or too alike
    to what is known."""
    first = list(islice(_different(members), LEAST_REQUESTS))
    if len(first) < LEAST_REQUESTS:
        return ""
    people: dict[str, set[str]] = defaultdict(set)
    times: Counter[str] = Counter()
    for member in first:
        for word in _words(member.text):
            people[word].add(member.source)
            times[word] += 1
    floor = 1 / (1 + max(known.get("", 0.0), LEAST_USUAL))
    worth = {}
    for word, n in times.items():
        share, usual = n / len(first), max(known.get(word, 0.0), floor)
        if n >= LEAST_SHARED and len(people[word]) >= sources and share >= LEAST_LIFT * usual:
            worth[word] = share * np.log(share / usual)
    return " ".join(sorted(worth, key=lambda w: (-worth[w], w))[:NAME_WORDS])


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower())) - PLAIN


def _word_shares(usual: Sequence[StrangeRequest]) -> dict[str, float]:
    """The share of requests that each word stands in; under ``""`` how many requests there are."""
    times = Counter(word for s in usual for word in _words(s.text))
    return {word: n / len(usual) for word, n in times.items()} | {"": float(len(usual))}


def _cluster(name: str, members: Sequence[StrangeRequest], requests: int) -> Cluster:
    first = min(members, key=lambda m: m.place)
    verdicts = [m.acceptable for m in members if m.acceptable is not None]
    return Cluster(
        name=name,
        requests=len(members),
        first_at=min(m.at for m in members),
        share=len(members) / max(len(members), requests - first.place),
        to_teacher=sum(m.tier is Tier.TEACHER for m in members) / len(members),
        audited=len(verdicts),
        acceptable=sum(verdicts),
    )
