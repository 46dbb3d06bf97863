"""Weight files as people have them: read, or refused in one line of our own."""

import argparse
import collections
import gzip
import io
import json
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.interop.tensors import read_weights
from flaxvae.training import NonFiniteError

torch = pytest.importorskip("torch")
nn = torch.nn


class Program(nn.Module):
    """The VAE of pytorch/examples for eight pixels."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(8, 5)
        self.fc21, self.fc22 = nn.Linear(5, 2), nn.Linear(5, 2)
        self.fc3, self.fc4 = nn.Linear(2, 5), nn.Linear(5, 8)


class HyperParameters(dict):
    """A dict of a class of its own, as Lightning's AttributeDict."""


class Evil:
    def __reduce__(self):
        return print, ("pickled code has run",)


torch.manual_seed(0)
MODULE = Program()
STATE = MODULE.state_dict()


def saved(content, **options):
    """The bytes of ``torch.save``."""
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def prefixed(prefix, state=STATE):
    return {prefix + name: tensor for name, tensor in state.items()}


def as_safetensors(state=STATE, cut=0):
    from safetensors.torch import save

    data = save(dict(state))
    return data[: len(data) - cut]


def as_npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def zipped(**files):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return file.getvalue()


def damaged():
    data = bytearray(saved(STATE))
    place = data.find(STATE["fc1.weight"].numpy().tobytes())
    data[place + 8] ^= 255
    return bytes(data)


