"""What a file holds, by its first bytes: its suffix may be missing or wrong."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from flaxvae.checks import InputError

READ_AS = {  # first bytes: the suffix of the reader
    b"\x93NUMPY": ".npy",
    b"MATLAB 5.0 MAT-file": ".mat",
    b"MATLAB 7.3 MAT-file": ".mat",
    b"PAR1": ".parquet",
}
OTHERS = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "an empty zip archive",
    b"\x1f\x8b": "gzipped",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x89HDF": "an HDF5 file",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"II*\x00": "a TIFF image",
    b"MM\x00*": "a TIFF image",
    b"%PDF": "a PDF",
    b"SQLite format 3": "an SQLite database",
    b"ARROW1": "an Arrow file",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself",
    b"\x80\x02": "pickled Python objects, which are not read",
    b"\x80\x03": "pickled Python objects, which are not read",
    b"\x80\x04": "pickled Python objects, which are not read",
    b"\x80\x05": "pickled Python objects, which are not read",
}
PLAUSIBLE: Mapping[str, Sequence[str]] = {  # what damaged files of a suffix look like
    ".npy": (),
    ".npz": ("a zip archive", "an empty zip archive"),
    ".mat": ("of an unknown format", "text"),
    **dict.fromkeys(
        (".csv", ".tsv", ".txt"),
        ("empty", "of an unknown format", "text", "text, perhaps JSON"),
    ),
    ".parquet": (),
}
SNIFFED = 512  # bytes


def find_format(path: Path) -> str | None:
    """The suffix of the reader for a file: ``.npy``, ``.npz``, ``.mat``, ``.parquet``.

    Returns:
      None where the first bytes do not tell.

    Raises:
      OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        start = file.read(SNIFFED)
    for mark, suffix in READ_AS.items():
        if start.startswith(mark):
            return suffix
    if start.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except Exception:  # damaged archives raise many types
            return None
        return ".npz" if any(name.endswith(".npy") for name in names) else None
    return None


def find_foreign(path: Path) -> str | None:
    """What a file of arrays or a table is in truth, by its first bytes.

    Returns:
      None where its content may be what its suffix says, and for other suffixes.
    """
    kinds = PLAUSIBLE.get(path.suffix.lower())
    try:
        if kinds is None or find_format(path) is not None:
            return None
        content = describe_content(path)
    except OSError:
        return None
    return None if content in kinds else content


def describe_content(path: Path) -> str:
    """What the first bytes of a file are, in words: ``"a PNG image"``, ``"text"``."""
    with path.open("rb") as file:
        start = file.read(SNIFFED)
    if not start:
        return "empty"
    if suffix := find_format(path):
        return f"a {suffix} file"
    for mark, words in OTHERS.items():
        if start.startswith(mark):
            return words
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "a WebP image"
    if start[4:8] == b"ftyp":
        kinds = {b"heic": "a HEIC image", b"mif1": "a HEIF image"}
        return kinds.get(start[8:12], "a HEIF, AVIF or MP4 file")
    if start.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        return "an HTML page"
    if start.lstrip()[:1] in (b"{", b"["):
        return "text, perhaps JSON"
    is_text = all(byte >= 32 or byte in b"\t\r\n\f" for byte in start)
    if is_text:
        return "text"
    return "a BMP image" if start.startswith(b"BM") else "of an unknown format"


def unreadable(path: Path, error: Exception) -> InputError:
    """The error for a file that its reader could not read."""
    if foreign := find_foreign(path):
        return InputError(f"{path} cannot be read: it is {foreign}")
    reason = str(getattr(error, "strerror", None) or error).partition("\n")[0].strip()
    if "pickle" in reason.lower() or "Python objects" in reason:
        reason = (
            "it holds Python objects, which are not read: store numbers, and texts as "
            "NumPy's str"
        )
    elif "Please use HDF reader" in reason:
        reason = "MATLAB's format 7.3 is not read: save it with -v7"
    return InputError(f"{path} cannot be read: {reason or type(error).__name__}")
