"""Moving pictures of latent space: arrays of frames, and their files."""

import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from flaxvae.checks import InputError, check_above, check_choice
from flaxvae.data import Dataset
from flaxvae.files import atomic_file
from flaxvae.latent import levels, panels
from flaxvae.latent.context import Context
from flaxvae.latent.grids import as_colors, choose_grid, tile_images
from flaxvae.latent.over_training import check_recorded, project
from flaxvae.latent.paths import loop, traverse
from flaxvae.training import Trained
from flaxvae.types import AnimationFormat, PictureStyle

if TYPE_CHECKING:
    import PIL.Image

FRAMES = 60
LAST = 15  # of them, that hold the end of a training
DOTS = 2_000  # in a film
DIMENSIONS = 20  # that a film of traversals shows
EXTENT = 2.0  # standard deviations on either side
ENDS = 5  # test examples that a loop passes
PER_SECOND = 20.0  # frames
LARGEST, SMALLEST = 720, 120  # pixels of the longer side of a frame
MOST_BYTES = 2_000_000  # of a GIF
SHADES = 64  # of a grey GIF
COLORS = 128  # of a coloured one; the palette is that of some frames
FRAMES_OF_PALETTE = 12
TEXT_HEIGHT = 20  # pixels that a line of text takes
NEAR = 24  # the sum of differences of 0 to 255 in red, green and blue


@dataclass(frozen=True, eq=False)
class Frames:
    """Images that follow one another, and what is written on them.

    Attributes:
      images: ``(T, H, W, C)`` in [0, 1].
      captions: a line above each image, T of them, or none.
      labels: texts in every image, each with the row and column of the pixel at its
        upper left corner.
    """

    images: np.ndarray
    captions: Sequence[str] = ()
    labels: Sequence[tuple[int, int, str]] = ()


Film = Callable[[Context], Frames | None]
"""From a context to the frames of an animation, or None."""


def traversals(context: Context) -> Frames | None:
    """Frames in which each latent dimension swings there and back, a tile for each.

    Tiles are in the order of their KL, largest first, row by row; above each stand its
    dimension and KL.
    """
    if not _has_images(context):
        return None
    dims, means = context.ranked_dims[:DIMENSIONS], context.means
    kl = context.kl_per_dimension
    origin = levels.encode(context.trained, context.shown)[0]
    swing = EXTENT * np.sin(np.linspace(0, 2 * np.pi, FRAMES, endpoint=False))
    spread = context.aggregate_std[dims]
    values = means.mean(axis=0)[dims][:, None] + spread[:, None] * swing  # (R, T)
    codes = np.asarray(traverse(origin, dims, values))
    condition = context.repeat_condition(codes.shape[:2])
    images = panels.decode_grid(context.trained, codes, condition)  # (R, T, H, W, C)
    names = [f"z{d + 1}" if kl is None else f"z{d + 1}: {kl[d]:.1f}" for d in dims]
    sorted_by = "standard deviation" if kl is None else "KL in nats"
    captions = [f"{s:+.1f} standard deviations, sorted by {sorted_by}" for s in swing]
    tiled, labels = tile_frames(np.swapaxes(images, 0, 1), names)
    return Frames(tiled, captions, labels)


