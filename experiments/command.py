"""What every command shares: flags from dataclasses, one-line errors, exit codes."""

import contextlib
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import tyro

from flaxvae import InputError
from flaxvae.settings import describe_value, flatten_settings
from flaxvae.training import NonFiniteError, hosts
from flaxvae.training.environment import use_compilation_cache
from flaxvae.training.interrupt import Interrupted

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

    0: done. 1: training met a non-finite number, or a disk is full. 2: a flag or a file
    cannot be used. 130, 143: ended by Ctrl-C or SIGTERM; a run in training has saved
    its state, and the same command continues it. The reason is one line on the
    standard error stream.
    """
    flags = None
    try:
        flags = parse(flags_class, args)
        start(getattr(flags, "start", Start()), describe_flags(flags))
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
      InputError: a value that the settings refuse. What the parser itself refuses, such
        as an unknown flag, ends the program with its own message and code 2.
    """
    program = f"python -m {flags_class.__module__}"
    args = split_numbers(sys.argv[1:] if args is None else args)
    page = Path(sys.argv[0])
    if page.parent.name == "experiments":  # started from the shell
        program = f"python -m experiments.{page.stem}"
    message = io.StringIO()
    try:
        # The parser would frame what the settings say in a box of several lines.
        with contextlib.redirect_stderr(message):
            return tyro.cli(flags_class, prog=program, args=args, use_underscores=True)
    except SystemExit as end:
        cause: BaseException | None = end
        while cause is not None:
            if isinstance(cause, InputError):
                raise cause from None
            cause = cause.__context__
        sys.stderr.write(message.getvalue())
        raise


def split_numbers(args: Sequence[str]) -> list[str]:
    """``--image_shape=28,28`` as ``--image_shape 28 28``, for every flag of numbers."""
    split: list[str] = []
    for arg in args:
        flag, equals, value = arg.partition("=")
        if flag.startswith("--") and equals and re.fullmatch(r"\d+(,\d+)+", value):
            split += [flag, *value.split(",")]
        else:
            split.append(arg)
    return split


def describe_flags(flags: Any) -> dict[str, Any]:
    """What the processes of a run must have in common, as JSON.

    Paths may differ from machine to machine; what is read there is compared later.
    """
    settings = flatten_settings(flags)
    own = {name: value for name, value in settings.items() if name not in OWN_FLAGS}
    return {"command": Path(sys.argv[0]).stem, "settings": describe_value(own)}


def start(flags: Start, card: Mapping[str, Any] | None = None) -> None:
    """Sets up what must be set up before the first array is created.

    Args:
      flags: of the connection and the computation.
      card: what all processes of a run must have in common.
    """
    if flags.precision != "default":
        jax.config.update("jax_default_matmul_precision", flags.precision)
    hosts.connect(flags.coordinator, flags.num_processes, flags.process_id, card=card)
    if flags.compilation_cache:
        use_compilation_cache()
