"""Teachers of whom only the likeliest tokens are known: recorded ones, aligned by their bytes, and a vLLM server."""

from __future__ import annotations

from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from distiller.data.rows import DatasetRow
from distiller.training.batches import EncodedRow, encode, tensors
from distiller.training.losses.sparse_labels import SparseTargets
from distiller.training.teachers.recording import RecordedTeacher, spellings
from distiller.training.teachers.vllm import ServedTeacher
from distiller.training.teachers.weights import PROBE
from router.contracts.logprobs import Position, packed
from router.engine.template import PromptTemplate
from router.errors import TrainingError
from tests.distiller.tiny_student import TEMPLATE, row, student
from tests.fakes import FakeUpstream, Script, served

ASKED = [{"role": "user", "content": "hi"}]


def byte_level(merges: list[tuple[str, str]]) -> Any:
    """A byte-level tokenizer of 256 bytes and these merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {t: i for i, t in enumerate(["</s>", "<s>", *alphabet, *(a + b for a, b in merges)])}
    inner = Tokenizer(models.BPE(vocabulary, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def recorded(answer: str, *positions: tuple[str, dict[str, float]]) -> DatasetRow:
    """A row whose teacher emitted these tokens, at each the likeliest ones with their probabilities."""
    told = [
        Position(token.encode(), log(top.get(token, 1e-3)), tuple((t.encode(), log(p)) for t, p in top.items()))
        for token, top in positions
    ]
    return replace(row(ASKED, answer), top_logprobs=packed(told), teacher="openai/other")


def known(
    teacher: RecordedTeacher, rows: list[DatasetRow], tokenizer: Any
) -> tuple[list[EncodedRow], list[SparseTargets | None]]:
    made, _ = encode(rows, PromptTemplate(tokenizer), 100)
    return made, teacher(rows, made, tokenizer)


def names(targets: SparseTargets, tokenizer: Any) -> list[dict[str, float]]:
    """Each position's named tokens, as text, with their probabilities."""
    found = zip(targets.ids.tolist(), targets.log_p.exp().tolist(), strict=True)
    return [{tokenizer.decode([i]): round(p, 3) for i, p in zip(ids, ps, strict=True) if i >= 0} for ids, ps in found]


def test_every_kind_of_vocabulary_is_spelt_out(tmp_path: Path) -> None:
    tokenizer = byte_level([("a", "b")])
    spelt = spellings(tokenizer)
    text = " ab ü\n日</s>"
    assert b"".join(spelt[t] for t in tokenizer(text, add_special_tokens=False)["input_ids"]) == text.encode()
    words = AutoTokenizer.from_pretrained(student(tmp_path))
    assert spellings(words)[words.convert_tokens_to_ids("cards")] == b"cards"
    pieces = Tokenizer(models.BPE({"▁a": 0, "<0xE2>": 1, "b": 2}, []))
    assert spellings(PreTrainedTokenizerFast(tokenizer_object=pieces)) == [b" a", b"\xe2", b"b"]


def test_tokens_meet_where_both_begin_and_end_together() -> None:
    tokenizer = byte_level([("h", "e"), ("l", "l"), ("he", "ll")])  # "hello" is hell + o
    (made,), (targets,) = known(
        RecordedTeacher(5, "tail", "exact"),
        [
            recorded(
                "hello by",
                ("hell", {"hell": 0.6, "he": 0.3, "hello": 0.1}),  # the student has no "hello"
                ("o", {"o": 0.9}),
                (" by", {" by": 1.0}),  # " ", "b" and "y" to the student: apart
            )
        ],
        tokenizer,
    )
    assert [tokenizer.decode([t]) for t in made.tokens[made.start :]] == ["hell", "o", " ", "b", "y", "</s>"]
    assert targets is not None
    assert names(targets, tokenizer) == [{"hell": 0.6, "he": 0.3}, {"o": 0.9}, {}, {}, {}, {}]


def test_the_end_of_the_turn_is_learnt_where_it_was_told() -> None:
    tokenizer = byte_level([])
    rows = [recorded("a", ("a", {"a": 0.8, "</s>": 0.1}), ("</s>", {"</s>": 0.7, "b": 0.2}))]
    _, (targets,) = known(RecordedTeacher(5, "tail", None), rows, tokenizer)
    assert targets is not None
    assert names(targets, tokenizer) == [{"a": 0.8, "</s>": 0.1}, {"</s>": 0.7, "b": 0.2}]


def test_an_emitted_token_has_a_name_unless_its_being_drawn_counts() -> None:
    tokenizer = byte_level([])
    rows = [recorded("a", ("a", {"b": 0.9, "c": 0.05}))]
    _, (tail,) = known(RecordedTeacher(1, "tail", None), rows, tokenizer)
    _, (drawn,) = known(RecordedTeacher(1, "sampled", None), rows, tokenizer)
    assert tail is not None and drawn is not None
    assert names(tail, tokenizer) == [{"b": 0.9, "a": 0.001}, {}] and names(drawn, tokenizer) == [{"b": 0.9}, {}]
    assert drawn.drawn.all()
    cold = [replace(rows[0], options={"temperature": 0})]
    assert not known(RecordedTeacher(1, "sampled", None), cold, tokenizer)[1][0].drawn.any()  # type: ignore[union-attr]


