import numpy as np
import pytest

from router.scoring.neighbours import LEAST, MEMORY, SAME_TASK, SHARPNESS, JudgedRequests, Neighbours, Opinion


def judged(n: int, seed: int = 0) -> JudgedRequests:
    """Requests in a space of 24 directions, tagged "", "x" or "y"."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 24)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    good = vectors[:, 0] > 0
    gains = np.where(good, 0.0, 1.0)
    return JudgedRequests(
        vectors, good, gains, [f"r{seed}-{i}" for i in range(n)], [("", "x", "y")[i % 3] for i in range(n)]
    )


def fitted(of: JudgedRequests) -> tuple[Neighbours, np.ndarray]:
    found = Neighbours.fit(of)
    assert found is not None
    return found


def by_hand(near: Neighbours, of: JudgedRequests, vector: np.ndarray, task: str, but: int | None = None) -> Opinion:
    """Kernel regression as it is written down, in 64 bits, over all that are remembered."""
    rows, row = near.rows.astype(float), near.project(vector[None])[0].astype(float)
    cosines = rows @ row
    weights = np.exp(SHARPNESS * (cosines - 1))
    kept = range(len(of.tasks) - len(rows), len(of.tasks))
    weights *= [SAME_TASK if task and of.tasks[i] == task else 1.0 for i in kept]
    there = np.arange(len(rows)) != but
    base = float(np.exp(SHARPNESS * (near.near - 1)))
    total = weights[there].sum() + base
    said = [(weights[there] @ v[there] + base * b) / total for v, b in zip(near.votes[1:], near.base, strict=True)]
    return Opinion(*said, cosines[there].max())


@pytest.mark.parametrize("task", ["", "x", "never seen"])
def test_neighbours_say_what_a_kernel_regression_by_hand_says(task: str) -> None:
    known, asked = judged(300), judged(20, seed=1)
    near, _ = fitted(known)
    for vector in asked.vectors:
        assert near.ask(vector, task) == pytest.approx(by_hand(near, known, vector, task), abs=1e-5)


@pytest.mark.parametrize("count", [300, MEMORY + 50])
def test_held_out_nobody_is_a_neighbour_of_himself(count: int) -> None:
    known = judged(count)
    near, told = fitted(known)
    assert told.shape == (count, 3) and len(near.rows) == min(count, MEMORY)
    forgotten = count - len(near.rows)
    for i in (0, 1, 40, count - 1):
        own = i - forgotten if i >= forgotten else None
        expected = by_hand(near, known, known.vectors[i], known.tasks[i], but=own)
        assert told[i] == pytest.approx(expected, abs=1e-5)


def test_too_few_are_no_neighbourhood_and_the_newest_are_remembered() -> None:
    assert Neighbours.fit(judged(LEAST - 1)) is None
    near, _ = fitted(judged(MEMORY))
    more = near.remember(judged(10, seed=2))
    assert more.names[-1] == "r2-9" and more.names[0] == "r0-10" and more.votes.shape == (3, MEMORY)
    assert more.nearest(judged(10, seed=2).vectors[4], 1)[0][0] == "r2-4"
