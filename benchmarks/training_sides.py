"""One contender of `training_speed.py`, in a process of its own: reads a job from its standard input, trains on
it, and prints what that took as one line of JSON.

A job has `contender`, `kind` (sft or soft), `student` and `teacher` (Hugging Face folders), `rows` (token ids and
the answer's start), `batch`, `at_once` (TRL's rows a pass), `precision` (bf16 or fp32), `device` and `out`. Every
contender gets the same tokens, the same number of rows a step, and moves every weight with AdamW.
"""

from __future__ import annotations

import json
import resource
import sys
import time
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

    soft = SoftLabelSettings(teacher=job["teacher"], divergence="forward", mix=1.0)
    config = TrainConfig(
        method=soft if job["kind"] == "soft" else HardLabelSettings(),
        learning_rate=LEARNING_RATE,
        precision=job["precision"],
        device=job["device"],
        freeze_embeddings=job["contender"] == "locum, embedding held",
        tokens_per_pass=SMALL_PASS if job["contender"] == "locum, small passes" else None,
    )
    rows = [EncodedRow(tuple(tokens), start, 1.0) for tokens, start in job["rows"]]
    student = Path(job["student"])
    learner = Learner(config, student, make(config, student))
    took = []
    for step, at in enumerate(range(0, len(rows), job["batch"])):
        began = time.perf_counter()
        loss = learner.step(rows[at : at + job["batch"]], LEARNING_RATE, step)
        took.append(time.perf_counter() - began)
        job["losses"].append(float(loss))
    return took


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
    model = AutoModelForCausalLM.from_pretrained(job["student"], dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(job["student"])
    labels = [[-100] * start + tokens[start:] for tokens, start in job["rows"]]
    rows = {"input_ids": [tokens for tokens, _ in job["rows"]], "labels": labels}
    if job["kind"] == "sft":
        from trl import SFTConfig, SFTTrainer

        args = SFTConfig(**common, packing=False)
        trainer: Any = SFTTrainer(model, args=args, train_dataset=Dataset.from_dict(rows), processing_class=tokenizer)
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


def main() -> None:
    job = json.load(sys.stdin)
    job["losses"] = []
    took = (trl if job["contender"].startswith("TRL") else locum)(job)
    found = {"seconds": took, "losses": job["losses"], "peak_mb": peak_mb(job["device"])}
    print("\n" + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
