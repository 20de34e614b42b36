"""Key-value memory for rows of different lengths: slots that rows enter and leave, and packed prefill.

Shapes: L layers, R slots, H key-value heads, C capacity in tokens, D head size. Both views below are
what ``transformers`` models call ``past_key_values``; they speak only the part of its ``Cache`` that a
decoder with plain attention uses when it is given a ready four-dimensional mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

STEP = 128
#: Slots that are all free keep this much memory for the next burst.
KEEP_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Shape:
    """What one token's keys and values take: (layers, heads, head size) and where they live."""

    layers: int
    heads: int
    size: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        return 2 * self.layers * self.heads * self.size * self.dtype.itemsize

    def empty(self, rows: int, tokens: int) -> torch.Tensor:
        """(L, 2, rows, H, tokens, D), zeroed: a masked product with garbage could be NaN."""
        import torch

        return torch.zeros((self.layers, 2, rows, self.heads, tokens, self.size), dtype=self.dtype, device=self.device)


class View:
    """The part of ``transformers.Cache`` that decoders read when the mask is ready made."""

    is_compileable = False
    is_sliding: tuple[bool, ...] = ()
    is_linear: tuple[bool, ...] = ()

    def __init__(self, seen: int) -> None:
        self.seen = seen

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self.seen

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return self.seen + query_length, 0


class PackedView(View):
    """Prefill: several prompts side by side in one row of T tokens, perhaps behind a shared prefix.

    ``fresh``: (L, 2, 1, H, T, D), filled layer by layer. ``prefix``: (L, 2, H, P, D) or None.
    """

    def __init__(self, shape: Shape, tokens: int, prefix: torch.Tensor | None) -> None:
        super().__init__(0 if prefix is None else prefix.shape[3])
        self.fresh = shape.empty(1, tokens)
        self.prefix = prefix

    def head(self, begin: int, tokens: int) -> torch.Tensor:
        """A copy of the first ``tokens`` of the prompt whose own part begins at ``begin``: (L, 2, H, tokens, D)."""
        import torch

        own = self.fresh[:, :, 0, :, begin : begin + tokens - self.seen]
        return own.clone() if self.prefix is None else torch.cat([self.prefix, own], dim=3)

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keeps (1, H, T, D) keys and values; returns (1, H, P + T, D) to attend to."""
        import torch

        self.fresh[layer_idx, 0].copy_(keys)
        self.fresh[layer_idx, 1].copy_(values)
        if self.prefix is None:
            return keys, values
        before = self.prefix[layer_idx]
        return torch.cat([before[0][None], keys], dim=2), torch.cat([before[1][None], values], dim=2)


class Slots(View):
    """Decoding: row r's tokens stand at the left of slot r; the rows in use are always the first ``n``."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(0)
        self.shape = shape
        self.lengths: list[int] = []
        self.store = shape.empty(0, 0)
        self._at = self._rows = self.store.new_empty(0).long()

    def __len__(self) -> int:
        return len(self.lengths)

    def append(self, packed: PackedView, begin: int, end: int) -> None:
        """Takes tokens ``begin:end`` of a prefill, and the prefix before them, as a new row."""
        prefix = packed.seen
        length = prefix + end - begin
        row = len(self)
        self._reserve(row + 1, length + 1)
        if packed.prefix is not None:
            self.store[:, :, row, :, :prefix] = packed.prefix
        self.store[:, :, row, :, prefix:length] = packed.fresh[:, :, 0, :, begin:end]
        self.lengths.append(length)

    def drop(self, row: int) -> None:
        """Frees a slot; the last row moves into it, so the order of rows changes."""
        last = len(self) - 1
        if row != last:
            length = self.lengths[last]
            self.store[:, :, row, :, :length] = self.store[:, :, last, :, :length]
            self.lengths[row] = length
        self.lengths.pop()
        if not self.lengths and self.store.nbytes > KEEP_BYTES:
            self.store = self.shape.empty(0, 0)

    def advance(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Makes room for one token a row: its positions (n, 1), and the mask (n, 1, 1, longest)."""
        import torch

        self.seen = max(self.lengths)
        self._reserve(len(self), self.seen + 1)
        self._at = torch.tensor(self.lengths, device=self.shape.device)
        self._rows = torch.arange(len(self), device=self.shape.device)
        columns = torch.arange(self.seen + 1, device=self.shape.device)
        mask = columns[None, :] <= self._at[:, None]
        self.lengths = [n + 1 for n in self.lengths]
        return self._at[:, None], mask[:, None, None, :]

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes each row's new (n, H, 1, D) where that row ends; returns (n, H, longest, D)."""
        n, width = len(self), self.seen + 1
        k, v = self.store[layer_idx, 0, :n], self.store[layer_idx, 1, :n]
        k[self._rows, :, self._at] = keys[:, :, 0]
        v[self._rows, :, self._at] = values[:, :, 0]
        return k[:, :, :width], v[:, :, :width]

    def _reserve(self, rows: int, tokens: int) -> None:
        """Grows in powers of two rows and steps of 128 tokens, so that most calls do nothing."""
        have_rows, have_tokens = self.store.shape[2], self.store.shape[4]
        if rows <= have_rows and tokens <= have_tokens:
            return
        rows = max(have_rows, 1 << (rows - 1).bit_length())
        tokens = max(have_tokens, -(-tokens // STEP) * STEP)
        grown = self.shape.empty(rows, tokens)
        grown[:, :, :have_rows, :, :have_tokens] = self.store
        self.store = grown
