"""Examples as a regression sees them: one row each, a dense block beside a sparse one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_CHUNK = 256
_JITTER = 1e-7
"""Added to every row's energy: equal rows would have no factor without, and no regression can tell."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """``dense``: (n, d), of any precision, which is that of all products; ``sparse``: scipy CSR of the same
    precision, (n, s), or None.

    Dense columns kept as sparse ones would take three times the memory and many times the time.
    """

    dense: npt.NDArray[Any]
    sparse: Any = None

    def __len__(self) -> int:
        return len(self.dense)

    @property
    def width(self) -> int:
        return int(self.dense.shape[1]) + (0 if self.sparse is None else int(self.sparse.shape[1]))

    def __getitem__(self, chosen: npt.NDArray[Any]) -> Self:
        return type(self)(self.dense[chosen], None if self.sparse is None else self.sparse[chosen])

    def times(self, weights: Floats) -> Floats:
        """The rows times weights: (width,) to (n,)."""
        given, cut = weights.astype(self.dense.dtype), self.dense.shape[1]
        found = self.dense @ given[:cut]
        if self.sparse is not None:
            found += self.sparse @ given[cut:]
        return np.asarray(found, np.float64)

    def summed(self, factors: Floats) -> Floats:
        """The sum of the rows, each times its factor: (n,) to (width,)."""
        given = factors.astype(self.dense.dtype)
        found = given @ self.dense
        both = [found] if self.sparse is None else [found, self.sparse.T @ given]
        return np.concatenate(both, dtype=np.float64)

    def turned(self) -> Rotation:
        """These rows with as many columns as there are rows; for a few thousand at most."""
        dense = self.dense.astype(np.float64)
        inner = dense @ dense.T
        if self.sparse is not None:
            sparse = self.sparse.astype(np.float64)
            for start in range(0, len(self), _CHUNK):  # what lies right of the diagonal is not looked at
                stop = start + _CHUNK
                inner[start:stop, :stop] += (sparse[start:stop] @ sparse[:stop].T).toarray()
        energies = np.einsum("ii->i", inner)  # a view of the diagonal
        energies += _JITTER * (1 + energies)
        lower = np.asarray(np.linalg.cholesky(inner), np.float64)
        return Rotation(Rows(lower.astype(self.dense.dtype)), lower, self)


@dataclass(frozen=True, slots=True, eq=False)
class Rotation:
    """Rows turned into coordinates of their own: all lengths and angles between them are kept, and so is whatever a
    regression with an L2 penalty says of them (the representer theorem), at a fraction of the columns.

    ``lower``: float64, (n, n), the Cholesky factor of the inner products of the rows ``of`` which they were made.
    """

    rows: Rows
    lower: Floats
    of: Rows

    def back(self, weights: Floats) -> Floats:
        """Weights for the turned rows as weights for the rows themselves: (n,) to (width,)."""
        from scipy.linalg import solve_triangular

        return self.of.summed(solve_triangular(self.lower, weights, trans="T", lower=True))
