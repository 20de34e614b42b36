"""What a round pays for before its dataset is built: requests that the teacher writes, answers of a label teacher."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any
from uuid import uuid4

from distiller.labels.run import LabelReport, label
from distiller.rounds.material import Material
from distiller.synthesis.run import synthesize
from router.scoring.text.encoder import Encoder


@dataclass(slots=True)
class Purchases:
    """``usd`` is what both cost together."""

    usd: Decimal = Decimal(0)
    synthetic_run: str | None = None
    labels: LabelReport | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """For a round's reasons."""
        return (self.labels.words,) if self.labels else ()

    def make(self, material: Material, encoder: Callable[[], Encoder | None], seed: int) -> None:
        """As the policy says; each once, though the round be killed and go on.

        Raises:
            TrainingError: the teacher is to write, and its answers may not be trained on.
            PolicyError: nobody knows what one of them costs, or it has no key.
        """
        if usd := material.policy.distil.synthetic.usd:
            self._have_written(usd, material, encoder, seed)
        if material.policy.distil.labels_from is not None:
            self._have_labelled(material, encoder)

    def _have_written(self, usd: Decimal, material: Material, encoder: Callable[[], Encoder | None], seed: int) -> None:
        """For weak kinds, before the dataset that takes it in is built."""
        run = str(material.work.stage("synthesis-run", lambda: {"run": uuid4().hex})["run"])
        where = material.policy, material.settings, os.environ

        def write() -> dict[str, Any]:
            return asdict(synthesize(*where, usd=usd, encoder=encoder, tell=material.tell, seed=seed, run=run))

        self.usd += Decimal(material.work.stage("synthesize", write)["cost_usd"])
        self.synthetic_run = run

    def _have_labelled(self, material: Material, encoder: Callable[[], Encoder | None]) -> None:
        """What may not be learnt from the served teacher."""
        where = material.policy, material.settings, os.environ

        def answered() -> dict[str, Any]:
            wanted = material.unlabelled()
            return asdict(label(*where, wanted, material.work.folder, encoder=encoder, tell=material.tell))

        self.labels = LabelReport(**material.work.stage("labels", answered))
        self.usd += Decimal(self.labels.cost_usd)
