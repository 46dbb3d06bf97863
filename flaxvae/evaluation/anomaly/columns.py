"""From the columns of a table, or the pixels of images, to what the models see."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from flaxvae.checks import InputError, show

FAR = 30.0  # interquartile ranges from the median, beyond which a value is clipped
LARGEST = float(np.finfo(np.float64).max ** 0.25)  # squares of it can be added


@dataclass(frozen=True, eq=False)
class Columns:
    """Clips, centers and scales each column, and leaves out those that are constant.

    Attributes:
      shape: of an example, ``(F,)`` or ``(H, W, C)``; F stands for H * W * C.
      median: ``(F,)``, in place of missing values.
      low: ``(F,)``, values below count as this one.
      high: ``(F,)``, values above count as this one.
      mean: ``(F,)``, of the clipped training values.
      std: ``(F,)``, of the clipped training values; of images the root mean square of
        all pixels', so that a pixel that hardly varies is not magnified.
      used: ``(F,)`` bool, columns that vary; of images all pixels if any varies.
      clip: standard deviations at which the result is clipped.
    """

    shape: tuple[int, ...]
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    used: np.ndarray
    clip: float

    @property
    def is_image(self) -> bool:
        """Whether examples are images, not rows."""
        return len(self.shape) > 1

    @staticmethod
    def fit(x: np.ndarray, clip: float) -> "Columns":
        """The columns of training examples ``(N, ...)``; NaN is missing."""
        shape, x = x.shape[1:], flatten(x)
        missing = np.isnan(x)
        filled = np.where(missing.all(0), 0.0, x)
        q1, median, q3 = np.nanpercentile(filled, [25, 50, 75], axis=0)
        with np.errstate(over="ignore", invalid="ignore"):
            reach = FAR * (q3 - q1)
            # Where half of the values are equal the range says nothing of the others.
            reach = np.where((reach > 0) & np.isfinite(reach), reach, np.inf)
        low = np.clip(median - reach, -LARGEST, LARGEST)
        high = np.clip(median + reach, -LARGEST, LARGEST)
        x = np.clip(np.where(missing, median, x), low, high)
        mean, std = x.mean(0), x.std(0)
        used = std > 1e-12 * np.maximum(np.abs(x).max(0), np.finfo(np.float64).tiny)
        if len(shape) > 1:
            low, high = np.full_like(low, -LARGEST), np.full_like(high, LARGEST)
            std = np.full_like(std, np.sqrt((std**2).mean()))
            used = np.full_like(used, used.any())
        std = np.where(used, std, 1.0)
        return Columns(shape, median, low, high, mean, std, used, clip)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Examples ``(N, ...)`` as the models see them: ``(N, columns used)``."""
        x = flatten(x)
        x = np.clip(np.where(np.isnan(x), self.median, x), self.low, self.high)
        scaled = ((x - self.mean) / self.std)[:, self.used]
        return np.clip(scaled, -self.clip, self.clip).astype(np.float32)

    def check(self, x: ArrayLike) -> np.ndarray:
        """Examples as float64.

        Raises:
          InputError: as `as_examples`, or not of the training examples' shape.
        """
        rows = as_examples(x)
        if rows.shape[1:] != self.shape:
            shown, found = (
                f"{s[0]} columns" if len(s) == 1 else f"the shape (N, {s})"
                for s in (self.shape, rows.shape[1:])
            )
            raise InputError(f"rows must have {shown}, got {found}")
        return rows


def flatten(x: np.ndarray) -> np.ndarray:
    """Examples ``(N, ...)`` as rows ``(N, F)``."""
    return x.reshape(len(x), -1)  # (N, F)


def as_examples(x: ArrayLike) -> np.ndarray:
    """Rows ``(N, F)`` or images ``(N, H, W[, C])`` as float64.

    Raises:
      InputError: something else, no row, no column, or an infinite number.
    """
    try:
        rows = np.asarray(x, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"rows must be numbers, got {show(x)}") from error
    if rows.ndim not in (2, 3, 4) or 0 in rows.shape:
        raise InputError(
            "rows must be (N, F), or images (N, H, W, C), with at least one row and one"
            f" column, got the shape {rows.shape}"
        )
    infinite = np.isinf(flatten(rows))
    if infinite.any():
        column = int(np.flatnonzero(infinite.any(0))[0])
        raise InputError(
            f"rows must be finite or missing (NaN), got inf in column {column}"
        )
    return rows
