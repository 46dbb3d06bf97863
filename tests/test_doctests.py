"""The examples in docstrings print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import flaxvae

MODULES = [
    name
    for name in (
        module.name
        for module in pkgutil.walk_packages(flaxvae.__path__, prefix="flaxvae.")
    )
    if ">>>" in (importlib.util.find_spec(name).loader.get_source(name) or "")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, tried = doctest.testmod(importlib.import_module(name), optionflags=options)
    assert tried and not failed
