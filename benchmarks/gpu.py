"""Training on one GPU, beside TRL's SFTTrainer with Liger's kernels at its best batch: one script of some minutes.

    python benchmarks/gpu.py --data ../shared/data --out benchmarks/results/gpu.json
    python benchmarks/gpu.py --data ../shared/data --out here.json --only smollm2 --only smollm2-trl

Every row is a process of its own, and is written as it ends, so that what is cut off keeps what it has. What is
measured: every step but the first two; FLOPs are 6 a weight and token (4 where adapters learn: no gradient is taken of
what stays) with attention's own, none for what is computed twice, over the GPU's dense bf16 peak.

- `smollm2`: SmolLM2-135M, every weight moving, 256 of GSM8K's rows a step; `-again` finds its layers compiled.
- `banking77`: SmolLM2-135M on 3,000 of GPT-4's labels, 3 epochs, all in (a process from its first import to the written
  student), with nothing compiled before; accuracy on 2,000 unseen messages.
- `1.5b`, `7b-lora`: Qwen2.5's shapes, random weights drawn on the GPU; 128 rows a step, and rows of 8,192 tokens with
  40 GB for the run.
- `soft`: 1.5b from a 7b teacher in the same process, 64 rows a step; tokens a second alone.
- `-trl`: the same tokens in TRL (`SFTTrainer`, `GKDTrainer`), a row for each batch that was tried.

TRL and Liger must be importable (`pip install trl liger-kernel`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness import Row, conditions, read_jsonl, write_result
from training_speed import SHAPES, encoded, peak_flops

SHAPES |= {
    "7b": {"hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28, "num_attention_heads": 28,
           "num_key_value_heads": 4, "vocab_size": 151_936},
}  # fmt: skip
LIGER = {"use_liger_kernel": True}
UNTIMED = 2
"""Steps that compile and record."""


@dataclass(frozen=True, slots=True)
class Part:
    """A row of the table. job: what `training_sides.py` is told beside the usual. long: tokens of a row; 0: GSM8K's."""

    name: str
    model: str
    job: Row
    batch: int = 256
    steps: int = 7
    long: int = 0
    seconds: int = 100


PARTS = (
    Part("smollm2", "smollm2", {"contender": "locum"}),
    Part("smollm2-again", "smollm2", {"contender": "locum"}),
    Part("smollm2-trl", "smollm2", {"contender": "TRL SFTTrainer", "at_once": [64, 128, 256], "trl": LIGER}, steps=4),
    Part("1.5b", "1.5b", {"contender": "locum"}, batch=128),
    Part("1.5b-trl", "1.5b", {"contender": "TRL SFTTrainer", "at_once": [32, 64], "trl": LIGER}, batch=128, steps=4),
    Part("banking77", "smollm2", {}),
    Part("7b-lora", "7b", {"contender": "locum", "tuning": "lora", "filled_gb": 39}, batch=4, steps=5, long=8192),
    Part(
        "soft", "1.5b", {"contender": "locum", "kind": "soft", "config": {"tokens_per_pass": 8192}}, batch=64, steps=6
    ),
    Part(
        "soft-trl", "1.5b", {"contender": "TRL GKDTrainer", "kind": "soft", "at_once": [8, 16], "trl": LIGER},
        batch=64, steps=4,
    ),
    Part(
        "7b-lora-trl", "7b",
        {"contender": "TRL SFTTrainer", "tuning": "lora", "at_once": [1],
         "trl": {**LIGER, "gradient_checkpointing": True}},
        batch=4, steps=4, long=8192,
    ),
)  # fmt: skip


