"""New kinds of requests are found and named, and no name tells on anybody."""

import itertools
from collections.abc import Sequence

import pytest

from router.contracts.decision import Tier
from router.scoring.statistics.clusters import (
    LEAST_REQUESTS,
    MOST_CLUSTERS,
    Cluster,
    StrangeRequest,
    clusters,
    kinds,
    vectors,
)
from router.scoring.text.encoder import Encoder, load_encoder
from router.settings import Settings

USUAL = [
    f"{ask} {thing} {n}"
    for n, (ask, thing) in enumerate(
        itertools.product(
            ("where is my", "please block my", "what does it cost to replace the", "how do i activate a"),
            ("card", "new card", "account", "transfer", "virtual card", "payment"),
        )
    )
]
PODS = [
    f"{start} {end}"
    for start in ("why does my kubernetes pod", "my kubernetes pod in staging will", "a pod on the kubernetes cluster")
    for end in ("restart all night", "crash at start", "stay pending", "lose its volume", "miss a secret")
]
POEMS = [
    f"write a {kind} poem about the {what}"
    for kind in ("short", "sad", "long")
    for what in ("sea", "moon", "rain", "dusk")
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(Settings.from_env().cache)


def seen(texts: Sequence[str], *, start: int = 0, people: int = 100, tier: Tier = Tier.TEACHER) -> list[StrangeRequest]:
    return [
        StrangeRequest(f"r{n}", float(n), text, f"person {n % people}", n, tier) for n, text in enumerate(texts, start)
    ]


def found(strange: Sequence[StrangeRequest], encoder: Encoder | None, requests: int = 1000) -> list[Cluster]:
    return clusters(strange, seen(USUAL, start=500), requests, encoder)


@pytest.mark.parametrize("with_encoder", [True, False])
def test_each_new_kind_is_named_by_what_sets_it_apart(encoder: Encoder, with_encoder: bool) -> None:
    mixed = [text for pair in itertools.zip_longest(PODS, POEMS) for text in pair if text]
    names = [c.name for c in found(seen(mixed), encoder if with_encoder else None)]
    assert len(names) == 2
    assert "kubernetes" in names[0] and "pod" in names[0] and "poem" in names[1]


def test_a_cluster_tells_what_became_of_it(encoder: Encoder) -> None:
    members = seen(PODS, start=100)
    judged = [
        StrangeRequest(m.request_id, m.at, m.text, m.source, m.place, m.tier, n == 0) for n, m in enumerate(members[:3])
    ]
    (cluster,) = found([*judged, *members[3:], *seen(PODS, start=115, tier=Tier.STUDENT)], encoder, requests=160)
    assert (cluster.requests, cluster.first_at, cluster.to_teacher) == (30, 100.0, 0.5)
    assert (cluster.audited, cluster.acceptable) == (3, 1)
    assert cluster.share == 0.5  # of the 60 requests since its first


def test_a_few_strange_requests_are_no_kind_yet(encoder: Encoder) -> None:
    assert found(seen(PODS[: LEAST_REQUESTS - 1]), encoder) == []
    assert found([], encoder) == []
    assert clusters(seen(PODS), [], 15, encoder)[0].requests == 15  # nothing usual is known yet


def test_the_same_request_again_and_again_is_one(encoder: Encoder) -> None:
    assert found(seen(["why does my kubernetes pod restart"] * 50), encoder) == []
    assert found(seen([f"{'Why' if n % 2 else 'why'}  does my pod restart" for n in range(50)]), encoder) == []


def test_one_persons_words_never_name_a_cluster(encoder: Encoder) -> None:
    assert found(seen(PODS, people=2), encoder) == []  # several people are there, but only two of them say so
    secret = [f"{text}, says Wolfeschlegelstein" for text in PODS]
    mixed = [
        StrangeRequest(s.request_id, s.at, text, "person 1" if n < 4 else s.source, s.place, s.tier)
        for n, (s, text) in enumerate(zip(seen(PODS, start=2), [*secret[:4], *PODS[4:]], strict=True))
    ]
    (cluster,) = found(mixed, encoder)
    assert "wolfeschlegelstein" not in cluster.name and "kubernetes" in cluster.name


def test_one_users_own_home_names_clusters_all_the_same(encoder: Encoder) -> None:
    usual = seen(USUAL, start=500, people=1)
    (cluster,) = clusters(seen(PODS, people=1), usual, 1000, encoder)
    assert "kubernetes" in cluster.name


def test_a_name_has_no_numbers_and_stays_as_the_cluster_grows(encoder: Encoder) -> None:
    numbered = [f"{text} {n}5551234 ID{n}77" for n, text in enumerate(PODS)]
    (early,), (late,) = found(seen(numbered[:10]), encoder), found(seen(numbered), encoder)
    assert early.name == late.name and early.requests == 10 and late.requests == 15
    assert not any(c.isdigit() for c in late.name)


def test_there_are_never_more_than_a_few(encoder: Encoder) -> None:
    topics = ["volcano", "violin", "tractor", "cheese", "glacier", "chess", "harbour", "beetle", "comet", "saddle"]
    texts = [f"{topic} {topic} facts {n}" for topic in topics for n in "abcdefghijkl"]
    named = found(seen(texts), encoder)
    assert len(named) <= MOST_CLUSTERS
    assert len({c.name for c in named}) == len(named)


def test_texts_without_words_have_no_direction() -> None:
    assert not vectors(["", "  "], None).any() and vectors([], None).shape[0] == 0


def test_all_traffic_parts_into_kinds_each_set_apart_from_the_others(encoder: Encoder) -> None:
    everything = seen([*PODS, *POEMS, *USUAL])
    parted = kinds(everything, encoder)
    pods = next(name for name in parted if "kubernetes" in name)
    assert {s.text for s in parted[pods]} == set(PODS)
    poems = next(name for name in parted if "poem" in name)
    assert {s.text for s in parted[poems]} == set(POEMS)
    assert sum(map(len, parted.values())) <= len(everything)
    assert kinds([], encoder) == {}
    assert list(kinds(everything, None)) == ["poem write sad"]  # by words alone only what is said alike is a kind
