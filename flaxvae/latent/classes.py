"""Names of classes."""

from collections.abc import Sequence

import numpy as np


def name_class(label: int | np.integer, class_names: Sequence[object] | None) -> str:
    """The name of a class by its label, whichever classes a split holds.

    >>> [name_class(label, ("ant", "bee")) for label in (1, 7, -1)]
    ['bee', '7', '-1']

    Args:
      label: of the class, from 0.
      class_names: names of the classes 0, 1, ..., or None; a label beyond them is its
        own name.
    """
    names = () if class_names is None else class_names
    return str(names[int(label)] if 0 <= label < len(names) else label)
