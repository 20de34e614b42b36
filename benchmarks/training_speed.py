"""Tokens per second and peak memory of Locum's training loop beside TRL's, on the same tokens, in one run.

Each contender trains in a process of its own, in turns, several times over: the same student, rows, batch,
precision and optimiser, every weight moving, loss on the answers alone. `sft` is training on texts (TRL's
SFTTrainer), `soft` learns the whole distribution of a teacher in the same process (TRL's GKDTrainer on the
dataset's answers, forward KL; its DistillationTrainer only learns from samples of its own). Two kinds of rows:
`distinct` prompts (GSM8K's questions with their worked solutions) and prompts with a `shared` beginning
(Banking77 messages behind one system prompt), as one application's traffic has it.

    python benchmarks/training_speed.py --data ../shared/data --out benchmarks/results/training_speed.json
    python benchmarks/training_speed.py --data ../shared/data --device cuda --model smollm2 --model 0.5b --model 1.5b

TRL computes 4 rows of a step at once and adds gradients up: here that took half of the time and of the memory of
all 16 at once, and its attention by torch (sdpa) less than written out (eager).

`locum, small passes` computes 256 tokens at once instead of 2,048: slower, in less memory. `locum, embedding held` is
how Locum trains by itself; it does less work and is no part of the comparison.
Model FLOP utilisation is told on GPUs: 6 FLOPs a weight and token, attention's own beside it, over the GPU's dense
bf16 peak. TRL is installed into the cache folder the first time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import Row, conditions, read_jsonl, write_result
from intents import messages, rows_of, worked
from rich.console import Console
from rich.progress import track
from rich.table import Table

from distiller.training.batches import encode
from router.engine.template import PromptTemplate
from router.engine.weights import base_student
from router.settings import Settings

TRL = ("trl==1.16.0", "datasets==5.2.0", "dill==0.4.1", "multiprocess==0.70.19", "pandas==3.1.1")
SHAPES: dict[str, dict[str, int]] = {
    "0.5b": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
             "num_key_value_heads": 2, "vocab_size": 151_936},
    "1.5b": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
             "num_key_value_heads": 2, "vocab_size": 151_936},
}  # fmt: skip
"""Random weights in the shapes of Qwen2.5's small models."""
LONGEST = 4096
"""Tokens of a row: more than any has."""
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
CONTENDERS = {
    "sft": ("locum", "locum, small passes", "locum, embedding held", "TRL SFTTrainer"),
    "soft": ("locum", "locum, small passes", "TRL GKDTrainer"),
}


def trl_folder(settings: Settings) -> Path:
    """TRL and what it needs beside our own packages, installed where it is missing."""
    folder = settings.cache.absolute() / "benchmarks" / TRL[0].replace("==", "-")
    if not (folder / "ready").exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(folder)]
        subprocess.run([*pip, *TRL], check=True)
        (folder / "ready").touch()
    return folder


def encoded(student: Path, data: Path, kind: str, count: int, seed: int) -> list[tuple[list[int], int]]:
    """``count`` rows drawn by ``seed``, as tokens with the answer's start."""
    from transformers import AutoTokenizer

    distinct = kind == "distinct"
    rows = read_jsonl(data / ("gsm8k_gold_train.jsonl.gz" if distinct else "banking77.jsonl.gz"))
    drawn = random.Random(seed).sample(rows, count)
    records = worked(drawn) if distinct else messages(drawn, "gold")
    made, _ = encode(rows_of(records), PromptTemplate(AutoTokenizer.from_pretrained(student)), LONGEST)
    return [(list(row.tokens), row.start) for row in made]


def shaped(name: str, folder: Path, tokenizer_of: Path) -> Path:
    """A model of this shape with random weights and a borrowed tokenizer, as a Hugging Face folder."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES[name], max_position_embeddings=4096, tie_word_embeddings=True)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer_of).save_pretrained(folder)
    return folder


def flops(student: Path, rows: Sequence[tuple[list[int], int]]) -> float:
    """FLOPs of one training pass over the rows: 6 a weight and token, and 12 x layers x width for each pair of
    tokens of which one attends to the other (PaLM, Chowdhery et al. 2022, appendix B)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(student)
    with torch.device("meta"):
        weights = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    tokens = sum(len(t) for t, _ in rows)
    pairs = sum(len(t) ** 2 / 2 for t, _ in rows)
    return 6.0 * weights * tokens + 12.0 * config.num_hidden_layers * config.hidden_size * pairs


