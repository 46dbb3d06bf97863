"""What the explorer's page knows of a data set: examples, classes, columns."""

import base64
import io
import math

import numpy as np

from flaxvae.capabilities import ConditionTraits, ModelTraits
from flaxvae.data import Dataset, Split
from flaxvae.data.schema import MISSING, unit_of
from flaxvae.latent.classes import name_class
from flaxvae.training import Trained
from flaxvae.types import Json

IMAGE_BYTES = 1_400_000  # of the picture with the examples
ROW_BYTES = 1_000_000  # of examples that are no images, in float16
UNITS: dict[str | None, Json] = {"D": 86_400, "s": 1}
GRID = 65  # values between which a column's map to its own units is interpolated


def describe_classes(
    trained: Trained, dataset: Dataset, split: Split
) -> dict[str, Json]:
    """Classes, their colours, and what a conditional model takes."""
    from flaxvae.latent.figures.style import NO_CLASS, class_colors

    condition = ModelTraits.of(trained.model).condition
    found: dict[str, Json] = {"labels": None, "classes": [], "condition": None}
    count = 0
    if split.labels is not None:
        labels = np.asarray(split.labels)
        count = max(int(labels.max()) + 1, len(dataset.class_names or ()))
        found["labels"] = labels.tolist()
    if condition is not None:
        traits = ConditionTraits.of(condition)
        if traits.num_classes is not None:
            count = max(count, traits.num_classes)
            found["condition"] = {"classes": traits.num_classes}
        elif split.condition is not None:
            vectors = np.asarray(split.condition, np.float32)
            found["condition"] = {
                "vectors": pack_halves(vectors),
                "width": traits.width,
            }
    found["classes"] = [name_class(i, dataset.class_names) for i in range(count)]
    found["colors"] = list[Json](class_colors(count))
    return found | {"no_class": NO_CLASS}


def count_rows(width: int) -> int:
    """How many examples of so many numbers, not images, there is room for."""
    return max(ROW_BYTES // (2 * width), 1)


def pack_examples(trained: Trained, x: np.ndarray) -> dict[str, Json]:
    """The examples as the model sees them: a picture of images, or numbers."""
    seen = np.asarray(trained.preprocessing.prepare(np.asarray(x)), np.float32)
    if seen.ndim == 4 and seen.shape[-1] in (1, 3):
        return _pack_images(np.clip(np.nan_to_num(seen), 0.0, 1.0))
    kept = seen[: count_rows(math.prod(seen.shape[1:]))]
    count = len(kept)
    kept = kept.reshape(count, -1)  # NaN: missing, in tables
    if seen.ndim > 2:
        kept = np.nan_to_num(kept)
    return {"count": count, "rows": pack_halves(kept)}


def _pack_images(images: np.ndarray) -> dict[str, Json]:
    """As many images as there is room for, side by side in one picture."""
    from PIL import Image

    count, is_grey = len(images), images.shape[-1] == 1
    while True:
        chosen = images[:count]
        N, H, W, C = chosen.shape
        columns = max(math.ceil(math.sqrt(N * H / W)), 1)
        rows = -(-N // columns)
        filled = np.zeros((rows * columns, H, W, C), np.float32)
        filled[:N] = chosen
        tiles = filled.reshape(rows, columns, H, W, C).swapaxes(1, 2)
        sheet = tiles.reshape(rows * H, columns * W, C)
        file = io.BytesIO()
        if is_grey:  # 16 grey levels take half of the room of 256
            levels = np.round(sheet[..., 0] * 15).astype(np.uint8)
            picture = Image.fromarray(levels).convert("L")
            indexed = Image.frombytes("P", picture.size, picture.tobytes())
            indexed.putpalette([v for i in range(16) for v in (17 * i,) * 3])
            indexed.save(file, "PNG", bits=4, optimize=True)
            kind = "image/png"
        else:
            colours = np.round(sheet * 255).astype(np.uint8)
            Image.fromarray(colours).save(file, "WEBP", quality=82, method=2)
            kind = "image/webp"
        size = file.tell()
        if size <= IMAGE_BYTES or count <= 2:
            break
        count = max(int(count * 0.95 * IMAGE_BYTES / size), 2)
    data = base64.b64encode(file.getvalue()).decode()
    return {"count": N, "across": columns, "sheet": f"data:{kind};base64,{data}"}


def describe_columns(trained: Trained, dataset: Dataset, x: np.ndarray) -> Json:
    """The columns of a table or the features of series, in their own units.

    ``grid`` and ``own``: equally spaced values that the model sees, from the first to
    the last of ``grid``, and what they are in the data's units. ``examples``: the
    numbers of a table's examples as the table has them. ``unit`` of a date or a time:
    seconds in what is counted since 1970.
    """
    if len(trained.data_shape) == 3:
        return None
    F = trained.data_shape[-1]
    is_table = len(trained.data_shape) == 1
    stored = np.asarray(x, np.float32)[: count_rows(F)] if is_table else None
    seen = np.asarray(trained.preprocessing.prepare(np.asarray(x)), np.float64)
    seen = seen.reshape(-1, F)
    low, high = np.nanmin(seen, axis=0), np.nanmax(seen, axis=0)
    low, high = (np.nan_to_num(v) for v in (low, high))
    high = np.where(high > low, high, low + 1)
    grid = low + (high - low) * np.linspace(0, 1, GRID)[:, None]  # (GRID, F)
    own = np.asarray(trained.preprocessing.inverse(grid.astype(np.float32)))
    own = np.asarray(own, np.float64)

    def number(name: str, i: int, kind: str) -> dict[str, Json]:
        return {
            "name": name,
            "kind": kind,
            "feature": i,
            "grid": [float(low[i]), float(high[i])],
            "own": pack_floats(own[:, i]),
            "examples": None if stored is None else pack_singles(stored[:, i]),
            "unit": None,
        }

    schema = trained.preprocessing.schema
    if schema is None:
        names = dataset.columns or ()
        if len(names) != F:
            names = tuple(f"x{i + 1}" for i in range(F))
        return [number(str(name), i, "real") for i, name in enumerate(names)]
    found: list[Json] = []
    for column, features, _ in schema.slices():
        first = features.start
        if column.kind == "category":
            values = [MISSING if v is None else str(v) for v in column.values]
            found.append(
                {
                    "name": column.name,
                    "kind": "category",
                    "feature": first,
                    "values": list[Json](values),
                }
            )
            continue
        described = number(column.name, first, column.kind)
        described["unit"] = UNITS.get(unit_of(column))
        if column.kind == "binary":
            pair = ("no", "yes") if column.type == "bool" else column.values or (0, 1)
            described["values"] = [str(v) for v in pair]
        found.append(described)
    return found


def pack_floats(values: np.ndarray) -> list[Json]:
    """Numbers with six digits."""
    flat = np.asarray(values, np.float64).reshape(-1)
    return [float(f"{v:.6g}") for v in flat]


def pack_singles(values: np.ndarray) -> str:
    """Numbers as float32 in base64."""
    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()


def pack_halves(values: np.ndarray) -> str:
    """Numbers as float16 in base64."""
    most = float(np.finfo(np.float16).max)
    array = np.clip(np.asarray(values, np.float32), -most, most)
    return base64.b64encode(array.astype("<f2").tobytes()).decode()