def latent_loop(context: Context) -> Frames | None:
    """Frames along a closed path through the codes of test images."""
    if not _has_images(context) or context.trained.is_conditional:
        return None
    ends = levels.encode(context.trained, context.shown[:ENDS])
    if len(ends) < 2:
        return None
    codes = np.asarray(loop(ends, FRAMES // len(ends)))
    return Frames(panels.decode_grid(context.trained, codes[None])[0])


def scatter_over_training(context: Context) -> Frames | None:
    """Frames of posterior means after each epoch that was kept, coloured by class."""
    from flaxvae.latent.figures.over_training import render_scatter

    kept = context.snapshots
    if len(kept) < 2:
        return None
    codes, axis_labels = project(kept)
    frames = render_scatter(
        [each.epoch for each in kept],
        codes[:, :DOTS],
        None if kept[-1].labels is None else kept[-1].labels[:DOTS],
        title=context.title,
        axis_labels=axis_labels,
        class_names=context.dataset.class_names,
    )
    return Frames(hold(frames))


def manifold_over_training(context: Context) -> Frames | None:
    """Frames of the decoded grid of codes after each epoch that was kept."""
    kept = [each for each in context.snapshots if each.manifold is not None]
    if len(kept) < 2:
        return None
    grids = [tile_images(np.asarray(e.manifold), gap=1, fill=0) for e in kept]
    captions = [f"epoch {epoch}" for epoch in hold(np.array([e.epoch for e in kept]))]
    return Frames(hold(np.stack(grids)), captions)


def hold(frames: np.ndarray) -> np.ndarray:
    """Each frame for some time, so that 60 frames show all, and the last one longest.

    >>> hold(np.arange(3)).tolist() == [0] * 15 + [1] * 15 + [2] * 30
    True
    """
    moving = np.arange(FRAMES - LAST) * len(frames) // (FRAMES - LAST)
    if len(frames) > FRAMES - LAST:
        moving = np.arange(len(frames))
    return frames[np.append(moving, np.full(LAST, len(frames) - 1))]


FILMS: dict[str, Film] = {
    "traversals": traversals,
    "loop": latent_loop,
    "scatter_over_training": scatter_over_training,
    "manifold_over_training": manifold_over_training,
}
"""The animations of a model with one level of latent variables, by name."""
OVER_TRAINING = ("scatter_over_training", "manifold_over_training")


def animate(
    trained: Trained,
    dataset: Dataset,
    folder: str | Path,
    *,
    animations: str | Sequence[str] | None = None,
    file_format: AnimationFormat = "gif",
    style: PictureStyle = "light",
    on_picture: Callable[[str], None] | None = None,
) -> list[Path]:
    """Writes animations of a model's latent space into ``folder``.

    Args:
      trained: a model of images, with one level of latent variables.
      dataset: its data; the test split gives the codes.
      folder: where the files are written; it is created if need be.
      animations: one name or several of `FILMS`; default all that suit the model.
      file_format: ``gif``, or ``mp4``, for which ffmpeg must be installed.
      style: ``light``, or ``dark`` for slides.
      on_picture: called with each animation's name before it is computed.

    Returns:
      The paths of the files, ``<name>.<file_format>`` each.

    Raises:
      InputError: a name that does not exist or does not suit the model, a film of a
        training that was not recorded, too few test examples, or no ffmpeg.
    """
    from flaxvae.latent.figures.style import use_style

    check_choice("style", style, get_args(PictureStyle))
    check_choice("file_format", file_format, get_args(AnimationFormat))
    check_format(file_format)
    trained.check_finite()
    if trained.has_levels or len(trained.code_shape) != 1:
        raise InputError(
            "animations must be of a model whose code is one vector, got "
            f"{type(trained.model).__name__}"
        )
    if len(dataset.test) < 2:
        raise InputError(
            "dataset must hold 2 test examples or more for animations, got "
            f"{len(dataset.test)}"
        )
    animations = (animations,) if isinstance(animations, str) else animations
    for name in animations or ():
        check_choice("animation", name, FILMS)
    context, paths = Context(trained, dataset, dataset.name), []
    for name in animations or FILMS:
        if on_picture is not None:
            on_picture(name)
        path = Path(folder).expanduser() / f"{name}.{file_format}"
        with use_style(style):
            frames = FILMS[name](context)
            if frames is not None:
                write_animation(
                    frames.images,
                    path,
                    captions=frames.captions,
                    labels=frames.labels,
                )
                paths.append(path)
        if frames is None and animations:
            if name in OVER_TRAINING:
                check_recorded(name, context.snapshots)
            raise InputError(
                f"animation must suit the model and its data, got {name}, which does "
                "not"
            )
    return paths


def tile_frames(
    images: np.ndarray, names: Sequence[str]
) -> tuple[np.ndarray, list[tuple[int, int, str]]]:
    """Images ``(T, N, H, W, C)`` side by side in each frame: ``(T, H', W', C)``.

    As square as the images allow; what remains of the last row is background. Above
    each image is room for its name: the labels of `Frames`, the second result.
    """
    from flaxvae.latent.figures.style import paper

    background = paper()
    T, N, *shape = images.shape
    rows, columns = choose_grid(4, 5, shape)
    columns = min(N, max(columns, -(-N // max(rows, 1))))
    count = -(-N // columns)
    H, W = shape[:2]
    longest = max(count * (H + 1), columns * (W + 1))
    room = -(-TEXT_HEIGHT * longest // LARGEST)  # rows of pixels, before enlarging
    pad = [(0, 0), (0, -N % columns), (room, 0), (0, 0), (0, 0)]
    images = np.pad(images, pad, constant_values=background)
    images[:, N:] = background
    grids = images.reshape(T, count, columns, *images.shape[2:])
    tiled = np.stack([tile_images(grid, gap=1, fill=background) for grid in grids])
    places = [divmod(n, columns) for n in range(N)]
    labels = [
        (row * (H + room + 1), column * (W + 1), name)
        for (row, column), name in zip(places, names, strict=True)
    ]
    return tiled, labels


def write_animation(
    frames: np.ndarray,
    path: str | Path,
    *,
    captions: Sequence[str] = (),
    labels: Sequence[tuple[int, int, str]] = (),
    frames_per_second: float = PER_SECOND,
) -> None:
    """Writes frames as a film that repeats; it appears complete or not at all.

    Small frames are enlarged by whole factors, a GIF's as long as it stays below 2 MB.

    Args:
      frames: ``(T, H, W, C)`` in [0, 1], C of 1 or 3.
      path: new NAME.gif, or NAME.mp4, for which the program ffmpeg must be installed.
      captions: a line of text above each frame, T of them, or none.
      labels: texts in every frame: row and column of the pixel at the upper left
        corner, before the frame is enlarged, and the text.
      frames_per_second: speed.

    Raises:
      InputError: another suffix, no ffmpeg, no frames, or a speed that is not above 0.
    """
    path = Path(path)
    check_above("frames_per_second", frames_per_second, 0)
    if frames.ndim != 4 or not len(frames):
        raise InputError(f"frames must be (T, H, W, C), T > 0, got {frames.shape}")
    if path.suffix not in (".gif", ".mp4"):
        raise InputError(f"path must end in .gif or .mp4, got {path.name!r}")
    check_format("mp4" if path.suffix == ".mp4" else "gif")
    pixels = np.round(255 * np.clip(as_colors(frames), 0, 1)).astype(np.uint8)
    most = max(1, LARGEST // max(pixels.shape[1:3]))
    encode = _encode_gif if path.suffix == ".gif" else _encode_mp4
    least = min(most, max(1, SMALLEST // max(pixels.shape[1:3])))
    for factor in range(most, least - 1, -1):
        large = pixels.repeat(factor, axis=1).repeat(factor, axis=2)
        film = encode(_write_texts(large, factor, captions, labels), frames_per_second)
        if len(film) <= MOST_BYTES:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_bytes(film)


def check_format(file_format: AnimationFormat) -> None:
    """Raises `InputError` for a format that cannot be written here."""
    if file_format == "mp4" and shutil.which("ffmpeg") is None:
        raise InputError(
            "format must be gif where the program ffmpeg is not installed, got mp4"
        )


def _write_texts(
    pixels: np.ndarray,
    factor: int,
    captions: Sequence[str],
    labels: Sequence[tuple[int, int, str]],
) -> np.ndarray:
    """Frames ``(T, H, W, C)`` of bytes with their texts, captions in rows above.

    Colours are those of the current style of figures.
    """
    from PIL import Image, ImageDraw, ImageFont

    from flaxvae.latent.figures.style import foreground, paper

    if not len(captions) and not len(labels):
        return pixels
    is_grey = pixels.shape[-1] == 1
    above = TEXT_HEIGHT + 4 if len(captions) else 0
    pixels = np.pad(
        pixels,
        [(0, 0), (above, 0), (0, 0), (0, 0)],
        constant_values=round(255 * paper()),
    )
    font, ink, written = ImageFont.load_default(TEXT_HEIGHT - 6), foreground(), []
    for t, frame in enumerate(pixels):
        image = Image.fromarray(frame[..., 0] if is_grey else frame)
        draw = ImageDraw.Draw(image)
        if len(captions):
            draw.text((3, 3), captions[t], fill=ink, font=font)
        for row, column, text in labels:
            place = column * factor + 3, row * factor + above
            draw.text(place, text, fill=ink, font=font)
        written.append(np.asarray(image))
    return np.stack(written).reshape(pixels.shape)


def _encode_gif(pixels: np.ndarray, frames_per_second: float) -> bytes:
    """A GIF of frames ``(T, H, W, C)`` of bytes."""
    from PIL import Image

    if pixels.shape[-1] == 1:
        step = 256 // SHADES
        grey = pixels[..., 0] // step * step
        images = [Image.fromarray(frame) for frame in grey]
    else:  # one palette, that of all frames
        palette = _choose_palette(pixels)
        images = [
            Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
            for frame in pixels
        ]
    file = io.BytesIO()
    images[0].save(
        file,
        "GIF",
        save_all=True,
        append_images=images[1:],
        duration=round(1000 / frames_per_second),
        loop=0,
        optimize=True,
    )
    return file.getvalue()


def _choose_palette(pixels: np.ndarray) -> "PIL.Image.Image":
    """The colours of frames ``(T, H, W, 3)`` of bytes, the background among them."""
    from PIL import Image

    some = pixels[:: -(-len(pixels) // FRAMES_OF_PALETTE)]
    whole = Image.fromarray(some.reshape(-1, *some.shape[2:]))
    # The coverage of the space of colours keeps the colours of few dots.
    palette = whole.quantize(COLORS, method=Image.Quantize.MAXCOVERAGE)
    colors = np.array(palette.getpalette()).reshape(-1, 3)
    distance = np.abs(colors - some[0, 0, 0].astype(int)).sum(axis=1)
    # All near ones: Pillow looks for the nearest colour with some error.
    colors[(distance < NEAR) | (distance == distance.min())] = some[0, 0, 0]
    palette.putpalette(colors.astype(np.uint8).tobytes())
    return palette


def _encode_mp4(pixels: np.ndarray, frames_per_second: float) -> bytes:
    """An MP4 film (H.264) of frames ``(T, H, W, C)`` of bytes, by ffmpeg."""
    T, H, W, _ = pixels.shape
    pad = [(0, 0), (0, H % 2), (0, W % 2), (0, 0)]  # H.264 takes even sizes
    colors = np.broadcast_to(pixels, (T, H, W, 3))
    frames = np.pad(colors, pad, mode="edge")
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        source = f"-f rawvideo -pix_fmt rgb24 -s {W + W % 2}x{H + H % 2}"
        target = "-an -c:v libx264 -pix_fmt yuv420p -movflags +faststart"
        command = [
            *("ffmpeg", "-loglevel", "error", *source.split()),
            *("-r", f"{frames_per_second:g}", "-i", "-", *target.split(), str(film)),
        ]
        done = subprocess.run(command, input=frames.tobytes(), capture_output=True)
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            why = lines[-1] if lines else f"exit code {done.returncode}"
            raise OSError(f"ffmpeg could not write the film: {why}")
        return film.read_bytes()


def _has_images(context: Context) -> bool:
    data = context.dataset
    return not data.is_table and data.layout != "series"
