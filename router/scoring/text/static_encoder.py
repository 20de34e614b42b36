"""Text to vector in microseconds: a static embedding distilled from all-MiniLM-L6-v2.

Distilled once as model2vec does (Tulkens and van Dongen 2024, github.com/MinishLab/model2vec): every
vocabulary token goes through the transformer alone, its output is mean-pooled, PCA keeps ``DIM``
dimensions, and each row is weighted by smooth inverse frequency (Arora et al. 2017), with Zipf's law over
the vocabulary's order for frequencies. A text is then the mean of its tokens' rows: a table look-up.
"""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from router.scoring.text.tokens import Tokens
from router.scoring.text.transformer import source_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NAME = "all-minilm-l6-v2-static-256"
DIM = 256
BATCH = 1024
SIF = 1e-4
_AT_ONCE = 1024
"""Rows summed as one small matrix product: the fastest way, but beyond this BLAS may start threads for it."""
_WEIGHTS, _TABLE, _TOKENIZER = "embedding.safetensors", "embedding.npy", "tokenizer.json"

F32 = npt.NDArray[np.float32]


class StaticEncoder:
    """A token table and the tokenizer that finds a text's rows in it (``router.scoring.text.encoder.Encoder``)."""

    slow = False

    def __init__(self, table: F32, tokenizer: Tokenizer, name: str = NAME) -> None:
        """``table``: float32, (vocabulary, dim). ``name`` tells scorers which encoder they were fitted on."""
        self.name = name
        self.dim = int(table.shape[1])
        self._table = table
        self._tokens = Tokens(tokenizer)
        self._ones = np.ones(_AT_ONCE, np.float32)

    def encode(self, text: str) -> F32:
        """The text's vector: float32, (dim,), of length one; zeros for a text without tokens."""
        total = self.total(text)
        return total / max(math.sqrt(total.dot(total)), 1e-12)

    def total(self, text: str) -> F32:
        """The sum of the rows of the text's tokens, which ``encode`` scales: float32, (dim,)."""
        ids = self._tokens.of(text)
        rows = self._table.take(ids, axis=0)
        total: F32 = self._ones[: len(ids)].dot(rows) if len(ids) <= _AT_ONCE else np.add.reduce(rows, axis=0)
        return total

    def read_ahead(self, texts: Iterable[str]) -> None:
        """One by one is as fast."""

    def tokens(self, text: str) -> list[int]:
        """The text's token ids, without special tokens."""
        ids: list[int] = self._tokens.of(text).tolist()
        return ids


def load_static(cache: Path) -> StaticEncoder:
    """Loads the encoder from ``cache/encoder``; distils it there first where it is not.

    Distilling takes about half a minute on two cores and shows its progress; of several processes one
    distils and the others wait.

    Raises:
        EngineError: it must be distilled, and the transformer's package, torch or transformers is not installed.
    """
    folder = cache / "encoder" / NAME
    if not (folder / _WEIGHTS).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / "lock"):
            if not (folder / _WEIGHTS).is_file():
                _distil(folder)
    from tokenizers import Tokenizer

    return StaticEncoder(_table(folder), Tokenizer.from_file(str(folder / _TOKENIZER)))


def is_distilled(cache: Path) -> bool:
    """Whether loading is all that is left to do."""
    return (cache / "encoder" / NAME / _WEIGHTS).is_file()


def _table(folder: Path) -> F32:
    """The table as one file that all processes of a machine map and so share; made where it is missing.

    Where the cache cannot be written, this process has a copy of its own.
    """
    path = folder / _TABLE
    if not path.is_file():
        from safetensors.numpy import load_file

        table: F32 = load_file(folder / _WEIGHTS)["embedding"].astype(np.float32)
        fresh = folder / f"{_TABLE}.{os.getpid()}"
        try:
            with fresh.open("wb") as file:
                np.save(file, table)
            fresh.replace(path)
        except OSError:
            return table
    return np.asarray(np.load(path, mmap_mode="r"))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _distil(folder: Path) -> None:
    """Writes tokenizer and table, the table last, since its existence means completeness."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer

    source = source_folder()
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    rows = _token_outputs(source, tokenizer)
    rows = _principal(rows, DIM) * _frequency_weights(len(rows))[:, None]
    tokenizer.save(str(folder / _TOKENIZER))
    fresh = folder / f"{_WEIGHTS}.{os.getpid()}"
    save_file({"embedding": rows.astype(np.float16)}, fresh)
    fresh.replace(folder / _WEIGHTS)


def _token_outputs(source: Path, tokenizer: Tokenizer) -> F32:
    """The transformer's mean-pooled output for each token alone: float32, (vocabulary, hidden)."""
    import torch
    from rich.progress import track
    from transformers import AutoModel

    model: Any = AutoModel.from_pretrained(source).eval()
    first, last = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    size = tokenizer.get_vocab_size()
    outputs = []
    with torch.inference_mode():
        for start in track(range(0, size, BATCH), "Distilling the encoder (once)", transient=True):
            batch = [[first, token, last] for token in range(start, min(start + BATCH, size))]
            outputs.append(model(input_ids=torch.tensor(batch)).last_hidden_state.mean(dim=1))
    return np.asarray(torch.cat(outputs).float().numpy(), np.float32)


def _principal(rows: F32, dim: int) -> F32:
    """Rows (n, d), centred, on their ``dim`` directions of most variance: (n, dim)."""
    centred = rows - rows.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)  # ascending
    projected: F32 = centred @ directions[:, ::-1][:, :dim]
    return projected


def _frequency_weights(size: int) -> F32:
    """a / (a + p(rank)), p by Zipf's law, as BERT's vocabulary is ordered by frequency: float32, (size,)."""
    probability = 1.0 / np.arange(2, size + 2)
    probability /= probability.sum()
    return (SIF / (SIF + probability)).astype(np.float32)
