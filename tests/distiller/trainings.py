"""Trainings that are cut off or killed, and the weights that they end with."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from pydantic import TypeAdapter
from transformers import AutoModelForCausalLM

from distiller.config import TrainConfig
from distiller.data.dataset import Dataset
from distiller.training.launch import train
from distiller.training.loop import TrainReport

TRAIN = """
import json, sys
from pathlib import Path
from pydantic import TypeAdapter
from distiller.config import TrainConfig
from distiller.data.dataset import load
from distiller.training.launch import train
config, student, dataset, out = json.loads(sys.argv[1])
train(TypeAdapter(TrainConfig).validate_python(config), Path(student), load(Path(dataset)), Path(out))
"""


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict())


def killed(config: TrainConfig, base: Path, data: Dataset, out: Path, after: int) -> None:
    """Starts the run in a process of its own, kills that once so many steps are done, and waits until all that it
    started has ended."""
    job = [TypeAdapter(TrainConfig).dump_python(config, mode="json"), str(base), str(data.folder), str(out)]
    command = [sys.executable, "-c", TRAIN, json.dumps(job)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if (said := re.match(rf"training {out.name}: step (\d+)/", line)) and int(said[1]) >= after:
                process.kill()
                break
        else:
            pytest.fail("the run ended before it could be killed")
        process.stderr.read()  # ends when the last process that can write to it has


def cut_in_second_training(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[str]:
    """The second training that ``module`` starts is cut off; returns the names of all that it starts, as it does."""
    names: list[str] = []

    def cut(config: TrainConfig, start: Path, data: Dataset, out: Path) -> TrainReport:
        names.append(out.name)
        if len(names) == 2:
            raise KeyboardInterrupt
        return train(config, start, data, out)

    monkeypatch.setattr(module, "train", cut)
    return names
