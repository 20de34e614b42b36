"""One contender of `training_speed.py`, in a process of its own: reads a job from its standard input, trains on
it, and prints what that took as one line of JSON.

A job has `contender`, `kind` (sft or soft), `student` and `teacher` (Hugging Face folders), `rows` (token ids and
the answer's start), `batch`, `at_once` (TRL's rows a pass), `precision` (bf16 or fp32), `device` and `out`. Every
contender gets the same tokens, the same number of rows a step, and moves every weight with AdamW, unless `tuning` is
lora. `config` has more of Locum's configuration, `trl` more of TRL's. `drawn`: the folders have a configuration alone,
whose random weights are drawn on the device. `filled_gb`: so much of a GPU's memory is not for this process.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

Job = dict[str, Any]
LEARNING_RATE = 2e-4
SMALL_PASS = 256
"""Tokens that `locum, small passes` computes at once; by itself Locum takes what is quickest."""


def peak_mb(device: str) -> float:
    """The most memory this process held: on the GPU where it trained there, else resident."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def locum(job: Job) -> list[float]:
    """Each step's seconds in Locum's loop; every weight moves, where the product by itself holds the embedding."""
    from distiller.config import TrainConfig
    from distiller.training.batches import EncodedRow
    from distiller.training.learner import Learner
    from distiller.training.methods.factory import make
    from router.policy.distillation import HardLabelSettings, SoftLabelSettings

    soft = SoftLabelSettings(teacher=job["teacher"] or "none", divergence="forward", mix=1.0)
    config = TrainConfig(
        method=soft if job["kind"] == "soft" else HardLabelSettings(),
        tuning=job.get("tuning", "full"),
        max_tokens=max(len(tokens) for tokens, _ in job["rows"]),
        learning_rate=LEARNING_RATE,
        precision=job["precision"],
        device=job["device"],
        freeze_embeddings=job["contender"] == "locum, embedding held",
        tokens_per_pass=SMALL_PASS if job["contender"] == "locum, small passes" else None,
    )
    config = replace(config, **job.get("config", {}))
    rows = [EncodedRow(tuple(tokens), start, 1.0) for tokens, start in job["rows"]]
    student = Path(job["student"])
    learner = Learner(config, student, make(config, student))
    took = []
    steps = [rows[at : at + job["batch"]] for at in range(0, len(rows), job["batch"])]
    learner.expect(steps)
    for step, chosen in enumerate(steps):
        began = time.perf_counter()
        loss = learner.step(chosen, LEARNING_RATE, step)
        took.append(time.perf_counter() - began)
        job["losses"].append(float(loss))
        job["compiled"].append(graphs())
    job["passes"] = {"tokens_per_pass": learner.tokens_per_pass, **(asdict(learner.shape) if learner.shape else {})}
    return took


def graphs() -> int:
    """How many graphs torch has compiled so far."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def draw() -> None:
    """Has a folder's model drawn on the GPU from now on, instead of read."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    def drawn(folder: str, *, dtype: Any = None, attn_implementation: str = "sdpa", **_: Any) -> Any:
        torch.manual_seed(0)
        with torch.device("cuda"):
            config = AutoConfig.from_pretrained(folder)
            return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attn_implementation)

    AutoModelForCausalLM.from_pretrained = drawn


