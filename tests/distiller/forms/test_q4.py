"""Four bits a weight: the bytes are GGUF's own, and what is lost is less than by plain rounding."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from distiller.forms.q4 import LEVELS, q4_0

Q4_0 = gguf.GGMLQuantizationType.Q4_0


def test_a_block_is_its_scale_and_two_levels_a_byte() -> None:
    block = np.zeros((1, 32), np.float32)
    block[0, 0], block[0, 1], block[0, 16] = -4.0, 1.0, 3.5  # by 8 levels, the largest makes the scale 0.5
    (packed,) = q4_0(block)
    assert packed[:2].view(np.float16).tolist() == [0.5]
    assert packed[2] == (7 + 8) << 4 | (-8 + 8)  # 3.5 / 0.5 = 7 in the high half, -4 / 0.5 = -8 in the low one
    assert packed[3] == 8 << 4 | (2 + 8)
    assert packed[4:].tolist() == [8 << 4 | 8] * 14
    assert gguf.quants.dequantize(packed[None], Q4_0).tolist() == block.tolist()


def test_what_lies_on_levels_comes_back_to_the_last_bit() -> None:
    rng = np.random.default_rng(0)
    levels = rng.integers(-8, 8, (5, 96)).astype(np.float32)
    levels[:, ::32] = -8
    weight = levels * np.float32(0.25)
    assert np.array_equal(gguf.quants.dequantize(q4_0(weight), Q4_0), weight)


def test_nothing_is_written_for_nothing() -> None:
    assert gguf.quants.dequantize(q4_0(np.zeros((2, 64), np.float32)), Q4_0).any() == np.False_


@pytest.mark.parametrize("shape", ["normal", "heavy"])
def test_every_block_loses_at_most_what_plain_rounding_does_and_all_less(shape: str) -> None:
    rng = np.random.default_rng(1)
    drawn = rng.normal(size=(64, 512)) if shape == "normal" else rng.laplace(size=(64, 512))
    weight = drawn.astype(np.float32)

    def lost(packed: np.ndarray) -> np.ndarray:
        return ((weight - gguf.quants.dequantize(packed, Q4_0)) ** 2).reshape(-1, 32).sum(axis=1)

    plain, chosen = lost(gguf.quants.quantize(weight, Q4_0)), lost(q4_0(weight))
    assert (chosen <= plain * (1 + 1e-5)).all()
    assert chosen.sum() < 0.95 * plain.sum()
    assert LEVELS[0] == 8.0, "the plain rounding is among the tries"
