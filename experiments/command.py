"""What every command shares: flags from dataclasses, one-line errors, exit codes."""

import atexit
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax

from experiments.flags import read_flags
from flaxvae import InputError
from flaxvae.nn.products import is_slow
from flaxvae.settings import describe_value, flatten_settings
from flaxvae.training import NonFiniteError
from flaxvae.training.interrupt import Interrupted
from flaxvae.training.processes import hosts
from flaxvae.training.storage.environment import use_compilation_cache

OK, FAILED, BAD_INPUT = 0, 1, 2
OWN_FLAGS = (  # of one process, or paths, which differ between machines
    "coordinator",
    "num_processes",
    "process_id",
    "compilation_cache",
    "dataset",
    "data_dir",
    "workdir",
    "start_from",
)
SLOW = (
    "this processor does not multiply faster in bfloat16; training is as fast or "
    "faster with --dtype=float32"
)
INTERRUPTED = 128  # and the signal's number: 130 for Ctrl-C, 143 for SIGTERM

Flags = TypeVar("Flags")


@dataclass(frozen=True, kw_only=True)
class Start:
    """What is set up before the first array is created."""

    precision: Literal["default", "high", "highest"] = "default"
    """Precision of matrix products on GPU and TPU. The default of a TPU changes an ELBO
    by about 1 %."""
    compilation_cache: bool = True
    """Keep compiled programs in the user's cache folder, for the next start."""
    coordinator: str | None = None
    """HOST:PORT of process 0 of several. TPU VMs and SLURM need no such flag."""
    num_processes: int | None = None
    """Number of processes, with --coordinator."""
    process_id: int | None = None
    """Number of this process, from 0, with --coordinator."""


def run_command(
    command: Callable[[Flags], None],
    flags_class: type[Flags],
    args: Sequence[str] | None = None,
) -> None:
    """Reads the flags, runs the command, and exits with its code.

    0: done. 1: a number is not finite, every model of a sweep has failed, a disk is
    full, or another process has ended. 2: a flag or a file cannot be used. 130, 143:
    ended by Ctrl-C or SIGTERM; a run in training has saved its state, and the same
    command continues it. The reason is one line on the standard error stream.
    """
    flags = None
    # Or the interpreter would visit every object once more at its end, for 0.3 s.
    atexit.register(gc.freeze)
    try:
        flags = parse(flags_class, args)
        start(getattr(flags, "start", Start()), describe_flags(flags))
        if hosts.is_main() and is_slow(flatten_settings(flags).get("dtype")):
            print(f"NOTE: {SLOW}", file=sys.stderr)
        command(flags)
        code, reason = OK, ""
    except InputError as error:
        code, reason = BAD_INPUT, f"error: {error}"
    except (NonFiniteError, OSError) as error:
        code, reason = FAILED, f"error: {error}"
    except Interrupted as error:
        code, reason = INTERRUPTED + error.number, f"interrupted: {error}"
    except KeyboardInterrupt:
        code = INTERRUPTED + signal.SIGINT
        reason = "interrupted: the same command continues a run"
    except SystemExit as end:  # of the parser, which has said why
        if end.code:
            hosts.announce_failure(args or sys.argv[1:], "its flags are refused", 2)
        raise
    except Exception:
        if not hosts.are_connected():
            raise
        code, reason = FAILED, traceback.format_exc()
    if reason:
        print(reason, file=sys.stderr, flush=True)
    if flags is None:
        hosts.announce_failure(args or sys.argv[1:], strip(reason), code)
    if code and hosts.are_connected():
        hosts.abandon(strip(reason), code)
        os._exit(code)  # an orderly end would wait for processes that wait for this one
    sys.exit(code)


def strip(reason: str) -> str:
    """What another process quotes of a reason."""
    if reason.startswith("interrupted: "):
        return "it was interrupted"
    return reason.strip().splitlines()[-1].removeprefix("error: ")


def parse(flags_class: type[Flags], args: Sequence[str] | None = None) -> Flags:
    """The flags of the command line.

    Raises:
      InputError: an unknown flag, or a value that the settings refuse.
    """
    started = sys.modules["__main__"].__spec__  # by ``python -m``
    module = flags_class.__module__
    if module == "__main__":  # started by its path
        module = f"experiments.{Path(sys.argv[0]).stem}"
    if started is not None and started.name.startswith("experiments."):
        module = started.name.removesuffix(".__main__")  # of a package
    args = sys.argv[1:] if args is None else args
    return read_flags(flags_class, f"python -m {module}", args)


def describe_flags(flags: Any) -> dict[str, Any]:
    """What the processes of a run must have in common, as JSON.

    Paths may differ from machine to machine; what is read there is compared later.
    """
    settings = flatten_settings(flags)
    own = {name: value for name, value in settings.items() if name not in OWN_FLAGS}
    return {"command": Path(sys.argv[0]).stem, "settings": describe_value(own)}


def start(flags: Start, description: Mapping[str, Any] | None = None) -> None:
    """Sets up what must be set up before the first array is created.

    Args:
      flags: of the connection and the computation.
      description: what all processes of a run must have in common.
    """
    if flags.precision != "default":
        jax.config.update("jax_default_matmul_precision", flags.precision)
    hosts.connect(
        flags.coordinator,
        flags.num_processes,
        flags.process_id,
        description=description,
    )
    if flags.compilation_cache:
        use_compilation_cache()
