"""Runs that begin with the variables of another model."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from flaxvae.checks import InputError, check_choice
from flaxvae.training.state import LoopState, Variables
from flaxvae.training.storage.run_folder import load
from flaxvae.training.trained import Trained


def begin_with(
    run: LoopState, source: Trained | str | Path, parts: Sequence[str] = ()
) -> LoopState:
    """The run at step 0 with variables of another model, whole or in some parts.

    Args:
      run: a run at step 0.
      source: a trained model, or a run's folder.
      parts: names such as ``encoder``; empty: all.

    Raises:
      InputError: a source that cannot be read, or parts of other shapes.
    """
    variables = _read(source)
    own = {"params": run.state.params, **run.state.collections}
    parts = (parts,) if isinstance(parts, str) else tuple(parts)
    if not parts:
        names = {name for tree in (own["params"], variables["params"]) for name in tree}
    else:
        names = set(parts)
        for part in parts:
            check_choice("part in start_parts", part, own["params"])
    replaced = {}
    for collection, tree in own.items():
        other = variables.get(collection, {})
        replaced[collection] = {**tree}
        for name in sorted(names & (tree.keys() | other.keys())):
            replaced[collection][name] = _fitting(tree, other, name)
    params = replaced.pop("params")
    state = run.state.begin(params, replaced)
    best = run.best
    if best is not None:
        copy = jax.tree.map(jnp.copy, state.variables)
        best = dataclasses.replace(best, variables=copy)
    return dataclasses.replace(run, state=state, best=best)


def _read(source: Trained | str | Path) -> Variables:
    """The variables of a trained model, or of a run's folder."""
    if isinstance(source, Trained):
        source.check_finite()
        return source.variables
    if not isinstance(source, str | Path):
        raise InputError(
            "start_from must be a trained model or a run's folder, got "
            f"{type(source).__name__}"
        )
    try:
        return load(source).variables
    except InputError as error:
        raise InputError(f"start_from cannot be read: {error}") from error


def _fitting(
    own: Mapping[str, optax.Params], source: Mapping[str, optax.Params], name: str
) -> optax.Params:
    """One part of another model's variables, if it has the same structure and shapes.

    Raises:
      InputError: it has not.
    """
    if name not in own or name not in source:
        which = "this model" if name not in own else "the other one"
        raise InputError(
            f"start_from must be a model with the same parts, and {which} has no "
            f"{name}: choose parts by start_parts"
        )
    shapes, others = (
        {
            jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
            for path, leaf in jax.tree.leaves_with_path(tree[name])
        }
        for tree in (own, source)
    )
    if shapes != others:
        key = next(
            k for k in sorted({*shapes, *others}) if shapes.get(k) != others.get(k)
        )
        raise InputError(
            f"start_from must have the shapes of this model's {name}, and {name}/{key} "
            f"is {others.get(key)} in place of {shapes.get(key)}"
        )
    return jax.tree.map(
        lambda mine, other: jnp.array(other, mine.dtype), own[name], source[name]
    )
