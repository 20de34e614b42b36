"""Tickets whose team follows from one word: traffic that a two-layer student learns in seconds, and such a student."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from pathlib import Path

from router.contracts.decision import Decision, Reason, Tier
from router.contracts.records import Answer, AnswerKind, Record, Rights, Usage
from router.policy.policy import Policy
from router.settings import Settings
from router.store.access import open_store

TEAMS = {"card": "billing", "refund": "billing", "password": "access", "login": "access", "parcel": "delivery"}
FILLER = [a + b for a in ("ka", "lo", "mi", "ru", "te", "vo", "zi") for b in ("ban", "der", "fin", "gul", "hop", "sam")]
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def make_student(folder: Path) -> Path:
    """Saves a random Llama whose tokenizer knows the tickets' words in ``folder``."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet)
    words = [*TEAMS, *TEAMS.values(), *FILLER]
    tokenizer.train_from_iterator([f"{w} {w}" for w in words for _ in range(5)], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
    fast.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True,
        eos_token_id=fast.eos_token_id, pad_token_id=fast.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def policy_of(student: Path) -> Policy:
    return Policy.model_validate(
        {
            "name": "tickets",
            "student": {
                "model": str(student),
                "engine": "embedded",
                "form": "int8",
                "usd_per_million": {"input": 0.01, "output": 0.02},
            },
            "teacher": {
                "model": "recorded",
                "training_rights": "allowed",
                "usd_per_million": {"input": 1, "output": 10},
            },
            "objective": {"parity": {"at_least": 0.9, "confidence": 0.9}},
            "scorer": {"encoder": "transformer"},
            "distil": {"min_new_records": 300, "usd_per_hour": 1},
        }
    )


def traffic(n: int, seed: int, label: Callable[[str], str] = TEAMS.__getitem__) -> list[Record]:
    """``n`` teacher-answered tickets, a quarter of them audited; ``label`` answers those that are trained on."""
    rng = random.Random(seed)
    made = []
    for i in range(n):
        word, audited = rng.choice(list(TEAMS)), i % 4 == 0
        words = [*rng.choices(FILLER, k=7), word]
        rng.shuffle(words)
        answer = Answer(
            tier=Tier.TEACHER,
            kind=AnswerKind.SERVED,
            model="recorded",
            message={"role": "assistant", "content": TEAMS[word] if audited else label(word)},
            finish_reason="stop",
            usage=Usage(input_tokens=20, output_tokens=1),
            training_rights=Rights.ALLOWED,
        )
        decision = Decision(tier=Tier.TEACHER, reason=Reason.COLD_START, propensity=0.25, audited=audited)
        request = {"model": "tickets", "messages": [{"role": "user", "content": " ".join(words)}]}
        made.append(
            Record(
                request_id=f"r{seed}-{i}",
                conversation_id=f"c{seed}-{i}",
                created_at=time.time() - 100_000 + 5_000 * seed + i,
                policy="tickets",
                policy_version="v",
                features_version="1",
                decision=decision,
                tier=Tier.TEACHER,
                reason=Reason.COLD_START,
                request=request,
                answers=[answer],
            )
        )
    return made


def write(settings: Settings, policy: Policy, records: list[Record]) -> None:
    async def flush() -> None:
        for record in records:
            store.append(record)
        await store.flush()

    store = open_store(settings, [policy])
    asyncio.run(flush())
    store.close()