def checkpoint(**entries):
    moments = {"step": torch.tensor(1.0), "exp_avg": torch.ones(5, 8)}
    optimizer = {"state": {0: moments}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    return {"epoch": 3, "optimizer_state_dict": optimizer, **entries}


def quantized():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch will remove them
        tensors = {
            name: torch.quantize_per_tensor(tensor, 0.01, 0, torch.qint8)
            for name, tensor in STATE.items()
        }
    return saved(tensors)


NUMPY = {name: tensor.numpy() for name, tensor in STATE.items()}
READ = {  # name of the file: how its bytes are made, a part of the note
    "plain.pt": (lambda: saved(STATE), None),
    "none": (lambda: saved(STATE), None),
    "lightning.CKPT": (
        lambda: saved(
            checkpoint(
                state_dict=prefixed("model."),
                hyper_parameters=HyperParameters(lr=1e-3),
                callbacks={"args": argparse.Namespace(lr=1)},
                path=Path("runs"),
            )
        ),
        "the entry 'state_dict'; the prefix 'model.'",
    ),
    "epochs.pth.tar": (
        lambda: saved(checkpoint(model_state_dict=STATE, loss=np.float64(0.5))),
        "the entry 'model_state_dict'",
    ),
    "model.bin": (
        lambda: saved({"model": STATE, "loss": torch.tensor(0.5)}),
        "'model'",
    ),
    "net.pkl": (
        lambda: saved({"net": prefixed("module._orig_mod.")}),
        "'module._orig_mod.'",
    ),
    "ema.pth": (lambda: saved({"ema": {"shadow": STATE}}), "'ema.shadow'"),
    "both.pt": (
        lambda: saved({"ema": STATE, "model": STATE}),
        "the entry 'model', not of ema",
    ),
    "old.pt": (
        lambda: saved(checkpoint(net=STATE), _use_new_zipfile_serialization=False),
        "'net'",
    ),
    "parts.pt": (
        lambda: saved({"encoder": STATE, "decoder": {"fc1.bias": torch.ones(2)}}),
        "the entries encoder, decoder together",
    ),
    "average.pt": (
        lambda: saved({"n_averaged": torch.tensor(3)} | prefixed("module.")),
        "the prefix 'module.'",
    ),
    "extra.pt": (lambda: saved(dict(STATE) | {"epoch": 3}), "not a tensor: epoch"),
    "UPPER.SAFETENSORS": (as_safetensors, None),
    "renamed.pt": (as_safetensors, None),
    "arrays.npz": (lambda: as_npz(**NUMPY), None),
    "half.pt": (
        lambda: saved({n: t.bfloat16() for n, t in STATE.items()}),
        None,
    ),
    "bf16.safetensors": (
        lambda: as_safetensors({n: t.bfloat16() for n, t in STATE.items()}),
        None,
    ),
    "double.pt": (lambda: saved({n: t.double() for n, t in STATE.items()}), None),
    "sparse.pt": (lambda: saved({n: t.to_sparse() for n, t in STATE.items()}), None),
    "quantized.pt": (
        quantized,
        None,
    ),
    "gradients.pt": (lambda: saved(dict(MODULE.named_parameters())), None),
}
ADVICE = r"torch.save\(model.state_dict\(\), path\)"
REFUSED = {  # name of the file: how its bytes are made, a part of the message
    "module.pt": (lambda: saved(MODULE), f"a whole model: save it by {ADVICE}"),
    "nested.pt": (lambda: saved({"model": MODULE, "epoch": 3}), ADVICE),
    "evil.pt": (lambda: saved({"fc1.weight": Evil()}), "must hold tensors, got"),
    "page.pt": (lambda: b"\n<!DOCTYPE html><html>", "a web page: download the file"),
    "pointer.pt": (lambda: b"version https://git-lfs.github.com", "run git lfs pull"),
    "empty.pt": (lambda: b"", "an empty file"),
    "cut.pt": (lambda: saved(STATE)[:-100], "cut off or damaged"),
    "cut_old.pt": (
        lambda: saved(STATE, _use_new_zipfile_serialization=False)[:60],
        "cut off or damaged",
    ),
    "damaged.pt": (damaged, "damaged at"),
    "script.pt": (
        lambda: zipped(
            **{"vae/constants.pkl": "", "vae/data.pkl": "", "vae/code/a": ""}
        ),
        "a TorchScript archive",
    ),
    "letter.pt": (lambda: zipped(**{"word/document.xml": ""}), "without a checkpoint"),
    "keras.keras": (lambda: zipped(**{"model.weights.h5": ""}), "a Keras model"),
    "keras.h5": (lambda: b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    "model.onnx": (lambda: b"\x08\x07\x12\x07pytorch", "an ONNX or TensorFlow model"),
    "model.pickle": (lambda: b"\x80\x04\x95", "a pickle, which is not read"),
    "array.npy": (lambda: b"\x93NUMPY\x01", "named arrays by numpy.savez"),
    "packed.pt": (lambda: gzip.compress(saved(STATE)), "compressed by gzip"),
    "text.pt": (lambda: b"hello", "neither a PyTorch nor a safetensors nor an npz"),
    "list.json": (lambda: b'{"weights": 3}', "JSON that names no weights"),
    "index.json": (
        lambda: json.dumps({"weight_map": {"a": "none.safetensors"}}).encode(),
        "an index of a file that is missing: none.safetensors",
    ),
    "outside.json": (
        lambda: json.dumps({"weight_map": {"a": "../plain.pt"}}).encode(),
        "an index of files that are not beside it",
    ),
    "short.safetensors": (lambda: b"abc", "cut off, or its header damaged"),
    "header.safetensors": (
        lambda: struct.pack("<Q", 4) + b"{{{{" + bytes(9),
        "whose header is damaged",
    ),
    "ends.safetensors": (lambda: as_safetensors(cut=8), "whose header is damaged"),
    "objects.npz": (
        lambda: as_npz(a=np.array([Evil()], object)),
        "with Python objects, which are not read",
    ),
    "tensor.pt": (lambda: saved(torch.ones(3)), "which holds a tensor"),
    "nothing.pt": (lambda: saved({"epoch": 3}), "must hold tensors, got .* with epoch"),
    "several.pt": (
        lambda: saved({"generator": STATE, "student": STATE}),
        "entry must say which .* with generator, student",
    ),
    "complex.pt": (
        lambda: saved({"fc1.weight": torch.ones(2, 2, dtype=torch.complex64)}),
        "must be real numbers, got complex ones in fc1.weight",
    ),
    "meta.pt": (
        lambda: saved({"fc1.weight": torch.ones(2, 2, device="meta")}),
        "must be tensors with values, got fc1.weight",
    ),
}


def write(folder, name, make):
    path = folder / name
    path.write_bytes(make())
    return path


@pytest.mark.parametrize("name", READ)
def test_tensors_are_read(tmp_path, name):
    make, note = READ[name]
    weights = read_weights(write(tmp_path, name, make))
    notes = "; ".join(weights.notes)
    assert note in notes if note else not notes
    if name == "parts.pt":
        assert {"encoder.fc1.weight", "decoder.fc1.bias"} <= weights.tensors.keys()
        return
    assert weights.tensors.keys() == STATE.keys()
    atol = 0.01 if name in ("half.pt", "bf16.safetensors", "quantized.pt") else 0
    for tensor, expected in NUMPY.items():
        assert weights.tensors[tensor].dtype == np.float32
        np.testing.assert_allclose(weights.tensors[tensor], expected, rtol=0, atol=atol)


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_refused_in_one_line(tmp_path, capsys, name):
    make, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as error:
        read_weights(write(tmp_path, name, make))
    text = str(error.value)
    assert "\x1b" not in text and "weights_only" not in text and len(text) < 300
    assert "pickled code has run" not in capsys.readouterr().out


def test_paths_that_are_no_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"weights must be a file, got .*none\.pt"):
        read_weights(tmp_path / "none.pt")
    with pytest.raises(InputError, match="which is a folder"):
        read_weights(tmp_path)


def test_files_of_one_checkpoint_are_read_together(tmp_path):
    first, *_ = names = list(STATE)
    write(tmp_path, "1.safetensors", lambda: as_safetensors({first: STATE[first]}))
    rest = {name: STATE[name] for name in names[1:]}
    write(tmp_path, "2.safetensors", lambda: as_safetensors(rest))
    where = {n: f"{1 + (n != first)}.safetensors" for n in names}
    index = json.dumps({"metadata": {}, "weight_map": where}).encode()
    path = write(tmp_path, "model.safetensors.index.json", lambda: index)
    assert read_weights(path).tensors.keys() == STATE.keys()


def test_an_entry_is_chosen(tmp_path):
    other = {name: tensor + 1 for name, tensor in STATE.items()}
    content = {"model": STATE, "ema": {"shadow": other}}
    chosen = read_weights(content, entry="ema.shadow")
    np.testing.assert_array_equal(chosen.tensors["fc1.bias"], other["fc1.bias"])
    with pytest.raises(
        InputError, match=r"unknown entry 'emma': choose from ema\.shadow"
    ):
        read_weights(content, entry="emma")
    with pytest.raises(InputError, match="entry must be left out for a dict"):
        read_weights(STATE, entry="model")


@pytest.mark.parametrize(
    "source",
    [
        MODULE,
        nn.DataParallel(MODULE),
        {"state_dict": MODULE},
        {name: tensor.tolist() for name, tensor in STATE.items()},
        collections.OrderedDict(NUMPY),
    ],
    ids=["module", "DataParallel", "module in a dict", "lists", "arrays"],
)
def test_modules_and_dicts_are_read(source):
    tensors = read_weights(source).tensors
    assert tensors.keys() == STATE.keys()
    for name, expected in NUMPY.items():
        np.testing.assert_array_equal(tensors[name], expected)


@pytest.mark.parametrize("source", [None, 3, [torch.ones(3)], torch.ones(3)])
def test_other_sources_are_refused(source):
    with pytest.raises(InputError, match="weights must be a path, a PyTorch module or"):
        read_weights(source)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(value):
    bad = {name: tensor.clone() for name, tensor in STATE.items()}
    bad["fc21.weight"][0, :2] = value
    with pytest.raises(NonFiniteError, match=r"2 of 10 numbers in fc21\.weight$"):
        read_weights({"net": bad})
