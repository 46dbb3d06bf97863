import struct
import sys

import numpy as np
import PIL.Image
import pytest

import flaxvae
from flaxvae import latent
from flaxvae.checks import InputError
from flaxvae.training import Engine, TensorBoard, fit
from flaxvae.training.storage import recorder
from flaxvae.training.storage.tensorboard import add_figures

OPTIONS = {"progress": False}


def crc32c(data):
    """The Castagnoli checksum, bit by bit, and its mask in a TFRecord."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_events(folder):
    """Every event of every file, each record's checksums verified."""
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            length, check = struct.unpack("<QI", data[at : at + 12])
            assert check == crc32c(data[at : at + 8])
            content = data[at + 12 : at + 12 + length]
            (check,) = struct.unpack("<I", data[at + 12 + length : at + 16 + length])
            assert check == crc32c(content)
            events.append(Event.FromString(content))
            at += 16 + length
    return events


def scalars(events):
    return {
        (value.tag, event.step): value.simple_value
        for event in events
        for value in event.summary.value
    }


def test_event_files_hold_every_epochs_metrics(lasting, tmp_path):
    engine = Engine(tensorboard=True)
    trained = fit(lasting(3), workdir=tmp_path, engine=engine, **OPTIONS)
    found = scalars(read_events(tmp_path / "tensorboard"))
    for line in trained.history:
        for split in ("train", "validation"):
            for name, value in line[split].items():
                np.testing.assert_allclose(
                    found[f"{split}/{name}", line["epoch"]], value, rtol=1e-6
                )
    assert ("seconds", 3) in found


def test_it_is_an_ordinary_callback(lasting, tmp_path):
    write = TensorBoard(tmp_path)
    for epochs in (3, 1):
        trained = fit(lasting(epochs), on_epoch=write, **OPTIONS)
    found = scalars(read_events(tmp_path))
    loss = trained.history[0]["train"]["loss"]
    assert found["train/loss", 1] == pytest.approx(loss, rel=1e-6)
    assert ("seconds", 2) in found


def test_writers_of_one_second_keep_to_their_own_files(tmp_path):
    for epoch in (1, 2, 3, 4):
        write = TensorBoard(tmp_path)
        write({"epoch": epoch, "train": {"loss": epoch}, "validation": {}})
        write.close()
    found = scalars(read_events(tmp_path))
    assert found == {("train/loss", epoch): epoch for epoch in (1, 2, 3, 4)}


def test_a_resumed_run_voids_what_lies_behind_its_checkpoint(
    short, tmp_path, monkeypatch
):
    each = Engine(tensorboard=True, epochs_per_call=1, checkpoint_seconds=0.0)
    save = recorder.Recorder.save

    def fail(self, position, run, *, now):
        if position == 12:
            raise RuntimeError
        save(self, position, run, now=now)

    with monkeypatch.context() as patch:
        patch.setattr(recorder.Recorder, "save", fail)
        with pytest.raises(RuntimeError):
            fit(short, workdir=tmp_path, engine=each, **OPTIONS)
    fit(short, workdir=tmp_path, engine=each, **OPTIONS)
    starts = [e for e in read_events(tmp_path / "tensorboard") if e.session_log.status]
    assert starts[-1].step == 3  # epochs 1 and 2 stand, 3 is void and comes again


def test_what_is_missing_is_said(short, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="tensorboard needs a workdir"):
        fit(short, engine=Engine(tensorboard=True), **OPTIONS)
    with pytest.raises(InputError, match="profile needs a workdir"):
        fit(short, engine=Engine(profile=True), **OPTIONS)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match=r'pip install -e "\.\[tensorboard\]"'):
        fit(short, workdir=tmp_path, engine=Engine(tensorboard=True), **OPTIONS)


def test_a_profile_of_the_first_call(lasting, tmp_path):
    engine = Engine(profile=True, epochs_per_call=1)
    fit(lasting(3), workdir=tmp_path, engine=engine, **OPTIONS)
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 1000


def values_of(events):
    return {value.tag: value for event in events for value in event.summary.value}


def hyperparameters(value):
    """The names and values of a session in the hparams plugin's data."""
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    assert value.metadata.plugin_data.plugin_name == "hparams"
    content = HParamsPluginData.FromString(value.metadata.plugin_data.content)
    return {
        name: getattr(found, found.WhichOneof("kind"))
        for name, found in content.session_start_info.hparams.items()
    }


def test_hyperparameters_and_figures(lasting, tmp_path, monkeypatch):
    engine = Engine(tensorboard=True)
    run = flaxvae.fit(lasting(1), workdir=tmp_path, engine=engine, seed=7, **OPTIONS)
    other = TensorBoard(tmp_path / "other")
    other(run.history[0] | {"codes": {"active_units": None}}, run)
    other.close()
    path = tmp_path / "figures" / "samples.png"

    def draw(*args, **options):
        path.parent.mkdir(exist_ok=True)
        PIL.Image.new("L", (30, 20)).save(path)
        return [path]

    monkeypatch.setattr(latent, "draw", draw)
    run.draw()
    again = flaxvae.fit(lasting(1), workdir=tmp_path, engine=engine, seed=7, **OPTIONS)
    again.draw()
    events = read_events(tmp_path / "tensorboard")
    tags = [value.tag for event in events for value in event.summary.value]
    assert len(tags) == len(set(tags))
    values = values_of(read_events(tmp_path / "tensorboard"))
    found = hyperparameters(values["_hparams_/session_start_info"])
    assert (found["optimization.epochs"], found["seed"]) == (1, 7)
    assert (found["objective.name"], found["optimization.optimizer"]) == (
        "ELBO",
        "adam",
    )
    image = values["figures/samples"].image
    assert image.encoded_image_string == path.read_bytes()
    assert (image.width, image.height) == (30, 20)
    values = values_of(read_events(tmp_path / "other"))
    found = hyperparameters(values["_hparams_/session_start_info"])
    assert found == {"seed": 7, "objective.name": "ELBO", "objective.beta": 1.0} | {
        "objective.kl": "analytic",
        "objective.num_samples": 1,
    }


def test_a_run_without_event_files_gets_none(tmp_path):
    add_figures(tmp_path, [tmp_path / "a.png"], 1)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_error_at_once(tmp_path, monkeypatch):
    from tensorboardX.event_file_writer import EventsWriter

    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EventsWriter, "flush", full)
    with pytest.raises(OSError, match=r"tb could not be written: No space left"):
        TensorBoard(tmp_path / "tb")({"epoch": 1, "train": {}, "validation": {}})