def work(part: Part, args: argparse.Namespace, folder: Path) -> list[Row]:
    """The part's rows; what went wrong is one, too."""
    began = time.perf_counter()
    command = [sys.executable, str(Path(__file__).with_name("training_sides.py"))]
    given = None
    if part.name == "banking77":
        command = [sys.executable, __file__, "--data", str(args.data), "--student", args.student, "--banking77"]
    else:
        given = json.dumps(job(part, args, folder))
    env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled" / part.name.removesuffix("-again"))}
    try:
        done = subprocess.run(
            command, input=given, env=env, capture_output=True, text=True, check=False, timeout=part.seconds
        )
        out, error = done.stdout, done.stderr[-1500:] if done.returncode else ""
        if args.verbose:
            print(done.stderr[-4000:], flush=True)
    except subprocess.TimeoutExpired as late:
        out, error = (late.stdout or b"").decode(), f"ended after {part.seconds} s"
    found = [json.loads(line) for line in out.splitlines() if line.startswith('{"')]
    rows = [told(part, row, given) for row in found]
    if error:
        rows.append({"name": part.name, "failed": error})
    print(f"{part.name}: {time.perf_counter() - began:.1f} s", flush=True)
    return rows


def job(part: Part, args: argparse.Namespace, folder: Path) -> Row:
    student, rows = args.student, []
    if part.model != "smollm2":
        student = str(configured(part.model, folder / part.model, args.student))
    count = part.steps * part.batch
    if part.long:
        drawn = random.Random(0)
        rows = [(drawn.choices(range(150_000), k=part.long), 1) for _ in range(count)]
    else:
        rows = questions(args.student, args.data)[:count]
    teacher = str(configured("7b", folder / "7b", args.student)) if part.job.get("kind") == "soft" else ""
    return {
        "kind": "sft", "student": student, "teacher": teacher, "rows": rows, "batch": part.batch, "at_once": part.batch,
        "precision": "bf16", "device": "cuda", "out": str(folder / "out"), "drawn": part.model != "smollm2", **part.job,
    }  # fmt: skip


@cache
def questions(student: str, data: Path) -> list[tuple[list[int], int]]:
    """GSM8K's, as tokens with the answer's start; as many as any part takes."""
    return encoded(Path(student), data, "distinct", max(p.steps * p.batch for p in PARTS), 0)


def configured(name: str, folder: Path, tokenizer_of: str) -> Path:
    """A folder with the shape's configuration and a borrowed tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig

    config = LlamaConfig(**SHAPES[name], max_position_embeddings=8192, tie_word_embeddings=name != "7b")
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer_of).save_pretrained(folder)
    return folder


def told(part: Part, row: Row, given: str | None) -> Row:
    """What is reported of a run of `training_sides.py`."""
    if given is None or row.get("out_of_memory"):
        return {"name": part.name, **row}
    asked = json.loads(given)
    batch, seconds = asked["batch"], row["seconds"]
    timed = asked["rows"][UNTIMED * batch :]
    tokens, spent = sum(len(t) for t, _ in timed), sum(seconds[UNTIMED:])
    a_weight = 4 if asked.get("tuning") == "lora" else 6
    flops = computed(Path(asked["student"]), timed, a_weight)
    share = {} if asked["kind"] == "soft" else {"mfu": round(flops / spent / peak_flops(), 4)}
    return {
        "name": part.name, "tokens_per_second": round(tokens / spent), **share,
        "peak_gb": round(row["peak_mb"] / 1024, 2), "rows_at_once": row["at_once"],
        "seconds": [round(s, 3) for s in seconds], "losses": [round(x, 4) for x in row["losses"]],
        "compiled": row["compiled"], **row.get("passes", {}),
    }  # fmt: skip


def computed(student: Path, rows: Sequence[tuple[list[int], int]], a_weight: int) -> float:
    """FLOPs of training on the rows (PaLM, Chowdhery et al. 2022, appendix B)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(student)
    with torch.device("meta"):
        weights = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    pairs = sum(len(t) ** 2 / 2 for t, _ in rows)
    of_pairs = 12.0 * config.num_hidden_layers * config.hidden_size * pairs
    return float(a_weight) * weights * sum(len(t) for t, _ in rows) + of_pairs


