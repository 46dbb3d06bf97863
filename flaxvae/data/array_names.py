"""Names of splits, examples and labels, as files, folders and arrays have them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

Role = Literal["x", "y"]

SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
SHORT_SPLIT_WORDS = {"train": ("tr",), "test": ("te",)}  # only beside a role: X_tr
ROLE_WORDS: Mapping[Role, Sequence[str]] = {  # in order of preference
    "x": (
        *("x", "images", "image", "imgs", "img", "data", "features", "inputs"),
        *("examples", "samples", "pixels"),
    ),
    "y": ("y", "labels", "label", "targets", "target", "classes", "class"),
}
SPLIT_OF = {word: split for split, words in SPLIT_WORDS.items() for word in words}


def find_split(name: str) -> str | None:
    """The split that a word names, in any case: ``"train"``, ``"validation"`` ...

    >>> find_split("Dev"), find_split("training"), find_split("plane")
    ('validation', 'train', None)
    """
    return SPLIT_OF.get(name.lower())


class ArrayName(NamedTuple):
    """What the name of an array says.

    Attributes:
      split: ``"train"``, ``"validation"``, ``"test"``; None where it names none.
      role: ``"x"`` (examples) or ``"y"`` (labels); None where a split stands alone.
      rank: the smaller, the more usual the word; decides between ``x`` and ``data``.
    """

    split: str | None
    role: Role | None
    rank: int


def read_array_name(name: str) -> ArrayName | None:
    """Reads a split word and a role word, in any order, with any separators and case.

    >>> read_array_name("validation_images")[:2], read_array_name("trainX")[:2]
    (('validation', 'x'), ('train', 'x'))
    >>> read_array_name("classnames")

    Returns:
      None for any other name.
    """
    match = _NAME.fullmatch(re.sub(r"[\W_]", "", name.lower()))
    if match is None or not any(match.groups()):
        return None
    split = _SPLITS.get(match["split"]) if match["split"] else None
    words = [word for word in (match["before"], match["after"]) if word]
    if not words:
        return ArrayName(split, None, 0) if match["split"] in SPLIT_OF else None
    for role, known in ROLE_WORDS.items():
        if all(word in known for word in words):
            return ArrayName(split, role, known.index(words[0]))
    return None


def choose_arrays(names: Iterable[str]) -> dict[tuple[str, Role], str]:
    """Chooses the arrays of each split among the names in a file.

    A name without a split word is of the training split, where no other is. A split
    word alone names examples where all of them stand alone (``train``, ``test``).

    Returns:
      ``{(split, role): name}``.
    """
    found: dict[tuple[str, Role], tuple[tuple[bool, int, str], str]] = {}
    read = {name: read_array_name(name) for name in names}
    known = {name: meaning for name, meaning in read.items() if meaning}
    is_bare = not any(meaning.role == "x" for meaning in known.values())
    for name, (split, role, rank) in known.items():
        if role is None and not is_bare:
            continue
        place = (split or "train", role or "x")
        order = (split is None, rank, name.swapcase())
        if place not in found or order < found[place][0]:
            found[place] = (order, name)
    return {place: name for place, (_, name) in found.items()}


_SPLITS = SPLIT_OF | {w: s for s, words in SHORT_SPLIT_WORDS.items() for w in words}
_ROLE = "|".join(word for words in ROLE_WORDS.values() for word in words)
_NAME = re.compile(
    f"(?P<before>{_ROLE})?(?P<split>{'|'.join(_SPLITS)})?(?P<after>{_ROLE})?"
)
