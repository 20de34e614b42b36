"""A Locum with everything on: a policy, and a bundle with a scorer fitted on requests like those sent."""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gateway.mock import STUDENT, TEACHER, TOKENS
from benchmarks.gateway.prompts import prompts
from router.contracts.bundles import MANIFEST, DatasetRef, Manifest, StudentRef, Thresholds, activate
from router.contracts.records import Signals
from router.scoring.model import Example
from router.scoring.scorer import Scorer
from router.scoring.text.encoder import load_encoder
from router.scoring.text.features import FEATURES_VERSION, extract
from router.settings import Settings

POLICY = "default"
NEVER = 2.0
TO_STUDENT = 0.8


def policy(port: int) -> dict[str, Any]:
    """Both tiers are the mock; a day's budget, audits, exploration, records with redacted text: all on."""
    url = f"http://127.0.0.1:{port}/v1"
    return {
        "name": POLICY,
        "student": {"model": STUDENT, "url": url, "usd_per_million": {"input": "0.02", "output": "0.06"}},
        "teacher": {
            "model": TEACHER,
            "url": url,
            "api_key_env": "TEACHER_KEY",
            "usd_per_million": {"input": 1, "output": 4, "cached_input": "0.1"},
        },
        "objective": {"usd_per_day": 1_000_000},
        "audit": {"rate": 0.02, "explore": 0.01, "usd_per_day": 1000},
        "accept": {"hold_tokens": 24},
    }


def fit(cache: Path) -> tuple[Scorer, dict[str, float]]:
    """A scorer with an answer head; and the thresholds that send none, ``TO_STUDENT`` and all of the
    requests to the student, by the names ``teacher``, ``mix`` and ``student``."""
    rng, examples = random.Random(11), []
    for text, easy in prompts():
        features = extract({"messages": [{"role": "user", "content": text}]})
        acceptable = rng.random() < (0.95 if easy else 0.2)
        examples.append(Example(features, _signals(rng, acceptable), acceptable))
    scorer = Scorer.fit(examples, load_encoder(cache))
    scores = [scorer.score(e.features) for e in examples]
    return scorer, {"teacher": NEVER, "mix": float(np.quantile(scores, 1 - TO_STUDENT)), "student": 0.0}


def _signals(rng: random.Random, acceptable: bool) -> Signals:
    """Certainty that tells the good answers from the bad, but not quite."""
    mean = -rng.uniform(0.05, 0.6 if acceptable else 1.2)
    count = len(TOKENS)
    return Signals(
        tokens=count, sum_logprob=mean * count, mean_logprob=mean, min_logprob=4 * mean, first_logprob=mean,
        q10_logprob=2.5 * mean, q25_logprob=1.5 * mean, q50_logprob=0.6 * mean, complete=rng.random() < 0.5,
    )  # fmt: skip


def install(home: Path, scorer: Scorer, route: float) -> None:
    """Makes the scorer live in this home; every answer of the student passes the second look."""
    bundles = Settings(home=home).bundles(POLICY)
    bundle = bundles / "b1"
    scorer.save(bundle / "scorer")
    manifest = Manifest(
        bundle_id="b1",
        policy=POLICY,
        created_at=0.0,
        student=StudentRef(model=STUDENT),
        features_version=FEATURES_VERSION,
        thresholds=Thresholds(route=route, accept=0.0),
        dataset=DatasetRef(sha256="0", train=0, dev=0, holdout=0),
        cost_usd=str(Decimal(0)),
    )
    (bundle / MANIFEST).write_text(manifest.model_dump_json())
    activate(bundles, "b1")
