"""Which method learns as the settings say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distiller.config import TrainConfig
from distiller.training.batches import end_of_turn
from distiller.training.losses.divergences import Divergence
from distiller.training.methods.base import Method
from distiller.training.methods.confidence import Confidence
from distiller.training.methods.feature import Feature, checked, even
from distiller.training.methods.hard import HardLabel
from distiller.training.methods.on_policy import OnPolicy
from distiller.training.methods.reasoning import Reasoning
from distiller.training.methods.soft import Knowing, SoftLabel, SparseSoftLabel
from distiller.training.teachers.recording import RecordedTeacher
from distiller.training.teachers.vllm import ServedTeacher
from distiller.training.teachers.weights import OpenTeacher
from router.errors import TrainingError
from router.policy.distillation import (
    ConfidenceSettings,
    FeatureSettings,
    HardLabelSettings,
    OnPolicySettings,
    ProgressiveSettings,
    ReasoningSettings,
    SoftLabelSettings,
)

RECORDED = "recorded"


def make(config: TrainConfig, student: Path) -> Method:
    """The method of ``config.method`` for the student in the folder ``student``.

    Raises:
        TrainingError: its teacher cannot teach this student, or the method is a chain of trainings, not one
            (``distiller.training.chain``).
    """
    match config.method:
        case HardLabelSettings():
            return HardLabel()
        case ReasoningSettings(marker=marker, weight=weight):
            return Reasoning(marker, weight)
        case ConfidenceSettings(doubt=doubt):
            return Confidence(doubt)
        case SoftLabelSettings() as settings:
            return _soft(settings, student)
        case OnPolicySettings() as settings:
            return _on_policy(settings, config, student)
        case FeatureSettings() as settings:
            return _feature(settings, student)
        case ProgressiveSettings():
            raise TrainingError("progressive is a chain of trainings: one alone cannot be run by it")


def _soft(settings: SoftLabelSettings, student: Path) -> Method:
    url = settings.teacher.startswith(("http://", "https://"))
    if not url and settings.teacher != RECORDED:
        return _dense(settings, student)
    if settings.temperature != 1:
        raise TrainingError(
            "temperature must be 1 where only the likeliest tokens are known: of the rest, only the sum is"
        )
    if settings.rest != "tail" and settings.divergence != "forward":
        raise TrainingError(
            f"rest: {settings.rest} stands in for forward KL alone; {settings.divergence} needs rest: tail"
        )
    if url and settings.rest == "sampled":
        raise TrainingError("rest: sampled needs tokens that the teacher drew itself, as recorded ones are")
    knowing: Knowing = (
        ServedTeacher(settings.teacher.rstrip("/"), settings.top, settings.api_key_env)
        if url
        else RecordedTeacher(settings.top, settings.rest, settings.alignment)
    )
    return SparseSoftLabel(knowing, Divergence(settings.divergence, settings.mixed), settings.rest, settings.mix)


def _dense(settings: SoftLabelSettings | FeatureSettings, student: Path) -> SoftLabel:
    teacher = OpenTeacher(settings.teacher, student)
    return SoftLabel(teacher, Divergence(settings.divergence, settings.mixed), settings.temperature, settings.mix)


def _on_policy(settings: OnPolicySettings, config: TrainConfig, student: Path) -> OnPolicy:
    from transformers import AutoTokenizer

    return OnPolicy(
        teacher=OpenTeacher(settings.teacher, student),
        divergence=Divergence(settings.divergence, settings.mixed),
        share=settings.share,
        temperature=settings.sampling_temperature,
        max_new_tokens=settings.max_new_tokens,
        max_tokens=config.max_tokens,
        seed=config.seed,
        end=end_of_turn(AutoTokenizer.from_pretrained(student)),
    )


def _feature(settings: FeatureSettings, student: Path) -> Feature:
    from transformers import AutoConfig

    soft = _dense(settings, student)
    ours: Any = AutoConfig.from_pretrained(student).get_text_config()
    depths = ours.num_hidden_layers, soft.teacher.config.num_hidden_layers
    pairs = even(*depths) if settings.layers is None else checked(settings.layers, *depths)
    return Feature(soft, pairs, settings.weight, ours.hidden_size)
