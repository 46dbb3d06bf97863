"""A run's metrics, settings and figures as TensorBoard's event files.

Without TensorFlow: tensorboardX has the messages. They are written at once, not by its
threads, so that a full disk is an error here and not a pause for ever.
"""

import contextlib
import importlib.util
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from flaxvae.checks import InputError
from flaxvae.files import writing
from flaxvae.objectives.objective import describe_objective
from flaxvae.training.storage.stored import Line
from flaxvae.training.trained import Trained

FOLDER = "tensorboard"  # in a run's folder
COMPARED = ("validation/elbo", "validation/loss")  # in the table of hyper-parameters


class EventFile(Protocol):
    """A file of events."""

    def close(self) -> object:
        """Closes the file."""


class EventWriter(Protocol):
    """What is used of tensorboardX's `EventsWriter`."""

    _py_recordio_writer: EventFile

    def write_event(self, event: object) -> object:
        """Adds an event."""

    def flush(self) -> object:
        """Writes what has been added."""

    def close(self) -> object:
        """Writes what has been added, and closes the file."""


class Image(Protocol):
    """An image of tensorboardX's `Summary`."""

    encoded_image_string: bytes


class Value(Protocol):
    """A value of tensorboardX's `Summary`."""

    image: Image


def check_tensorboard() -> None:
    """Raises `InputError` unless the writer is installed."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise InputError(
            'tensorboard needs tensorboardX: pip install -e ".[tensorboard]"'
        )


class TensorBoard:
    """A callback that writes ``train/loss``, ``codes/active_units``, ..., ``seconds``.

    ``fit(..., on_epoch=TensorBoard("runs/digits/tensorboard"))``; a run that continues
    declares void what a folder holds of later epochs. The first event is the table of
    hyper-parameters (tab HPARAMS); `Run.draw` adds the figures to the folder
    ``tensorboard`` of a run.

    Args:
      folder: of the event files.
      hyperparameters: numbers, texts and nested dicts of them, such as a config's
        settings. Default: the objective and the seed of the model that is trained.
    """

    def __init__(
        self, folder: str | Path, hyperparameters: Mapping[str, object] | None = None
    ) -> None:
        check_tensorboard()
        self._folder = Path(folder).expanduser()
        self._hyperparameters = hyperparameters
        self._writer: EventWriter | None = None

    def __call__(self, line: Line, trained: Trained | None = None) -> None:
        """Adds one point per epoch to each curve."""
        points: dict[str, float | None] = {}
        for split in ("train", "validation"):
            points |= {f"{split}/{name}": value for name, value in line[split].items()}
        for name, values in line.get("codes", {}).items():
            if not isinstance(values, list):
                points[f"codes/{name}"] = values
                continue
            points |= {f"codes/{name}/{d}": value for d, value in enumerate(values)}
        points["skipped"] = line.get("skipped")
        points["seconds"] = line.get("seconds")
        with self._writing():
            writer = self._writer or self._open(line["epoch"], trained, points)
            known = [
                {"tag": tag, "simple_value": value}
                for tag, value in points.items()
                if value is not None
            ]
            _add(writer, line["epoch"], summary={"value": known})
            writer.flush()

    def add_figures(self, paths: Sequence[str | Path], step: int) -> None:
        """Adds PNG files as images under their names, such as ``figures/samples``.

        What the folder has already, as where a command is repeated, is left out.
        """
        import PIL.Image

        known = read_values(self._folder)
        for path in map(Path, paths):
            with PIL.Image.open(path) as picture:
                width, height = picture.size
            image = {
                "width": width,
                "height": height,
                "colorspace": 4,  # RGBA
                "encoded_image_string": path.read_bytes(),
            }
            tag = f"figures/{path.stem}"
            before = known.get((tag, step))
            if before and before.image.encoded_image_string == path.read_bytes():
                continue
            with self._writing():
                writer = self._writer or self._open_file()
                _add(writer, step, summary={"value": [{"tag": tag, "image": image}]})
        self.close()

    def close(self) -> None:
        """Writes what is left; `fit` does so at its end. A later call goes on."""
        if self._writer is not None:
            with self._writing():
                self._writer.close()
            self._writer = None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """After an error the file is given up; a later call would begin another."""
        try:
            with writing(self._folder):
                yield
        except OSError:
            writer, self._writer = self._writer, None
            with contextlib.suppress(OSError, AttributeError):
                if writer is not None:
                    writer._py_recordio_writer.close()
            raise

    def _open(
        self, epoch: int, trained: Trained | None, points: Iterable[str]
    ) -> EventWriter:
        """A new file: what later epochs there are is void; the hyper-parameters."""
        from tensorboardX.proto.event_pb2 import SessionLog
        from tensorboardX.summary import hparams

        known = read_values(self._folder)
        writer = self._open_file()
        _add(writer, epoch, session_log={"status": SessionLog.START})
        found = self._hyperparameters
        if found is None and trained is not None:
            found = {"seed": trained.seed}
            if trained.objective is not None:
                found["objective"] = describe_objective(trained.objective)
        if found:
            names = [name for name in COMPARED if name in points]
            for summary in hparams(flatten_hyperparameters(found), names):
                if known.get((summary.value[0].tag, 0)) != summary.value[0]:
                    _add(writer, 0, summary=summary)
        return writer

    def _open_file(self) -> EventWriter:
        from tensorboardX.event_file_writer import EventsWriter

        self._folder.mkdir(parents=True, exist_ok=True)
        # A file is named by the second; a second writer within it would replace it.
        suffix = f".{time.time_ns()}"
        writer: EventWriter = EventsWriter(str(self._folder / "events"), suffix)
        self._writer = writer
        return writer


def _add(writer: EventWriter, step: int, **content: object) -> None:
    from tensorboardX.proto.event_pb2 import Event

    writer.write_event(Event(wall_time=time.time(), step=step, **content))


def add_figures(run_folder: str | Path, paths: Sequence[str | Path], step: int) -> None:
    """Adds figures to a run's event files, if it has some; see `TensorBoard`.

    Args:
      run_folder: the folder of a run.
      paths: PNG files.
      step: the number of epochs.
    """
    folder = Path(run_folder) / FOLDER
    if paths and folder.is_dir() and importlib.util.find_spec("tensorboardX"):
        TensorBoard(folder).add_figures(paths, step)


def read_values(folder: Path) -> dict[tuple[str, int], Value]:
    """What a folder's event files hold, by tag and step, without what is void."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    values: dict[tuple[str, int], Value] = {}
    for path in sorted(folder.glob("*tfevents*")):
        content, start = path.read_bytes(), 0
        while start + 12 <= len(content):
            # A record is its length, a checksum of that, itself, and its checksum.
            (length,) = struct.unpack_from("<Q", content, start)
            record = content[start + 12 : start + 12 + length]
            start += 16 + length
            try:
                event = Event.FromString(record)
            except Exception:  # damaged, or cut off by a kill
                break
            if event.session_log.status == SessionLog.START:
                values = {key: v for key, v in values.items() if key[1] < event.step}
            values |= {(value.tag, event.step): value for value in event.summary.value}
    return values


def flatten_hyperparameters(
    tree: Mapping[str, object], prefix: str = ""
) -> dict[str, bool | int | float | str]:
    """Nested settings as numbers, texts and truth values under dotted names.

    >>> flatten_hyperparameters({"model": {"hidden": [16, 8], "decoder": None}})
    {'model.hidden': '16, 8'}
    """
    flat: dict[str, bool | int | float | str] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten_hyperparameters(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            flat[f"{prefix}{name}"] = ", ".join(map(str, value))
        elif isinstance(value, bool | int | float | str):
            flat[f"{prefix}{name}"] = value
        elif value is not None:
            flat[f"{prefix}{name}"] = str(value)
    return flat
