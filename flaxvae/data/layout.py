"""What the axes of an array mean: images, series or rows."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from flaxvae.checks import InputError
from flaxvae.data.rows import extent, open_rows

Layout = Literal["images", "series", "rows"]
AXES: dict[Layout, str] = {
    "images": "images (N, H, W) or (N, H, W, C)",
    "series": "series (N, T, F), or (N, T) of one feature",
    "rows": "rows (N, F)",
}
NDIM: dict[Layout, tuple[int, ...]] = {
    "images": (3, 4),
    "series": (2, 3),
    "rows": (2,),
}
MOST_FEATURES = 16  # of what is guessed to be a series
STEPS_PER_FEATURE = 4  # at least; 2 where values beyond [0, 1] rule out images


def layout_of(shape: Sequence[int]) -> Layout:
    """The layout of examples of a shape: (F,) rows, (T, F) series, others images."""
    by_axes: dict[int, Layout] = {1: "rows", 2: "series"}
    return by_axes.get(len(shape), "images")


def choose_layout(
    x: np.ndarray, name: str, layout: Layout | None = None
) -> tuple[Layout, tuple[str, ...]]:
    """The layout of an array, as stated or guessed from its axes and type.

    Arrays of two axes are rows, those of four are images. Arrays of three axes are
    images if they hold integers. Floats (N, T, F) are series if T is at least 4 F and F
    at most 16: (N, 600, 1) and (N, 100, 6) are, (N, 28, 28) and (N, 8, 8) are not.

    Args:
      x: an array of numbers.
      name: of the array, for messages.
      layout: as stated by the user; None: it is guessed.

    Returns:
      The layout, and a note if it was guessed to be series.

    Raises:
      InputError: another number of axes than the layout has.
    """
    if layout is not None:
        if x.ndim not in NDIM[layout]:
            raise InputError(
                f"{name} must be {AXES[layout]} for layout={layout}, got the shape "
                f"{x.shape}"
            )
        return layout, _note_few_steps(x) if layout == "series" else ()
    if x.ndim not in (2, 3, 4):
        raise InputError(
            f"{name} must be images (N, H, W, C) or rows (N, F) or series (N, T, F), "
            f"got the shape {x.shape}"
        )
    if x.ndim != 3 or not _looks_like_series(x):
        return ("rows" if x.ndim == 2 else "images"), ()
    N, T, F = x.shape
    features = "1 feature" if F == 1 else f"{F} features"
    note = (
        f"The array {x.shape} is read as {N:,} series of {T:,} time steps with "
        f"{features}; choose layout=images if it holds images."
    )
    return "series", (note,)


def as_series(x: np.ndarray, name: str) -> np.ndarray:
    """Series ``(N, T, F)`` of floats, from any numbers ``(N, T, F)`` or ``(N, T)``.

    They are float64 until it is known whether float32 resolves their features. Large
    memory-mapped arrays become `Rows`.

    Raises:
      InputError: another number of axes.
    """
    if x.ndim not in NDIM["series"]:
        raise InputError(f"{name} must be {AXES['series']}, got the shape {x.shape}")
    x = open_rows(x[..., np.newaxis] if x.ndim == 2 else x)
    is_narrow = x.dtype.itemsize <= 2 or x.dtype == np.float32
    return x.astype(np.float32 if is_narrow else np.float64)


def suggest_series(shape: Sequence[int]) -> str:
    """How arrays ``(N, A, B)`` that are not images may be read, for messages."""
    if len(shape) != 3:
        return ""
    _, A, B = shape
    swapped = ", after transposing (N, F, T) by (0, 2, 1)" if A < B else ""
    return f"; if they are series (N, T, F), choose layout=series{swapped}"


def _looks_like_series(x: np.ndarray) -> bool:
    _, T, F = x.shape
    if x.dtype.kind != "f" or not 0 < F <= MOST_FEATURES:
        return False
    if T >= STEPS_PER_FEATURE * F:
        return True
    if T < 2 * F or not len(x):
        return False
    low, high = extent(open_rows(x))
    return bool(low < 0 or high > 1)


def _note_few_steps(x: np.ndarray) -> tuple[str, ...]:
    if x.ndim != 3 or x.shape[1] >= x.shape[2]:
        return ()
    _, T, F = x.shape
    return (
        f"The array {x.shape} is read as series of {T:,} time steps with {F:,} "
        "features; transpose it by (0, 2, 1) if time is its last axis.",
    )
