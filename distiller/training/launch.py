"""Starting a run in several processes, one a device: by torchrun on this machine, by Ray Train on a cluster.

What runs is read from a file: the processes share nothing else, and on a cluster they share the file system that the
dataset, the student and the result lie on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from distiller.config import TrainConfig
from distiller.data.dataset import Dataset, load
from distiller.training.loop import TrainReport, read_report, run
from distiller.training.progress import require
from router.errors import TrainingError
from router.logs import log_to_stderr


def train(config: TrainConfig, student: Path, dataset: Dataset, out: Path) -> TrainReport:
    """Trains the student in the folder ``student`` on the dataset and writes a Hugging Face folder to ``out``.

    A run that was cut off goes on from its last checkpoint, kept beside ``out``, if called again
    with the same arguments, and ends with the same weights.

    Raises:
        TrainingError: no training row fits into ``max_tokens``, the loss stopped being a number, one row alone takes
            more memory than there is, a package that the configuration asks for is missing, or a launched process
            failed.
    """
    require(config.track)
    if config.launcher != "none":
        _launched(config, student, dataset.folder, out)
        return read_report(out)
    return run(config, student, dataset, out)


def _launched(config: TrainConfig, student: Path, dataset: Path, out: Path) -> None:
    """Runs the training in ``config.processes`` processes and waits for its end.

    Raises:
        TrainingError: a process failed, or the launcher's package is missing.
    """
    plain = TypeAdapter(TrainConfig).dump_python(config, mode="json") | {"launcher": "none"}
    paths = {"student": student, "dataset": dataset, "out": out}
    job = {"config": plain, **{name: str(path.absolute()) for name, path in paths.items()}}
    {"torchrun": _torchrun, "ray": _ray}[config.launcher](job, config)


def work(job: dict[str, Any]) -> None:
    """What each process does."""
    config = TypeAdapter(TrainConfig).validate_python(job["config"])
    run(config, Path(job["student"]), load(Path(job["dataset"])), Path(job["out"]))


def _torchrun(job: dict[str, Any], config: TrainConfig) -> None:
    """torch's own launcher, which ends all processes when one fails, and itself when this process does."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={config.processes}"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        path.write_text(json.dumps(job))
        tethered = [sys.executable, "-m", "router.engine.tether", str(os.getpid()), *torchrun]
        done = subprocess.run([*tethered, "-m", "distiller.training.launch", str(path)], check=False)
    if done.returncode:
        raise TrainingError(f"training in {config.processes} processes failed (exit code {done.returncode}), see above")


def _ray(job: dict[str, Any], config: TrainConfig) -> None:
    """Ray Train, on the cluster that ``RAY_ADDRESS`` names, or one of its own on this machine."""
    if find_spec("ray") is None:
        raise TrainingError("--launcher ray needs its package: pip install 'locum[ray]'")
    import ray
    import torch
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    ours = not ray.is_initialized()
    gpu = torch.cuda.is_available() if config.device is None else config.device.startswith("cuda")
    with tempfile.TemporaryDirectory() as folder:
        trainer = TorchTrainer(
            work,
            train_loop_config=job,
            scaling_config=ScalingConfig(num_workers=config.processes, use_gpu=gpu),
            run_config=RunConfig(storage_path=folder),
        )
        try:
            trainer.fit()
        except Exception as error:  # of several kinds, none of which can be mended here
            raise TrainingError(f"training on Ray failed: {error}") from error
        finally:
            if ours:
                ray.shutdown()


if __name__ == "__main__":
    log_to_stderr()
    work(json.loads(Path(sys.argv[1]).read_bytes()))