def trl(job: Job) -> list[float]:
    """Each step's seconds in TRL: SFTTrainer, or GKDTrainer on the dataset's own answers (lmbda 0)."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    common = {
        "output_dir": job["out"],
        "per_device_train_batch_size": job["at_once"],
        "gradient_accumulation_steps": job["batch"] // job["at_once"],
        "max_steps": len(job["rows"]) // job["batch"],
        "learning_rate": LEARNING_RATE,
        "bf16": job["precision"] == "bf16",
        "use_cpu": job["device"] == "cpu",
        "optim": "adamw_torch_fused",
        "gradient_checkpointing": False,
        "dataloader_pin_memory": job["device"] != "cpu",
        "max_length": None,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "seed": 0,
        "train_sampling_strategy": "sequential",
    }
    common |= job.get("trl", {})
    adapted = job.get("tuning") == "lora"
    model = AutoModelForCausalLM.from_pretrained(job["student"], dtype=torch.bfloat16 if adapted else torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(job["student"])
    labels = [[-100] * start + tokens[start:] for tokens, start in job["rows"]]
    rows = {"input_ids": [tokens for tokens, _ in job["rows"]], "labels": labels}
    if job["kind"] == "sft":
        from trl import SFTConfig, SFTTrainer

        args = SFTConfig(**common, packing=False)
        trainer: Any = SFTTrainer(
            model, args=args, train_dataset=Dataset.from_dict(rows), processing_class=tokenizer,
            peft_config=adapters() if adapted else None,
        )  # fmt: skip
    else:
        from trl.experimental.gkd import GKDConfig, GKDTrainer

        teacher = AutoModelForCausalLM.from_pretrained(
            job["teacher"], dtype=torch.bfloat16 if job["precision"] == "bf16" else torch.float32
        )
        trainer = GKDTrainer(
            model, teacher, args=GKDConfig(**common, lmbda=0.0, beta=0.0, temperature=1.0),
            train_dataset=Dataset.from_dict(rows), processing_class=tokenizer, data_collator=padded(tokenizer),
        )  # fmt: skip
    took: list[float] = []
    trainer.add_callback(clock(took, job))
    trainer.train()
    return took


def adapters() -> Any:
    """As Locum's are by themselves."""
    from peft import LoraConfig

    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


def clock(took: list[float], job: Job) -> Any:
    """A callback of TRL's trainers that notes each step's seconds and loss."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        began = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if job["device"].startswith("cuda"):
                torch.cuda.synchronize()
            took.append(time.perf_counter() - self.began)

        def on_log(self, *_: Any, logs: dict[str, Any], **__: Any) -> None:
            if "loss" in logs:
                job["losses"].append(float(logs["loss"]))

    return Clock()


def padded(tokenizer: Any) -> Any:
    """Rows of tokens and labels as tensors padded on the right: what TRL's own collator makes of such rows."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        ids = [torch.tensor(r["input_ids"]) for r in rows]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=tokenizer.pad_token_id or 0),
            "attention_mask": pad_sequence([torch.ones_like(i) for i in ids], batch_first=True),
            "labels": pad_sequence([torch.tensor(r["labels"]) for r in rows], batch_first=True, padding_value=-100),
        }

    return collate


HELD: list[Any] = []


def filled(gigabytes: float) -> int:
    """Takes so much of the GPU's memory away; returns the bytes."""
    import torch

    if gigabytes:
        HELD.append(torch.empty(int(gigabytes * 2**30), dtype=torch.uint8, device="cuda"))
    return int(gigabytes * 2**30)


def forget(device: str) -> None:
    """So that the next run's memory is its own."""
    import gc

    import torch

    if device.startswith("cuda"):
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def main() -> None:
    job = json.load(sys.stdin)
    if job.get("drawn"):
        draw()
    filler = filled(job.get("filled_gb", 0))
    for at_once in job["at_once"] if isinstance(job["at_once"], list) else [job["at_once"]]:
        job |= {"losses": [], "compiled": [], "at_once": at_once}
        try:
            took = (trl if job["contender"].startswith("TRL") else locum)(job)
        except RuntimeError as error:  # of a GPU's memory; anything else ends the run
            if "out of memory" not in str(error):
                raise
            print("\n" + json.dumps({"at_once": at_once, "out_of_memory": True}), flush=True)
            continue
        told = {name: job[name] for name in ("losses", "compiled", "passes", "at_once") if name in job}
        peak = peak_mb(job["device"]) - filler / 2**20
        print("\n" + json.dumps({"seconds": took, **told, "peak_mb": peak}), flush=True)
        forget(job["device"])


if __name__ == "__main__":
    main()
