"""What the descriptions of several processes have in common."""

import dataclasses

import numpy as np
import pytest

from flaxvae.data import from_arrays
from flaxvae.training.processes.agreement import (
    compare,
    describe_process,
    name_processes,
)
from flaxvae.training.processes.together import _is_lost

AGREE = "the processes of a run must agree, and "
COMMON = {
    "version of": {"jax": "0.10.2"},
    "options": {"jax_enable_x64": False},
    "devices": 4,
    "settings": {
        "optimization": {"learning_rate": 1e-3, "epochs": 3},
        "model": {"latent_dim": 2, "encoder": {"hidden": [32]}},
        "seed": 0,
    },
    "workdir": "a",
    "data": {"train x fingerprint": "00"},
    "model": {"latent_dim": 2},
    "program": {"checksum": "1"},
}


def changed(**changes):
    """`COMMON` with other values at dotted names, such as ``settings__seed``."""
    found = dict(COMMON)
    for name, value in changes.items():
        *path, last = name.split("__")
        place = found
        for part in path:
            place[part] = dict(place[part])
            place = place[part]
        place[last] = value
    return found


@pytest.mark.parametrize(
    ("processes", "message"),
    [
        ([COMMON, COMMON, COMMON], None),
        ([COMMON, changed(workdir=None)], None),  # only process 0 needs it
        (
            [COMMON, changed(settings__optimization__learning_rate=0.01)],
            "learning_rate is 0.001 in process 0 and 0.01 in process 1",
        ),
        (
            [COMMON, changed(settings__seed=1), COMMON, changed(settings__seed=2)],
            "seed is 0 in processes 0, 2, 1 in process 1 and 2 in process 3",
        ),
        # What follows from another difference is not named.
        (
            [COMMON, changed(settings__model__latent_dim=3, model__latent_dim=3)],
            "latent_dim is 2 in process 0 and 3 in process 1",
        ),
        (
            [COMMON, changed(settings__model__encoder__hidden=[32, 32])],
            "hidden is [32] in process 0 and [32, 32] in process 1",
        ),
        (
            [COMMON, changed(settings__extra=1)],
            "extra is not set in process 0 and 1 in process 1",
        ),
        (
            [COMMON, changed(**{"version of__jax": "0.11"})],
            "version of jax is 0.10.2 in process 0 and 0.11 in process 1",
        ),
        (
            [COMMON, changed(options__jax_enable_x64=True)],
            "jax_enable_x64 is False in process 0 and True in process 1",
        ),
        ([COMMON, changed(devices=2)], "devices is 4 in process 0 and 2 in process 1"),
        (
            [COMMON, changed(workdir="b")],
            "workdir is a in process 0 and b in process 1",
        ),
        (
            [changed(workdir=None), COMMON],
            "workdir is None in process 0 and a in process 1",
        ),
        (
            [COMMON, changed(**{"data__train x fingerprint": "01"})],
            "data train x fingerprint is 00 in process 0 and 01 in process 1: other "
            "examples, or another order",
        ),
        (
            [COMMON, changed(program__checksum="2")],
            "program checksum is 1 in process 0 and 2 in process 1: the objective, the "
            "optimizer or a module of your own differs",
        ),
    ],
)
def test_what_differs_is_named(processes, message):
    assert compare(processes) == (message and AGREE + message)


def test_of_many_differences_some_are_named():
    long = changed(
        settings__optimization={f"name {i}": "x" * 100 + str(i) for i in "abcde"}
    )
    message = compare([COMMON, long])
    assert "epochs is 3 in process 0 and not set in process 1" in message
    assert message.endswith("; 4 more differ") and len(message) < 500
    assert name_processes(range(20)) == "processes 0, 1, 2, 3, 4, 5, 6, 7, ..."


@pytest.mark.parametrize("change", ["x", "labels", "order", "fewer", "validation"])
def test_the_data_of_every_split_have_a_checksum(change):
    x, labels = np.arange(30.0).reshape(30, 1), np.arange(30) % 3
    held_out = {
        "validation": (x[:5] / 30, labels[:5]),
        "test": (x[:4] / 30, labels[:4]),
    }
    data = from_arrays(x / 30, labels, **held_out)
    part, split = {"validation": ("x", "validation")}.get(change, ("x", "test"))
    if change == "labels":
        part, split = "labels", "train"
    old = getattr(data, split)
    array = np.array(getattr(old, part))
    if change == "fewer":
        new = old[:3]
    else:
        array = array[::-1].copy() if change == "order" else array + 1
        new = dataclasses.replace(old, **{part: array})
    other = dataclasses.replace(data, **{split: new})
    processes = [
        describe_process(
            {"settings": {}, "model": {}, "program": {}, "data": each.describe()}, None
        )
        for each in (data, dataclasses.replace(data), other)
    ]
    assert compare(processes[:2]) is None
    what = "examples" if change == "fewer" else f"{part} fingerprint"
    assert f"data {split}{'_' if change == 'fewer' else ' '}{what}" in compare(
        processes
    )


def test_a_failed_collective_is_told_from_other_errors():
    assert _is_lost(ValueError("UNKNOWN: Gloo AllGather failed: Connection closed"))
    assert not _is_lost(ValueError("shapes differ"))
    assert not _is_lost(ConnectionError("gloo"))