def run(job: Row, settings: Settings) -> Row:
    """One contender's run. Raises CalledProcessError with its last words shown."""
    env = dict(os.environ)
    if job["contender"].startswith("TRL"):
        env["PYTHONPATH"] = f"{trl_folder(settings)}:{env.get('PYTHONPATH', '')}"
    command = [sys.executable, str(Path(__file__).with_name("training_sides.py"))]
    done = subprocess.run(command, input=json.dumps(job), env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-3000:], file=sys.stderr)
        done.check_returncode()
    found: Row = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def figures(about: Row, runs: Sequence[Row], job: Row, total: float) -> Row:
    """The best run counts; a first step, which compiles and warms up, is left out of the time and the tokens."""
    tokens = sum(len(t) for t, _ in job["rows"][job["batch"] :])
    speeds = [tokens / sum(r["seconds"][1:]) for r in runs]
    made = {
        **about,
        "tokens_per_second": round(max(speeds), 1),
        "median_tokens_per_second": round(statistics.median(speeds), 1),
        "peak_mb": round(max(r["peak_mb"] for r in runs)),
        "first_loss": round(runs[0]["losses"][0], 4),
        "last_loss": round(runs[0]["losses"][-1], 4),
    }
    if job["device"].startswith("cuda"):
        made["mfu"] = round(total / sum(len(t) for t, _ in job["rows"]) * max(speeds) / peak_flops(), 4)
    return made


def peak_flops() -> float:
    import torch

    name = torch.cuda.get_device_name()
    return next((peak for known, peak in PEAK_FLOPS.items() if known in name), float("nan"))


def compare(args: argparse.Namespace, console: Console) -> list[Row]:
    """Every model, kind and rows: contenders in turns, ``args.rounds`` times over."""
    settings, found = Settings.from_env(), list[Row]()
    base = base_student("smollm2-135m-instruct", settings.cache)
    with tempfile.TemporaryDirectory() as folder:
        for model in args.model:
            student = base if model == "smollm2" else shaped(model, Path(folder) / model, base)
            for rows in args.rows:
                tokens = encoded(base, args.data, rows, args.steps * args.batch, args.seed)
                for kind in args.kind:
                    job = {
                        "kind": kind, "student": str(student), "teacher": str(student), "rows": tokens,
                        "batch": args.batch, "at_once": args.trl_at_once, "precision": args.precision,
                        "device": args.device, "out": str(Path(folder) / "out"),
                    }  # fmt: skip
                    runs: dict[str, list[Row]] = {c: [] for c in CONTENDERS[kind]}
                    turns = [c for _ in range(args.rounds) for c in runs]
                    for c in track(turns, f"{model}, {kind}, {rows}", console=console, transient=True):
                        runs[c].append(run({**job, "contender": c}, settings))
                    total = flops(student, tokens)
                    about = {"model": model, "kind": kind, "rows": rows}
                    made = [figures({"name": c, **about}, r, job, total) for c, r in runs.items()]
                    rival = next(r for r in made if r["name"].startswith("TRL"))
                    for row in made:
                        row["times_trl"] = round(row["tokens_per_second"] / rival["tokens_per_second"], 2)
                        row["memory_to_trl"] = round(row["peak_mb"] / rival["peak_mb"], 2)
                    found += made
    return found


def show(rows: Sequence[Row], console: Console) -> None:
    columns = ("model", "kind", "rows", "name", "tokens_per_second", "times_trl", "peak_mb", "memory_to_trl", "mfu")
    view = Table(title="Training", header_style="bold")
    for column in columns:
        view.add_column(column)
    for row in rows:
        view.add_row(*(str(row.get(c, "")) for c in columns))
    console.print(view)


def main(given: Sequence[str] | None = None) -> None:
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("--data", type=Path, required=True, help="folder with gsm8k_gold_train and banking77")
    about.add_argument("--out", type=Path, help="the result file; without it only the table is shown")
    about.add_argument("--model", action="append", choices=["smollm2", *SHAPES], help="repeat for several")
    about.add_argument("--kind", action="append", choices=list(CONTENDERS))
    about.add_argument("--rows", action="append", choices=["distinct", "shared"])
    about.add_argument("--device", default="cpu")
    about.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    about.add_argument("--batch", type=int, default=16, help="rows a step")
    about.add_argument("--trl-at-once", type=int, default=4, help="rows that TRL computes at once of these")
    about.add_argument("--steps", type=int, default=3, help="the first is not timed")
    about.add_argument("--rounds", type=int, default=2)
    about.add_argument("--seed", type=int, default=0)
    args = about.parse_args(given)
    args.model, args.kind = args.model or ["smollm2"], args.kind or list(CONTENDERS)
    args.rows = args.rows or ["distinct", "shared"]
    console = Console()
    rows = compare(args, console)
    show(rows, console)
    if args.out:
        how: dict[str, Any] = {k: v for k, v in vars(args).items() if k not in ("data", "out")}
        write_result(args.out, "training_speed", conditions(**how, rival=TRL[0], gpu=gpu(args.device)), rows)


def gpu(device: str) -> str | None:
    import torch

    return torch.cuda.get_device_name() if device.startswith("cuda") else None


if __name__ == "__main__":
    main()