def banking77(args: argparse.Namespace, began: float) -> Row:
    """From the labels to the written student, and how often that is right."""
    import torch
    from intents import DATASET, messages, policy

    from distiller.config import TrainConfig
    from distiller.data.dataset import build
    from distiller.training.loop import run

    rows = read_jsonl(args.data / "banking77.jsonl.gz")
    random.Random(0).shuffle(rows)
    taught = [r for r in rows if r["gpt4"]][:3000]
    unseen = [r for r in rows if not r["gpt4"]][:2000]
    with tempfile.TemporaryDirectory() as folder:
        imported = time.perf_counter()
        data = build(messages(taught, "gpt4"), policy(), Path(folder) / "data", DATASET)
        built = time.perf_counter()
        report = run(TrainConfig(epochs=3, device="cuda"), Path(args.student), data, Path(folder) / "student")
        ended = time.perf_counter()
        peak = torch.cuda.max_memory_allocated() / 2**30
        right = accuracy(Path(folder) / "student", messages(unseen, "gold"), [r["gold"] for r in unseen])
    return {
        "all_in_s": round(ended - began, 1), "imports_s": round(imported - began, 1),
        "dataset_s": round(built - imported, 1), "training_s": round(ended - built, 1),
        "steps_s": round(report.seconds, 1), "steps": report.steps, "rows": report.rows, "tokens": report.tokens,
        "accuracy": round(right, 4), "tested": len(unseen), "peak_gb": round(peak, 2), "dev_loss": report.dev_loss,
    }  # fmt: skip


def accuracy(student: Path, records: Sequence[Any], gold: Sequence[str]) -> float:
    """How often the student's likeliest answer is the intent."""
    import torch
    from intents import rows_of
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from router.engine.template import PromptTemplate

    tokenizer: Any = AutoTokenizer.from_pretrained(student)
    model: Any = AutoModelForCausalLM.from_pretrained(student, dtype=torch.bfloat16).to("cuda").eval()
    prompts, right, end = PromptTemplate(tokenizer), 0, tokenizer.eos_token_id
    asked = [prompts.prompt(row.messages) for row in rows_of(records)]
    order = sorted(range(len(asked)), key=lambda i: len(asked[i]))
    for first in range(0, len(order), 500):
        chosen = order[first : first + 500]
        longest = max(len(asked[i]) for i in chosen)
        ids = torch.tensor([[end] * (longest - len(asked[i])) + list(asked[i]) for i in chosen], device="cuda")
        mask = torch.tensor([[0] * (longest - len(asked[i])) + [1] * len(asked[i]) for i in chosen], device="cuda")
        said = model.generate(
            ids, attention_mask=mask, max_new_tokens=24, do_sample=False, eos_token_id=end, pad_token_id=end
        )
        texts = tokenizer.batch_decode(said[:, longest:], skip_special_tokens=True)
        right += sum(text.strip() == gold[i] for text, i in zip(texts, chosen, strict=True))
    return right / len(gold)


def main(given: Sequence[str] | None = None, began: float | None = None) -> None:
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("--data", type=Path, required=True, help="folder with gsm8k_gold_train and banking77")
    about.add_argument("--out", type=Path, help="the result file")
    about.add_argument("--student", help="SmolLM2-135M's folder; else it is made from its package")
    about.add_argument("--only", action="append", choices=[p.name for p in PARTS], help="repeat for several")
    about.add_argument("--verbose", action="store_true", help="what the processes say goes to the output, too")
    about.add_argument("--banking77", action="store_true", help=argparse.SUPPRESS)
    args = about.parse_args(given)
    if args.student is None:
        from router.engine.weights import base_student
        from router.settings import Settings

        args.student = str(base_student("smollm2-135m-instruct", Settings.from_env().cache))
    if args.banking77:
        print("\n" + json.dumps(banking77(args, began or time.perf_counter())), flush=True)
        return
    measured(args, lambda rows: write_result(args.out, "gpu", conditions(**installed()), rows) if args.out else None)


def measured(args: argparse.Namespace, write: Callable[[Sequence[Row]], None]) -> None:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            if not args.only or part.name in args.only:
                fresh = work(part, args, Path(folder))
                for row in fresh:
                    print(json.dumps(row), flush=True)
                rows += fresh
                write(rows)


def installed() -> Row:
    import torch

    packages = ("torch", "triton", "transformers", "trl", "liger-kernel")
    return {"gpu": torch.cuda.get_device_name(), **{name: version(name) for name in packages}}


if __name__ == "__main__":
    main(began=time.perf_counter())
