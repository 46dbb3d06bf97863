"""A run's folder: its settings, its course, its results.

``config.json``    settings, model, data, versions and device
``metrics.jsonl``  one line per epoch
``timing.jsonl``   seconds of each epoch; apart, since all else is reproducible
``checkpoints/``   the newest states of the run
``figures/``       pictures
``tensorboard/``   event files, if asked for
``profile/``       a trace of one compiled call, if asked for
``summary.json``   the final numbers
``after_N_epochs/``  figures and numbers of a run that has gone on since
"""

import contextlib
import errno
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar, cast

import flax.linen as nn
import jax
import numpy as np
import optax

from flaxvae.checks import (
    InputError,
    as_integer,
    check_at_least,
    check_choice,
    check_seed,
    show,
)
from flaxvae.data import Dataset, Preprocessing
from flaxvae.data.memory import as_dataset
from flaxvae.files import as_json, atomic_file, write_json, writing
from flaxvae.models.description import module_from_description
from flaxvae.models.variables import variable_shapes
from flaxvae.objectives.objective import (
    Objective,
    describe_objective,
    objective_from_description,
)
from flaxvae.settings import describe_value, flatten_tree
from flaxvae.training.inputs import learns_labels
from flaxvae.training.state import Variables
from flaxvae.training.storage.checkpoint import Checkpoints
from flaxvae.training.storage.config import describe_model
from flaxvae.training.storage.environment import describe_environment
from flaxvae.training.storage.stored import (
    PARTS,
    Line,
    check_data,
    check_line,
    check_names,
    check_optimization,
    read_json,
    read_lines,
    rebuilding,
    section,
    written_by,
)
from flaxvae.training.trained import Trained
from flaxvae.types import Json

T = TypeVar("T")

EPOCHS = "optimization.epochs"
MOST_DIFFERENCES = 20  # that a message lists
COMPARED = ("settings", "data", "model")  # in which a resumed run must agree
# Of the data; a run may go on for more epochs.
OTHER_DATA = " (other examples, another order, other conditions or weights)"
# Data that moved, or whose test split or labels are others, train the same model.
NOT_COMPARED = ("origin", "notes", "source", "fingerprints", EPOCHS)
REPORTS = (  # what belongs to a run's last epoch, such as the prior of its codes
    *("gallery.html", "figures", "explorer.html", "samples.npz", "codes.npz"),
    *("codes.parquet", "evaluation.json", "probe.json", "recognition.json"),
    *("summary.json", "prior"),
)
ABOUT_EXAMPLES = ("fingerprints", "source")  # their names depend on the data
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # not the user's choice


