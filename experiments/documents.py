"""Tables that commands write into a document, between two comments of its source."""

from pathlib import Path

from flaxvae import InputError
from flaxvae.files import atomic_file


def find_between(path: Path, begin: str, end: str) -> tuple[str, str]:
    """The text of a document up to one comment, and from another one on.

    Raises:
      InputError: it has not each comment once, in this order.
    """
    before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended) or begin in rest or end in before + after:
        raise InputError(
            f"{path} must have the lines {begin} and {end} once each, in this order, "
            "where the table is to stand"
        )
    return before + begin, end + after


def write_between(path: Path, begin: str, end: str, text: str) -> None:
    """Puts ``text`` between two comments of a document, atomically.

    Raises:
      InputError: as `find_between`.
    """
    before, after = find_between(path, begin, end)
    with atomic_file(path) as temporary:
        temporary.write_text(f"{before}\n{text.rstrip()}\n{after}", encoding="utf-8")