def test_another_tokenizers_tokens_are_refused_unless_they_may_be_aligned() -> None:
    tokenizer = byte_level([("h", "e")])
    rows = [recorded("hello", ("hell", {"hell": 1.0}), ("o", {"o": 1.0}))]
    with pytest.raises(TrainingError, match=r"student's tokenizer is not that of openai/other.*alignment: exact"):
        known(RecordedTeacher(5, "tail", None), rows, tokenizer)
    foreign = [recorded("he", ("he", {"he": 0.5, "hell": 0.25, "hello": 0.25}))]  # spelt alike, but it has other tokens
    with pytest.raises(TrainingError, match="student's tokenizer is not"):
        known(RecordedTeacher(5, "tail", None), foreign, tokenizer)
    assert known(RecordedTeacher(5, "tail", "exact"), foreign, tokenizer)[1][0] is not None


def test_rows_without_recorded_tokens_are_known_nothing_of_beside_those_with() -> None:
    tokenizer = byte_level([])
    rows = [recorded("a", ("a", {"a": 0.75})), row(ASKED, "bc"), recorded("d", ("d", {"d": 0.5, "e": 0.25}))]
    made, targets = known(RecordedTeacher(5, "tail", None), rows, tokenizer)
    assert targets[1] is None
    part = tensors([replace(m, known=t) for m, t in zip(made, targets, strict=True)], "cpu", share=False)
    assert part.known is not None and part.known.ids.shape == (2 + 3 + 2, 2)
    spelt = names(part.known, tokenizer)
    assert spelt == [{"a": 0.75}, {}, {}, {}, {}, {"d": 0.5, "e": 0.25}, {}]
    assert tensors(made, "cpu").known is None


def vllm(tokenizer: Any, **broken: Any) -> FakeUpstream:
    """A server that answers as vLLM does: every prompt token at 0.6, the one after it in the vocabulary at 0.3."""
    fake = FakeUpstream("teacher-7b")

    def answer(body: dict[str, Any]) -> Script:
        if isinstance(body["prompt"], str):
            return Script(
                raw=orjson.dumps({"tokens": tokenizer(body["prompt"], add_special_tokens=False)["input_ids"]})
            )
        told: list[dict[str, Any] | None] = [None]
        for token in body["prompt"][1:]:
            named = {token: 0.6, token + 1: 0.3}
            told.append({str(t): {"logprob": log(p), "rank": 1, "decoded_token": "?"} for t, p in named.items()})
        return Script(raw=orjson.dumps({"choices": [{"text": "x", "prompt_logprobs": told} | broken]}))

    fake.answer = answer
    return fake


def test_a_server_tells_the_likeliest_tokens_at_the_answers_positions_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(student(tmp_path))
    rows = [row(ASKED, "cards travel"), row(ASKED, "billing")]
    made, _ = encode(rows, PromptTemplate(tokenizer), 100)
    fake = vllm(tokenizer)
    monkeypatch.setenv("SCORING_KEY", "sk-secret")
    with served(fake) as url:
        first, second = ServedTeacher(f"{url}/v1", 2, "SCORING_KEY")(rows, made, tokenizer)
    assert first is not None and second is not None
    cards, travel, end = (tokenizer.convert_tokens_to_ids(t) for t in ("cards", "travel", "</s>"))
    assert first.ids.tolist() == [[cards, cards + 1], [travel, travel + 1], [end, end + 1]]
    assert torch.allclose(first.log_p.exp(), torch.tensor([[0.6, 0.3]] * 3)) and not first.drawn.any()
    assert len(second.ids) == 2
    probe, *scored = [seen.body for seen in fake.seen]
    assert probe["prompt"] == PROBE
    assert [list(m.tokens) for m in made] == [body["prompt"] for body in scored]
    assert all(body["prompt_logprobs"] == 2 and body["model"] == "teacher-7b" for body in scored)
    assert all(seen.headers["authorization"] == "Bearer sk-secret" for seen in fake.seen)


def test_a_server_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    tokenizer, other = AutoTokenizer.from_pretrained(student(tmp_path)), byte_level([])
    rows = [row(ASKED, "cards")]
    with served(vllm(other)) as url, pytest.raises(TrainingError, match="is not that of teacher-7b at"):
        ServedTeacher(f"{url}/v1", 2)(rows, encode(rows, PromptTemplate(tokenizer), 100)[0], tokenizer)


def test_a_server_that_tells_nothing_or_fails_is_said_to(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(student(tmp_path))
    rows = [row(ASKED, "cards")]
    made = encode(rows, PromptTemplate(tokenizer), 100)[0]
    for broken in ({"prompt_logprobs": None}, {"prompt_logprobs": [None, {}]}, {"prompt_logprobs": 3}):
        with served(vllm(tokenizer, **broken)) as url, pytest.raises(TrainingError, match="no prompt_logprobs as vLLM"):
            ServedTeacher(f"{url}/v1", 2)(rows, made, tokenizer)
    failing = FakeUpstream("teacher-7b")
    failing.always(status=500)
    with served(failing) as url, pytest.raises(TrainingError, match="answered 500"):
        ServedTeacher(f"{url}/v1", 2)(rows, made, tokenizer)
