"""One image file as an array: its orientation, colours, depth and size."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flaxvae.checks import InputError
from flaxvae.data.file_formats import describe_content, unreadable

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = {  # of the formats that are read
    **dict.fromkeys((".png", ".apng"), "PNG"),
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    ".bmp": "BMP",
    ".gif": "GIF",
    ".webp": "WEBP",
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
}
FORMATS = tuple(dict.fromkeys(SUFFIXES.values()))
MODES = {  # Pillow's: what is read
    "1": "L",
    "L": "L",
    "LA": "RGBA",
    "La": "RGBA",
    "P": "RGB",
    "PA": "RGBA",
    "RGB": "RGB",
    "RGBX": "RGB",
    "RGBA": "RGBA",
    "RGBa": "RGBA",
    "CMYK": "RGB",
    "YCbCr": "RGB",
}
ORIENTATION = 0x0112  # the EXIF tag
TURNS = {  # its values: the method of Pillow that undoes them
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
PAGED = ("PNG", "GIF", "WEBP", "TIFF")  # formats of several pages or frames


def read_picture(path: Path, size: tuple[int, ...] = ()) -> np.ndarray:
    """Reads an image file.

    The EXIF orientation is applied. Palettes, CMYK and YCbCr become RGB; transparency
    becomes a fourth channel.

    Args:
      path: PNG, JPEG, BMP, WebP, TIFF or GIF, of one page or frame.
      size: height and width to which it is resized, with antialiasing; empty: as it is.

    Returns:
      ``(H, W, C)`` uint8 of 1, 3 or 4 channels; ``(H, W, 1)`` uint16 or float32 of grey
      levels that are stored in 16 bits or as floats.

    Raises:
      InputError: a file that is damaged, of another format, of several pages, or of
        more bits a channel than can be read whole.
    """
    import PIL.Image

    try:
        with PIL.Image.open(path, formats=FORMATS) as image:
            pages = getattr(image, "n_frames", 1) if image.format in PAGED else 1
            if pages > 1:
                raise ValueError(
                    f"it holds {pages} pages or frames: store each in a file of its own"
                )
            bits = _count_bits(image, path)
            if bits > 8 and image.mode in MODES:
                raise ValueError(
                    f"it has {bits} bits in each of several channels, which cannot be "
                    "read whole: convert it to 8 bits, or to an array (.npy)"
                )
            image.load()
            return _read_pixels(_turn(image), size)
    except PIL.UnidentifiedImageError as error:
        kinds, content = ", ".join(FORMATS), describe_content(path)
        is_one = any(kind in content.split() for kind in FORMATS)
        reason = "it is damaged or cut off" if is_one else f"it is {content}"
        raise InputError(f"{path} cannot be read as {kinds}: {reason}") from error
    except Exception as error:  # Pillow reports damage in many types
        raise unreadable(path, error) from error


def count_channels(path: Path) -> int:
    """The channels of an image, by its header; 0 where it cannot be read."""
    import PIL.Image

    try:
        with PIL.Image.open(path, formats=FORMATS) as image:
            if image.mode not in MODES:
                return 1
            mode = "RGBA" if "transparency" in image.info else MODES[image.mode]
            return len(mode)
    except Exception:  # Pillow reports damage in many types; `read_picture` says it
        return 0


def as_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Grey as colour, and opaque images with an alpha channel: ``(H, W, channels)``."""
    present = pixels.shape[-1]
    if present == 1 < channels:
        pixels = np.repeat(pixels, 3, axis=-1)
    if pixels.shape[-1] < channels:
        alpha = np.full((*pixels.shape[:-1], 1), 255, pixels.dtype)
        pixels = np.concatenate([pixels, alpha], axis=-1)
    return pixels


def _count_bits(image: "Image", path: Path) -> int:
    """Bits a channel as stored: Pillow reads some kinds of 16 bits as 8."""
    from PIL.TiffImagePlugin import TiffImageFile

    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(25)[24]  # signature, length and type, width, height, depth
    if isinstance(image, TiffImageFile):
        bits = image.tag_v2.get(258, (8,))  # BitsPerSample
        return max(bits) if isinstance(bits, tuple) else int(bits)
    return 8


def _turn(image: "Image") -> "Image":
    """Applies the EXIF orientation; one that is damaged counts as upright."""
    import PIL.Image

    try:
        method = TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF data raise many types
        method = None
    return image.transpose(PIL.Image.Transpose[method]) if method else image


def _read_pixels(image: "Image", size: tuple[int, ...]) -> np.ndarray:
    import PIL.Image

    if image.mode in MODES:
        mode = "RGBA" if "transparency" in image.info else MODES[image.mode]
        image = image.convert(mode)
        if size:
            image = image.resize((size[1], size[0]), PIL.Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]  # (H, W, C)
    if not image.mode.startswith(("I", "F")):
        raise ValueError(f"its colours are of the kind {image.mode}, which is not read")
    pixels = np.asarray(image)
    is_float = pixels.dtype.kind == "f"
    if not is_float and not (pixels.min() >= 0 and pixels.max() <= 65535):
        raise ValueError(
            "it holds integers beyond 16 bits, which are not read: convert them"
        )
    if size:
        grey = PIL.Image.fromarray(np.asarray(pixels, np.float32))
        pixels = np.asarray(
            grey.resize((size[1], size[0]), PIL.Image.Resampling.BILINEAR)
        )
        pixels = pixels if is_float else np.round(pixels)
    return pixels.astype(np.float32 if is_float else np.uint16)[..., np.newaxis]
