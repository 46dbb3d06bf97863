"""Which programs a call compiles."""

import re

import jax


def list_programs(caplog, function, *args):
    """The names of the programs that a call traces and lowers, as often as it does."""
    return _matches(caplog, r"Compiling (?:jit\()?(\w+)", function, *args)


def list_compiled(caplog, function, *args):
    """The names of those that XLA compiles, or reads from a cache on disk."""
    pattern = r"Finished XLA compilation of (?:jit\()?(\w+)"
    return _matches(caplog, pattern, function, *args)


def _matches(caplog, pattern, function, *args):
    caplog.clear()
    with jax.log_compiles():
        function(*args)
    found = (re.match(pattern, message) for message in caplog.messages)
    return [match[1] for match in found if match]