class RunFolder:
    """Reads and writes one run's folder, atomically."""

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, str | os.PathLike):
            raise InputError(f"workdir must be a path, got {show(path)}")
        self.path = Path(path).expanduser()
        self.checkpoints = self.path / "checkpoints"
        self._metrics = self.path / "metrics.jsonl"
        self._timing = self.path / "timing.jsonl"
        self._config = self.path / "config.json"
        self._summary = self.path / "summary.json"

    def open(self, config: Mapping[str, object]) -> None:
        """Creates the folder, or checks that it belongs to a run of this config.

        A config with more epochs, and otherwise the same, replaces the one before, and
        what was reported of fewer epochs is set aside.

        Raises:
          InputError: the folder cannot be written, or it holds another run; the
            message names what differs.
        """
        _check_local(self.path)
        now = _as_json(config)
        if self._config.exists():
            before = self.config
            self._check_same_settings(before, now)
            self._check_same_program(before, now)
            if _epochs(now) != _epochs(before):
                self._set_reports_aside(_epochs(before))
                write_json(self._config, now)
            elif _is_news(_part(before, "data"), _part(now, "data")):
                write_json(self._config, {**before, "data": now["data"]})
            return
        if self.checkpoints.is_dir() and any(self.checkpoints.iterdir()):
            raise InputError(
                f"workdir {str(self.path)!r} holds checkpoints of a run whose "
                "config.json is missing: put it back, or choose another workdir"
            )
        self.create()
        write_json(self._config, now)

    def create(self) -> None:
        """Creates the folder.

        Raises:
          InputError: it cannot be written.
        """
        check_writable(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in FULL:
                raise
            reason = os.strerror(error.errno) if error.errno else error
            raise InputError(
                f"workdir must be a writable folder, got {str(self.path)!r} ({reason})"
            ) from error

    def _set_reports_aside(self, epochs: int) -> None:
        """Moves what belongs to a finished run into ``after_N_epochs``."""
        found = [name for name in REPORTS if (self.path / name).exists()]
        if not found:
            return
        aside = self.path / f"after_{epochs}_epochs"
        with writing(aside):
            aside.mkdir(exist_ok=True)
            for name in found:
                if not (aside / name).exists():
                    (self.path / name).rename(aside / name)

    def check_settings(self, config: Mapping[str, object]) -> None:
        """Raises `InputError` as `open` would, for what needs no compiled program.

        Args:
          config: without the ``program``.
        """
        if self._config.exists():
            self._check_same_settings(self.config, _as_json(config))

    def _check_same_settings(
        self, before: Mapping[str, Json], config: Mapping[str, Json]
    ) -> None:
        for part in COMPARED:
            old, new = flatten_tree(before.get(part)), flatten_tree(config.get(part))
            differences = [
                f"{name} was {old.get(name)}, now {new.get(name)}"
                + (OTHER_DATA if name == "fingerprint" else "")
                for name in sorted(old.keys() | new.keys())
                if old.get(name) != new.get(name)
                and not {name, name.split(".")[0]} & set(NOT_COMPARED)
                and not (name == "name" and _has_same_fingerprint(old, new))
            ]
            if differences:
                more = len(differences) - MOST_DIFFERENCES
                shown = differences[:MOST_DIFFERENCES]
                shown += [f"and {more} more"] if more > 0 else []
                self._refuse(f"{part}: {'; '.join(shown)}{written_by(before)}")
        if _epochs(config) < _epochs(before):
            self._refuse(f"its epochs were {_epochs(before)}, now {_epochs(config)}")

    def _check_same_program(
        self, before: Mapping[str, Json], config: Mapping[str, Json]
    ) -> None:
        own, now = _part(before, "program"), _part(config, "program")
        if own.get("versions") != now.get("versions"):
            return
        if own.get("optimizer") != now.get("optimizer") and "optimizer" in own:
            self._refuse(
                "the compiled train step differs: the optimizer computes something "
                "else, by another learning rate, schedule or constant"
            )
        if own.get("checksum") != now.get("checksum"):
            self._refuse(
                "the compiled train step differs: the objective, or a function or a "
                "module of your own, or this version of flaxvae computes something else"
            )

    def _refuse(self, difference: str) -> NoReturn:
        raise InputError(
            f"workdir {str(self.path)!r} holds another run ({difference}): choose "
            "another workdir, or repeat that run's settings"
        )

    @property
    def config(self) -> dict[str, Json]:
        """What ``config.json`` says.

        Raises:
          InputError: there is none, so this is not a run's folder.
        """
        return read_json(self._config)

    @property
    def epochs(self) -> int | None:
        """Epochs of the whole run; None where the folder holds none."""
        return _epochs(self.config) if self._config.exists() else None

    @property
    def summary(self) -> dict[str, Json] | None:
        """What ``summary.json`` says, or None before the run's end."""
        return read_json(self._summary) if self._summary.exists() else None

    def write_summary(self, summary: Mapping[str, object]) -> None:
        """Writes ``summary.json``."""
        write_json(self._summary, summary)

    def append(self, lines: Sequence[Line], seconds: Sequence[float | None]) -> None:
        """Adds epochs to ``metrics.jsonl`` and ``timing.jsonl``, one write each.

        ``seconds`` of an epoch are None where they are not known.
        """
        timing = [
            {"epoch": line["epoch"], "seconds": s}
            for line, s in zip(lines, seconds, strict=True)
            if s is not None
        ]
        for path, contents in ((self._metrics, lines), (self._timing, timing)):
            text = "".join(as_json(c, path) + "\n" for c in contents)
            with writing(path), path.open("a") as file:
                file.write(text)

    def rewind(self, epochs: int) -> None:
        """Cuts ``metrics.jsonl`` and ``timing.jsonl`` back to the first ``epochs``."""
        for path in (self._metrics, self._timing):
            lines = read_lines(path)
            kept = [line for epoch, line in lines.items() if epoch <= epochs]
            text = "".join(json.dumps(line) + "\n" for line in kept)
            if path.exists() and path.read_text() != text:
                with atomic_file(path) as temporary:
                    temporary.write_text(text)

    def read_metrics(self) -> list[dict[str, Json]]:
        """One dict per epoch, without a line that was cut off by a kill."""
        return [*read_lines(self._metrics).values()]

    def read_history(self, members: int | None = None) -> list[Line]:
        """`read_metrics` of a training, or of the trainings of a sweep's program.

        Raises:
          InputError: a line that is not of one.
        """
        lines = self.read_metrics()
        for line in lines:
            try:
                check_line(line, members)
            except InputError as error:
                raise InputError(f"{self._metrics}: {error}") from None
        return cast(list[Line], lines)

    def note_gaps(
        self, history: Sequence[Line], epochs: int, timed: int | None
    ) -> None:
        """Says on the standard error stream which epochs the run's files have lost."""
        known = {line["epoch"] for line in history}
        lost = [epoch for epoch in range(1, epochs + 1) if epoch not in known]
        texts = []
        if lost:
            texts.append(f"{self._metrics.name} lacks {_show_epochs(lost)} of {epochs}")
        if timed is not None and timed < epochs:
            texts.append(f"{self._timing.name} lacks {epochs - timed} of {epochs}")
        if texts:
            print(
                f"NOTE: in {self.path} {' and '.join(texts)}: the history, the curves "
                "and the times are those of the others; the model is whole",
                file=sys.stderr,
            )

    def read_seconds(self) -> list[float]:
        """Seconds of each epoch."""
        seconds = []
        for line in read_lines(self._timing).values():
            value = line.get("seconds")
            if not (isinstance(value, int | float) and 0 <= value < np.inf):
                raise InputError(f"{self._timing} must hold seconds, got {show(value)}")
            seconds.append(float(value))
        return seconds

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps a second run out of the folder; ends with the process, however.

        Raises:
          InputError: another run holds the folder.
        """
        try:
            import fcntl
        except ImportError:  # not a POSIX system
            yield
            return
        with writing(self.path / ".lock"):
            stack = (self.path / ".lock").open("w")
        with stack as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"workdir {str(self.path)!r} is in use by another run: wait for "
                    "it, or choose another workdir"
                ) from error
            yield


def load(
    workdir: str | Path, model: nn.Module | None = None, *, check: bool = True
) -> Trained:
    """Loads a trained model from a run's folder, without pickles.

    Args:
      workdir: the folder that a run wrote.
      model: the model, where it has parts that are not flaxvae's own; otherwise it
        is rebuilt from ``config.json``. What differs from what is described there is
        named on the standard error stream.
      check: False: also loads a run that failed, to look at its variables and history;
        what it would compute is refused.

    Returns:
      The model with the parameters of the newest checkpoint.

    Raises:
      InputError: the folder holds no run or no checkpoint, or the model cannot be
        rebuilt.
      NonFiniteError: the run has failed, or a parameter is infinite or NaN.
    """
    folder = RunFolder(workdir)
    config = folder.config
    path = folder.path / "config.json"
    data, description = section(config, "data", path), section(config, "model", path)
    settings = section(config, "settings", path, optional=True)
    section(config, "notes", path, optional=True)
    with rebuilding(path, config, "config.json"):
        check_names(config, dict.fromkeys(PARTS), "config.json")
    with rebuilding(path, config, "data"):
        shape, template, preprocessing = _rebuild_data(data)
    with rebuilding(path, config, "settings"):
        check_optimization(settings.get("optimization", {}))
        objective = _rebuild_objective(settings)
        seed = check_seed(settings.get("seed", 0))
        seconds = cast(dict[str, float], config.get("timing", {}))
        timing = {k: float(v) for k, v in seconds.items()}
        best_epoch = _optional(int, config, "best_epoch")
        epochs = _optional(int, config, "epochs")
        failure = _optional(str, config, "failure")
        check_at_least("epochs", epochs or 0, 0)
    if model is not None:
        like = variable_shapes(model, shape)
        _note_other_model(folder.path, config, describe_model(model, shape))
    else:
        with rebuilding(path, config, "model"):
            model = module_from_description(description)
            like = variable_shapes(model, shape)
    history = folder.read_history()
    variables, progress = restore_variables(folder.checkpoints, like)
    last = history[-1]["epoch"] if history else 0
    epochs = epochs or _optional(int, progress, "epochs") or last
    folder.note_gaps(history, epochs, timed=None)
    if "best_epoch" in progress:
        best_epoch = _optional(int, progress, "best_epoch")
    elif best_epoch is None:
        best_epoch = _find_best(history, settings)
    trained = Trained(
        model=model,
        variables=variables,
        data_shape=shape,
        preprocessing=template.preprocessing if template else preprocessing,
        template=template,
        history=history,
        timing=timing,
        epochs=epochs,
        best_epoch=best_epoch,
        failure=failure,
        objective=objective,
        seed=seed,
        workdir=folder.path,
    )
    if check:
        trained.check_finite()
    return trained


def _rebuild_data(
    data: Mapping[str, Json],
) -> tuple[tuple[int, ...], Dataset | None, Preprocessing]:
    """The shape of an example, the data set without examples, and its preprocessing."""
    check_data(data)
    sizes = cast(list[Json], data["shape"])
    shape = tuple(as_integer("shape", n, 1) for n in sizes)
    preprocessing = Preprocessing.from_description(data)
    if "stored" not in data:
        return shape, None, preprocessing
    _check_object("stored", data["stored"])
    template = Dataset.from_description(data)
    own = {k: v for k, v in data.items() if k not in ABOUT_EXAMPLES}
    check_names(own, template.describe())
    return shape, template, preprocessing


def _rebuild_objective(settings: Mapping[str, Json]) -> Objective | None:
    """The objective; None for one of the user's own, whose name has dots."""
    described = cast(dict[str, Json], settings.get("objective", {"name": ""}))
    objective = objective_from_description(described)
    if objective is None and str(described["name"]).isidentifier():
        known = [kind.__name__ for kind in Objective.__subclasses__()]
        check_choice("objective", str(described["name"]), known)
    return objective


def save(trained: Trained, workdir: str | Path, dataset: Dataset | None = None) -> None:
    """Writes a trained model into a run's folder of its own, for `load`.

    Its history, timing, objective and seed are written, too.

    Args:
      trained: the model and its variables.
      workdir: a folder that holds no run yet.
      dataset: what it is a model of; described in ``config.json``. None: as the run's
        own folder describes it.

    Raises:
      InputError: the folder holds a run, or cannot be written; or no data set.
      NonFiniteError: a parameter is infinite or NaN, or the run has failed.
    """
    trained.check_finite()
    folder = RunFolder(workdir)
    data: object
    if dataset is not None:
        data = as_dataset(dataset).describe(with_labels=learns_labels(trained.model))
    elif trained.workdir is not None:
        data = RunFolder(trained.workdir).config["data"]
    else:
        raise InputError("dataset must be stated for a model without a run's folder")
    objective = {}
    if trained.objective is not None:
        objective = {"objective": describe_objective(trained.objective)}
    config = {
        "settings": {"seed": trained.seed} | objective,
        **describe_model(trained.model, trained.data_shape),
        "data": data,
        "notes": {},
        "environment": describe_environment(),
        "timing": trained.timing,
        "epochs": trained.epochs,
        "best_epoch": trained.best_epoch,
    }
    check_no_run(folder.path)
    with writing(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder.path) as temporary:
            new = RunFolder(temporary)
            new.open(config)
            checkpoints = Checkpoints(new.checkpoints)
            checkpoints.save(0, {"model": jax.tree.map(np.array, trained.variables)})
            checkpoints.close()
            each = trained.timing.get("seconds_per_epoch", 0.0)
            new.append(trained.history, [each] * len(trained.history))
            # What has config.json is a run: it comes last.
            for path in sorted(new.path.iterdir(), key=_is_config):
                path.rename(folder.path / path.name)


def _note_other_model(
    folder: Path, before: Mapping[str, Json], now: Mapping[str, object]
) -> None:
    """Says where a model is not the one of ``config.json``, by fields or by code."""
    new_config = _as_json(now)
    old, new = (flatten_tree(_part(each, "model")) for each in (before, new_config))
    codes = [_part(each, "model_code") for each in (before, new_config)]
    if old == new and all(codes) and codes[0] != codes[1]:
        if codes[0].get("versions") == codes[1].get("versions"):
            print(
                f"NOTE: {folder} holds a run of another model: a module of the same "
                "name and fields computed something else",
                file=sys.stderr,
            )
        return
    names = sorted(name for name in old | new if old.get(name) != new.get(name))
    if names:
        more = len(names) - MOST_DIFFERENCES
        shown = [f"{n} was {old.get(n)}, now {new.get(n)}" for n in names]
        shown[MOST_DIFFERENCES:] = [f"and {more} more"] if more > 0 else []
        print(
            f"NOTE: {folder} holds a run of another model: {'; '.join(shown)}",
            file=sys.stderr,
        )


def _is_config(path: Path) -> bool:
    return path.name == "config.json"


def restore_variables(
    folder: Path, like: Variables
) -> tuple[dict[str, optax.Params], dict[str, Json]]:
    """The variables of a folder's newest checkpoint, and how long they were trained.

    Args:
      folder: a run's ``checkpoints`` folder.
      like: variables, or their shapes, of the model.

    Returns:
      The variables, and ``epochs`` and ``best_epoch`` of a run that was trained.

    Raises:
      InputError: the folder has no checkpoint, or that of another model.
    """
    found = None
    if folder.is_dir():
        with contextlib.closing(Checkpoints(folder, read_only=True)) as checkpoints:
            found = checkpoints.restore({"model": like})
    if found is None:
        raise InputError(f"{folder} must hold a checkpoint, got none")
    return dict(found.trees["model"]), found.progress


def check_writable(workdir: Path, name: str = "workdir") -> None:
    """Raises `InputError` unless files can be created in ``workdir``; creates none."""
    _check_local(workdir)
    try:
        folder = workdir.absolute()
        while not folder.exists():
            folder = folder.parent
        writable = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
        reason = "" if writable else f": {folder} is not one"
    except OSError as error:
        reason = f": {error.strerror}"
    if reason:
        raise InputError(
            f"{name} must be a writable folder, got {str(workdir)!r}{reason}"
        )


def check_no_run(workdir: Path) -> None:
    """Raises `InputError` unless a run can be written in ``workdir``, and none is."""
    check_writable(workdir)
    folder = RunFolder(workdir)
    if folder.path.joinpath("config.json").exists() or folder.checkpoints.exists():
        raise InputError(f"workdir must hold no run yet, got {str(workdir)!r}")


def check_new_file(output: Path, suffixes: Sequence[str] = ()) -> None:
    """Raises `InputError` unless ``output`` can be created, as one of ``suffixes``."""
    if suffixes and output.suffix.lower() not in suffixes:
        raise InputError(
            f"output must end in {' or '.join(suffixes)}, got {str(output)!r}"
        )
    if output.expanduser().exists():
        raise InputError(f"output must not exist yet, got {str(output)!r}")
    check_writable(output.expanduser().absolute().parent, "output's folder")


def _check_local(workdir: Path) -> None:
    """``gs://bucket/run`` would silently become a folder named ``gs:``."""
    if re.match(r"\w\w+:/", str(workdir)):
        raise InputError(
            f"workdir must be a folder of the file system, got {str(workdir)!r}: mount "
            "the bucket (for example by gcsfuse) and name a folder in it"
        )


def _as_json(config: Mapping[str, object]) -> dict[str, Json]:
    """A config as ``config.json`` holds it."""
    described: dict[str, Json]
    described = json.loads(json.dumps(describe_value(config), allow_nan=False))
    return described


def _has_same_fingerprint(old: Mapping[str, object], new: Mapping[str, object]) -> bool:
    """Whether the data are the same, such as of a file with another name."""
    return "fingerprint" in old and old["fingerprint"] == new.get("fingerprint")


def _part(config: Mapping[str, Json], name: str) -> dict[str, Json]:
    """An object in an object; empty where there is none."""
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _is_news(before: Mapping[str, Json], now: Mapping[str, Json]) -> bool:
    """Whether the same data are described with a source that the run did not know."""
    if not now or now == before:
        return False
    return now.get("source") is not None or "fingerprints" not in before


def _find_best(history: Sequence[Line], settings: Mapping[str, Json]) -> int | None:
    """The epoch that early stopping chose, if it was on.

    For runs of a version whose checkpoints do not say it: -ELBO was compared, or the
    loss without one.
    """
    chosen = _part(settings, "optimization")
    if chosen.get("early_stopping") is None or not history:
        return None
    if history[-1]["epoch"] != len(history):  # it may be among those that are lost
        return None
    terms = [line["validation"] for line in history]
    values = [-each["elbo"] if "elbo" in each else each["loss"] for each in terms]
    return int(history[int(np.argmin(values))]["epoch"])


def _epochs(config: Mapping[str, Json]) -> int:
    """Epochs of the whole run; 0 where a config states none."""
    epochs = _part(_part(config, "settings"), "optimization").get("epochs")
    return epochs if isinstance(epochs, int) else 0


def _optional(kind: type[T], described: Mapping[str, Json], name: str) -> T | None:
    """A value of ``config.json``, or of a checkpoint, that may be missing."""
    value = described.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{name} must be {kind.__name__}, got {show(value)}")
    return value


def _check_object(name: str, value: Json) -> None:
    if not isinstance(value, dict):
        raise InputError(f"{name} must be an object, got {show(value)}")


def _show_epochs(epochs: Sequence[int]) -> str:
    """Numbers of epochs, such as ``epochs 1 to 3, 7``."""
    runs: list[list[int]] = []
    for epoch in epochs:
        if runs and epoch == runs[-1][-1] + 1:
            runs[-1].append(epoch)
        else:
            runs.append([epoch])
    texts = [f"{r[0]} to {r[-1]}" if len(r) > 1 else str(r[0]) for r in runs[:5]]
    more = [f"{len(runs) - 5} more ranges"] if len(runs) > 5 else []
    word = "epoch" if len(epochs) == 1 else "epochs"
    return f"{word} {', '.join([*texts, *more])}"
