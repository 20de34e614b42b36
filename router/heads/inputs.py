"""A request as a head sees it: the scorer's own reading, its n-grams folded into few enough columns to be dense."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from router.scoring.text.encoder import Encoder
from router.scoring.text.features import STRUCTURE, Features
from router.scoring.text.ngrams import BUCKETS
from router.scoring.text.reader import Blocks, Familiarity, Reader, Reading, usual_structure
from router.scoring.text.templates import Templates

F32 = npt.NDArray[np.float32]

STRUCTURE_WEIGHT, GRAMS_WEIGHT = 0.2, 0.7
"""What lengths and signs, and n-grams, count beside an embedding: by how many of 77 intents are told apart from few
examples."""
COLUMNS = 4096
"""Of all n-grams, folded with signs that keep inner products as they are on average (Weinberger et al. 2009, arXiv
0902.2206)."""
_SIGN = np.int32(1 << (BUCKETS.bit_length() - 2))
"""The bucket's highest bit; the lowest ones are its column."""


@dataclass(frozen=True, slots=True, eq=False)
class HeadInputs:
    """What is learnt of requests alone: how they are read, what is usual, and how rare each n-gram is."""

    templates: Templates
    usual: F32
    mean: F32
    scale: F32
    squared_idf: F32
    familiarity: Familiarity

    @classmethod
    def fit(cls, requests: Sequence[Features], encoder: Encoder | None) -> tuple[Self, F32, F32]:
        """Also the requests' rows and how familiar each is, see ``rows``."""
        templates, usual = Templates.fit([f.last_user for f in requests]), usual_structure(requests)
        reader = Reader(encoder, templates, usual)
        reader.read_ahead(requests)
        readings = [reader(f) for f in requests]
        blocks = Blocks.fit(readings)
        familiarity = blocks.familiarity(readings)
        found = cls(templates, usual, blocks.mean, blocks.scale, blocks.squared_idf, familiarity)
        return found, found._rows(readings), np.ones(len(requests), np.float32)

    def reader(self, encoder: Encoder | None) -> Reader:
        """What reads requests for ``rows``, by the encoder that was there when they were fitted. It remembers."""
        return Reader(encoder, self.templates, self.usual)

    def rows(self, requests: Sequence[Features], reader: Reader) -> tuple[F32, F32]:
        """float32, (n, width), and how familiar each request is, from 0 to 1 (as what was learnt): (n,)."""
        reader.read_ahead(requests)
        readings = [reader(f) for f in requests]
        return self._rows(readings), np.array([self._familiar(r) for r in readings], np.float32)

    def _rows(self, readings: Sequence[Reading]) -> F32:
        width = len(self.mean)
        rows = np.zeros((len(readings), width + COLUMNS), np.float32)
        for row, reading in zip(rows, readings, strict=True):
            row[:width] = (reading.dense - self.mean) * self.scale
            row[: len(STRUCTURE)] *= STRUCTURE_WEIGHT
            buckets = np.concatenate([reading.message.buckets, reading.around.buckets])
            times = np.concatenate([reading.message.times, reading.around.times])
            squared = self.squared_idf[buckets]
            values = GRAMS_WEIGHT * np.sqrt(squared) * times / max(math.sqrt(float(squared @ times)), 1e-6)
            signed = np.where(buckets & _SIGN, -values, values)
            row[width:] = np.bincount(buckets & (COLUMNS - 1), signed, COLUMNS)
        return rows

    def _familiar(self, reading: Reading) -> float:
        known = self.squared_idf < self.familiarity.new
        message, around = reading.message.among(known), reading.around.among(known)
        return self.familiarity.share((message[0], int(message[1])), (around[0], int(around[1])))
