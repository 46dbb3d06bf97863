"""Which programs a call compiles."""

import re

import jax


def list_programs(caplog, function, *args):
    """The names of the programs that a call compiles, each as often as it is."""
    caplog.clear()
    with jax.log_compiles():
        function(*args)
    found = (re.match(r"Compiling (?:jit\()?(\w+)", m) for m in caplog.messages)
    return [match[1] for match in found if match]
