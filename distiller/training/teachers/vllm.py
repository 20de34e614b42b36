"""A teacher behind a vLLM server: it reads every row once and tells its likeliest tokens at the answer's positions."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distiller.data.rows import DatasetRow
from distiller.training.batches import EncodedRow
from distiller.training.losses.sparse_labels import SparseTargets
from distiller.training.progress import Meter
from distiller.training.teachers.weights import PROBE, differing, encoded
from router.errors import TrainingError

if TYPE_CHECKING:
    from aiohttp import ClientSession

IN_FLIGHT = 16
SECONDS = 600.0
"""How long one row may take: a busy server lets requests wait."""


@dataclass(frozen=True)
class ServedTeacher:
    """A vLLM server at ``url`` (with its ``/v1``), asked for ``top`` tokens; ``key_env``: the variable with its key.

    It must have the student's tokenizer, since it is asked by token.
    """

    url: str
    top: int
    key_env: str | None = None

    def __call__(
        self, rows: Sequence[DatasetRow], made: Sequence[EncodedRow], tokenizer: Any
    ) -> list[SparseTargets | None]:
        """What it says of each row.

        Raises:
            TrainingError: the server does not answer as vLLM does, or its tokenizer is not the student's.
        """
        return asyncio.run(self._all(made, encoded(tokenizer)))

    async def _all(self, made: Sequence[EncodedRow], probe: list[int]) -> list[SparseTargets | None]:
        from aiohttp import ClientSession, ClientTimeout

        key = os.environ.get(self.key_env, "") if self.key_env else ""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        slots = asyncio.Semaphore(IN_FLIGHT)
        async with ClientSession(headers=headers, timeout=ClientTimeout(total=SECONDS)) as session:
            model = await self._model(session)
            asked = {"model": model, "prompt": PROBE, "add_special_tokens": False}
            if (await self._json(session, f"{self.url.removesuffix('/v1')}/tokenize", asked)).get("tokens") != probe:
                raise differing("the student's", f"that of {model} at {self.url}")
            with Meter("asking the teacher", max(len(made), 1)) as meter:
                done = 0

                async def one(row: EncodedRow) -> SparseTargets:
                    nonlocal done
                    async with slots:
                        known = await self._known(session, model, row)
                    done += 1
                    meter.show(done, None, len(row.tokens))
                    return known

                return list(await asyncio.gather(*map(one, made)))

    async def _known(self, session: ClientSession, model: str, row: EncodedRow) -> SparseTargets:
        asked = {"model": model, "prompt": list(row.tokens), "max_tokens": 1, "prompt_logprobs": self.top}
        answer = await self._json(session, f"{self.url}/completions", asked)
        try:
            told = answer["choices"][0]["prompt_logprobs"][row.start :]
            return targets([{int(i): float(said["logprob"]) for i, said in p.items()} for p in told], row.answer_tokens)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise TrainingError(f"{self.url} gives no prompt_logprobs as vLLM does ({error!r})") from error

    async def _model(self, session: ClientSession) -> str:
        listed = await self._json(session, f"{self.url}/models")
        try:
            return str(listed["data"][0]["id"])
        except (KeyError, IndexError, TypeError) as error:
            raise TrainingError(f"{self.url}/models names no model") from error

    async def _json(self, session: ClientSession, url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        from aiohttp import ClientError

        try:
            async with session.request("POST" if body else "GET", url, json=body) as reply:
                if reply.status != 200:
                    raise TrainingError(f"the teacher at {url} answered {reply.status}: {(await reply.text())[:200]}")
                found = await reply.json(content_type=None)
        except (ClientError, TimeoutError, ValueError) as error:
            raise TrainingError(f"the teacher at {url} cannot be asked: {error or type(error).__name__}") from error
        if not isinstance(found, dict):
            raise TrainingError(f"the teacher at {url} answered with no JSON object")
        return found


def targets(told: Sequence[dict[int, float]], positions: int) -> SparseTargets:
    """The named tokens at each position, all of them drawn by someone else. Raises ValueError at a wrong number."""
    import torch

    if len(told) != positions or not all(told):
        raise ValueError(f"{len(told)} positions, not {positions}")
    widest = max(map(len, told))
    ids = [[*p, *[-1] * (widest - len(p))] for p in told]
    log_p = [[*p.values(), *[0.0] * (widest - len(p))] for p in told]
    return SparseTargets(
        torch.tensor(ids, dtype=torch.int32), torch.tensor(log_p), torch.zeros(positions, dtype=torch.bool)
    )
