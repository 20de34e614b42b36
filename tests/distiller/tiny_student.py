"""A random student of a few thousand weights, with a real tokenizer and chat template, made in a moment."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from distiller.data.dataset import Dataset, build
from distiller.data.rows import DatasetRow
from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import Answer, AnswerKind, Record, Rights
from router.policy.policy import Policy

TEMPLATE = (
    "{% for m in messages %}{{ '<s> ' + m['role'] + ' ' + m['content'] + ' </s> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s> assistant ' }}{% endif %}"
)
TEAMS = ("billing", "cards", "travel")
WORDS = ("<pad>", "<s>", "</s>", "<unk>", "system", "user", "assistant", "locum", *TEAMS)


def words(n: int = 200) -> list[str]:
    return [*WORDS, *(f"w{i}" for i in range(n))]


def student(folder: Path, *, tied: bool = True, seed: int = 0) -> Path:
    """A Llama with 2 layers, 4 heads over 2 key heads, width 64, saved as a Hugging Face folder."""
    vocabulary = {w: i for i, w in enumerate(words())}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.1,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def policy(**teacher: object) -> Policy:
    return Policy.model_validate(
        {
            "name": "default",
            "student": {"model": "tiny", "engine": "embedded", "usd_per_million": {"input": 0.02, "output": 0.06}},
            "teacher": {"model": "openai/gpt-5", "training_rights": "allowed", **teacher},
            "objective": {"parity": {}},
        }
    )


def record(
    n: int,
    prompt: str,
    answer: str,
    *,
    audited: bool = False,
    conversation: str | None = None,
    user: str | None = None,
    rights: Rights = Rights.ALLOWED,
    model: str = "openai/gpt-5",
    at: float | None = None,
) -> Record:
    """One request that the teacher answered."""
    return Record(
        request_id=f"req-{n}",
        conversation_id=conversation or f"conv-{n}",
        created_at=float(n) if at is None else at,
        policy="default",
        policy_version="1",
        features_version="1",
        user=user,
        decision=Decision(tier=Tier.TEACHER, reason=Reason.SCORE, audited=audited, propensity=0.1),
        tier=Tier.TEACHER,
        reason=Reason.SCORE,
        request={"model": "default", "messages": [{"role": "user", "content": prompt}], "temperature": 0},
        answers=[
            Answer(
                tier=Tier.TEACHER,
                kind=AnswerKind.SERVED,
                model=model,
                message={"role": "assistant", "content": answer},
                finish_reason="stop",
                training_rights=rights,
            )
        ],
    )


def routing_records(n: int) -> list[Record]:
    """Requests whose team follows from their second word: something that a tiny student can learn."""
    return [record(i, f"w{100 + i % 90} w{i % 3} w{3 + i // 3 % 80} w{i % 7 + 90}", TEAMS[i % 3]) for i in range(n)]


def dataset(folder: Path, n: int = 120) -> Dataset:
    return build(routing_records(n), policy(), folder)


def row(messages: list[dict[str, str]], answer: str, weight: float = 1.0) -> DatasetRow:
    return DatasetRow(
        request_id="r",
        conversation_id="c",
        created_at=0.0,
        messages=messages,
        answer=answer,
        teacher="t",
        rights="allowed",
        weight=weight,
    )
