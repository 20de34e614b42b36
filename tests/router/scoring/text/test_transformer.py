import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.text import transformer as module
from router.scoring.text.encoder import load_encoder
from router.scoring.text.features import extract
from router.scoring.text.transformer import WINDOW, TransformerEncoder
from tests.tiny import DIM, tiny_transformer


@pytest.fixture(scope="module")
def tiny() -> TransformerEncoder:
    return tiny_transformer()


def test_a_short_text_is_read_as_sentence_transformers_reads_it(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = load_encoder(tmp_path, "transformer")
    library = SentenceTransformer(str(module.source_folder()), device="cpu")
    texts = ["where is my new card", "Prove that √2 is irrational!", "the weather is nice"]
    found = np.stack([encoder.encode(text) for text in texts])
    assert found == pytest.approx(library.encode(texts), abs=1e-5)
    assert (found.shape, encoder.dim, encoder.slow) == ((3, 384), 384, True)


def test_the_whole_of_a_long_text_counts(tiny: TransformerEncoder) -> None:
    head, middle, tail = (" ".join(letter * WINDOW) for letter in "abc")
    whole = tiny.total(f"{head} {middle} {tail}")
    assert whole == pytest.approx((tiny.total(head) + tiny.total(middle) + tiny.total(tail)) / 3, abs=1e-5)


def test_windows_are_equally_long_so_that_no_token_counts_for_more(tiny: TransformerEncoder) -> None:
    one_more = " ".join("a" * WINDOW + "b")
    halves = tiny.total(" ".join("a" * (WINDOW // 2 + 1))), tiny.total(" ".join("a" * (WINDOW // 2 - 1) + "b"))
    assert tiny.total(one_more)[:DIM] == pytest.approx(sum(halves) / 2, abs=1e-2)


def test_no_text_is_the_zero_vector(tiny: TransformerEncoder) -> None:
    assert not tiny.encode("").any() and not tiny.encode(" \n").any()
    assert np.linalg.norm(tiny.encode("half a \ud83d pair")) == pytest.approx(1, abs=1e-5)


def test_a_scorer_reads_with_it_and_finds_it_again(tiny: TransformerEncoder, tmp_path: Path) -> None:
    texts = [f"{'prove the theorem' if n % 2 else 'what is my balance'} {n}" for n in range(80)]
    examples = [Example(extract({"messages": [{"role": "user", "content": t}]}), None, "what" in t) for t in texts]
    scorer = Scorer.fit(examples, tiny)
    scorer.save(tmp_path)
    loaded = Scorer.load_whole(tmp_path, {"transformer": tiny}.__getitem__)
    scores = [loaded.score(e.features) for e in examples]
    assert loaded.slow and scores == [scorer.score(e.features) for e in examples]
    assert min(scores[::2]) > max(scores[1::2])


def test_many_threads_read_the_same(tiny: TransformerEncoder) -> None:
    texts = [f"text number {n}" for n in range(64)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(tiny.encode, texts))
    assert np.array_equal(np.stack(found), np.stack([tiny_transformer().encode(t) for t in texts[:4]] + found[4:]))


def test_importing_it_loads_no_torch() -> None:
    code = "import sys, router.scoring.text.encoder; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
