import re

import pytest
from tokenizers import Tokenizer

from router.scoring.text import tokens as module
from router.scoring.text.encoder import load_encoder
from router.scoring.text.static_encoder import NAME
from router.scoring.text.tokens import Tokens
from router.settings import Settings
from tests.router.scoring.texts import MARKS, PLAIN, mixtures


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    cache = Settings.from_env().cache
    load_encoder(cache)  # distilled once per machine
    return Tokenizer.from_file(str(cache / "encoder" / NAME / "tokenizer.json"))


def by_words(tokenizer: Tokenizer, text: str) -> list[int]:
    """The long way: each word and sign through the whole tokenizer."""
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    return [i for w in words for i in tokenizer.encode(w, add_special_tokens=False).ids]


@pytest.mark.parametrize("text", PLAIN)
def test_they_are_the_tokenizers_tokens_the_first_time_and_the_second(tokenizer: Tokenizer, text: str) -> None:
    expected, tokens = tokenizer.encode(text, add_special_tokens=False).ids, Tokens(tokenizer)
    assert tokens.of(text).tolist() == expected == tokens.of(text).tolist()


def test_any_mixture_of_characters_gives_what_its_words_give_one_by_one(tokenizer: Tokenizer) -> None:
    tokens = Tokens(tokenizer)
    for text in [MARKS, *mixtures(300)]:
        assert tokens.of(text).tolist() == by_words(tokenizer, text), text


def test_forgetting_changes_no_tokens_and_memory_is_bounded(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 50)
    tokens = Tokens(tokenizer)
    for text in (*PLAIN, *mixtures(100), *PLAIN):
        assert tokens.of(text).tolist() == by_words(tokenizer, text)
        assert len(tokens) <= 50 and len(tokens._older) <= 50


def test_what_comes_again_is_not_forgotten(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 20)
    tokens = Tokens(tokenizer)
    for i in range(200):
        tokens.of(f"invoice {i}")
    assert "invoice" in tokens and "1" not in tokens


def test_a_piece_too_long_to_come_again_is_not_kept(tokenizer: Tokenizer) -> None:
    tokens = Tokens(tokenizer)
    tokens.of(f"{'a1-' * 40} {'你好' * 40} short")
    assert max(map(len, tokens)) <= module.LONGEST and "short" in tokens


def test_half_a_surrogate_pair_is_read_like_any_unknown_sign(tokenizer: Tokenizer) -> None:
    assert len(Tokens(tokenizer).of("a\ud800b")) == 3
