import importlib.util
import json
import re

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from experiments.tpu import compile as tpu_compile
from experiments.tpu.compile import Flags, main
from experiments.tpu.hlo import read_collectives
from experiments.tpu.roofline import find_floor
from experiments.tpu.slices import (
    CHIPS,
    ENVIRONMENT,
    EXAMPLES,
    Chip,
    Slice,
    check_topology,
    find_slice,
)
from experiments.tpu.trial import BINARIZE, MODELS, make_trial
from flaxvae import InputError
from flaxvae.training import epochs
from flaxvae.training.parallel import Devices

TUPLE = """
ENTRY %main.5_spmd (param.1: f32[400], param.2: f32[]) -> (f32[400], f32[]) {
  %param.1 = f32[400]{0:T(512)} parameter(0)
  %all-reduce.12 = (f32[400]{0:T(512)S(1)}, f32[20,400]{1,0:T(8,128)}, /*index=2*/f32[]{:T(128)}) all-reduce(%param.1, %fusion.39, /*index=2*/%param.2), channel_id=1, replica_groups=[1,4]<=[4], use_global_device_ids=true, to_apply=%add
  %get-tuple-element.8 = f32[400]{0:T(512)} get-tuple-element(%all-reduce.12), index=0
  ROOT %fusion.5 = f32[400]{0} fusion(%get-tuple-element.8), calls=%all-reduce.13
}
"""  # noqa: E501
BFLOAT = """
  ROOT all-reduce.1 = bf16[8,128]{1,0:T(8,128)(2,1)} all-reduce(%dot), to_apply=%add
"""
ASYNCHRONOUS = """
  %begin = (f32[400]{0}, pred[3]{0}) all-reduce-start(%a, %b), to_apply=%add
  %end = (f32[400]{0}, pred[3]{0}) all-reduce-done(%begin)
  %start = (f32[4,2]{1,0:T(8,128)}, f32[16,2]{1,0}) all-gather-start(%c), dimensions={0}
  %done = f32[16,2]{1,0} all-gather-done(%start)
  %many = ((f32[4]{0}, s32[]), (f32[8]{0}, s32[2]{0})) all-gather-start(%c, %d)
  %send = (u8[7]{0}, u8[7]{0}, u32[]{:S(2)}, u32[]) collective-permute-start(%e)
  %call = ((f32[2]{0}, token[]), f32[2]{0}) call-start(%a, %token), to_apply=%called
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TUPLE, [("all-reduce", 4 * (400 + 20 * 400 + 1))]),
        (BFLOAT, [("all-reduce", 2 * 8 * 128)]),
        (
            ASYNCHRONOUS,
            [
                ("all-reduce", 4 * 400 + 3),
                ("all-gather", 4 * 16 * 2),
                ("all-gather", 4 * 8 + 4 * 2),
                ("collective-permute", 7),
            ],
        ),
        ("  %dot.1 = f32[8,8]{1,0} dot(%all-reduce.1, %b)\n", []),
        ("", []),
    ],
    ids=["tuple", "bf16", "asynchronous", "none", "empty"],
)
def test_collectives_are_read_from_text(text, expected):
    assert read_collectives(text) == expected


def test_the_floor_by_hand():
    chip = Chip(flops=100.0, memory=1.0, bandwidth=10.0, interconnect=5.0)
    load = {"flops": 200.0, "moved_bytes": 50.0, "reduced_bytes": 20.0}
    assert find_floor(chip, 4, **load) == pytest.approx(
        {"compute": 2.0, "memory": 5.0, "all_reduce": 6.0, "step": 11.0}
    )
    load["flops"] = 900.0
    assert find_floor(chip, 4, **load)["step"] == pytest.approx(15.0)
    assert find_floor(chip, 1, **load)["step"] == pytest.approx(9.0)


def test_the_host_and_a_tpu_run_the_same_program():
    # `choose_steps_per_loop` asks for the default backend, here the host's.
    assert epochs.STEPS_PER_LOOP["cpu"] == epochs.STEPS_PER_LOOP["tpu"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"preset": "mpl"}, r"unknown preset 'mpl': .* \(did you mean mlp\?\)"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"train_examples": 9, "batch_size": 16}, "batch_size must be <= 9, the num"),
        ({"json": "no/such/folder/x.json"}, "json must be in a folder that exists"),
        ({}, r'libtpu must be installed: pip install -e "\.\[tpu\]" in an environment'),
    ],
)
def test_what_cannot_be_used_is_refused(flags, message, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    if "json" in flags:
        flags = {"json": tmp_path / flags["json"]}
    with pytest.raises(InputError, match=message):
        main(Flags(**flags))


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("v5e:4x4x4", "a grid of at most 16x16 chips for v5e, got 'v5e:4x4x4'"),
        ("v5e:4x32", "a grid of at most 16x16 chips for v5e, got 'v5e:4x32'"),
        ("v3:64x8", "a grid of at most 32x32 chips for v3, got 'v3:64x8'"),
        ("v4:32x4x4", "a grid of at most 16x16x16 chips for v4, got 'v4:32x4x4'"),
        ("v5e:0x4", "unknown topology 'v5e:0x4': give a generation and a grid"),
        ("v5e:4", "unknown topology 'v5e:4': give"),
        ("v5e:4x4x4x4", "unknown topology 'v5e:4x4x4x4': give"),
        ("v99:2x2", "unknown topology 'v99:2x2': give"),
        ("4x4", "unknown topology '4x4': give"),
        ("", "unknown topology '': give"),
    ],
)
def test_topologies_are_checked_before_the_compiler_sees_them(topology, message):
    with pytest.raises(InputError, match=message):
        check_topology(topology)
    for name in (*EXAMPLES, "v4:2x2", "V5E:4x4", "v5e:4x4x1", "v5p:20x16x28"):
        check_topology(name)


@pytest.fixture
def host_slice(monkeypatch):
    """Four devices of the host in place of four chips."""
    devices = Devices(tuple(jax.devices("cpu")[:4]))
    found = Slice("v5e:2x2", devices, "TPU v5 lite", 4)
    monkeypatch.setattr(tpu_compile, "find_slice", lambda topology: found)
    return found


def test_table_and_json(host_slice, tmp_path, capsys):
    path = tmp_path / "numbers.json"
    main(Flags(preset="mlp", batch_size=64, train_examples=200, json=path))
    out = capsys.readouterr().out
    assert "mlp, 652,824 parameters, batch 64" in out
    for row in ("peak memory", "FLOPs", "collectives", "floor of a step"):
        assert row in out
    (report,) = json.loads(path.read_text()).values()
    kinds, sizes = zip(*report["step"]["collectives"], strict=True)
    assert set(kinds) == {"all-reduce"}
    assert sum(sizes) == 4 * (652_824 + 4)  # the gradients and the terms' means
    assert report["run"]["argument_bytes"] > 210 * 784
    assert report["floor"]["step"] > report["floor"]["all_reduce"] > 0


def test_a_batch_that_does_not_divide_is_refused(host_slice):
    message = "batch_size must be a multiple of 4, .*: the nearest are 28 and 32"
    with pytest.raises(InputError, match=message):
        main(Flags(batch_size=30))


@pytest.fixture
def libtpu(monkeypatch):
    """The TPU compiler; leaves the process as it was."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    options = ("jax_platforms", "jax_enable_compilation_cache")
    before = {name: getattr(jax.config, name) for name in options}
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # else the option is not looked at again
    with jax.default_matmul_precision("default"):
        yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def loop_bodies(text):
    """The text of each computation that some loop repeats."""
    computation = r"^%?([\w.-]+) \([^\n]*{\n(.*?)^}"
    bodies = set(re.findall(r"\bbody=%?([\w.-]+)", text))
    found = re.findall(computation, text, re.M | re.S)
    return [lines for name, lines in found if name in bodies]


@pytest.mark.tpu
@pytest.mark.parametrize(
    "name",
    [
        "mlp",
        pytest.param("mlp-deep", marks=pytest.mark.slow),
        pytest.param("mlp-binary", marks=pytest.mark.slow),
        "conv",
        "ladder",
        pytest.param("top-down", marks=pytest.mark.slow),
    ],
)
def test_a_step_communicates_once(name, libtpu):
    target = find_slice("v5e:2x2")
    assert {device.platform for device in target.devices.devices} == {"tpu"}
    trial = make_trial(name, target.devices, batch_size=256, train_examples=4096)
    step, run = trial.compile_step(), trial.compile_run()
    num_terms = len(trial.loop_state.sums)
    gradients = ("all-reduce", 4 * (trial.parameters + num_terms))
    # Five numbers per latent dimension, or two KLs: see `training.diagnostics`.
    levels = {"ladder": 2 + (16 + 32), "top-down": 8 + 8 * 16}
    codes = levels.get(name) or 5 * MODELS[name].latent_dim
    validation = ("all-reduce", 4 * (num_terms + codes))
    assert read_collectives(step.as_text()) == [gradients]
    assert sorted(read_collectives(run.as_text())) == sorted([gradients, validation])
    assert [gradients] in [
        read_collectives(body) for body in loop_bodies(run.as_text())
    ]
    check_it_fits((step, run), target)


def check_it_fits(programs, target):
    """They are for TPUs and keep within a chip's memory."""
    for compiled in programs:
        (platform,) = {
            device.platform
            for sharding in jax.tree.leaves(compiled.input_shardings)
            for device in sharding.device_set
        }
        assert platform == "tpu"
        peak = compiled.memory_analysis().peak_memory_in_bytes
        assert 0 < peak < CHIPS[target.kind].memory


def test_only_one_preset_draws_pixels():
    devices = Devices(tuple(jax.devices("cpu")[:1]))
    assert BINARIZE.keys() <= MODELS.keys()
    for name in ("mlp", "mlp-binary"):
        trial = make_trial(name, devices, batch_size=4, train_examples=40)
        step = jax.make_jaxpr(trial.training.step)(trial.loop_state.state, trial.batch)
        # The noise of z, and that of the pixels.
        draws = str(step).count("random_bits")
        assert draws == 1 + (name in BINARIZE)


@pytest.mark.tpu
@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv-batchnorm", "resnet"])
def test_batch_statistics_and_gradients_are_all_that_is_sent(name, libtpu):
    target = find_slice("v5e:2x2")
    trials = [
        make_trial(name, target.devices, batch_size=b, train_examples=4096)
        for b in (256, 512)
    ]
    steps = [trial.compile_step() for trial in trials]
    sent = [read_collectives(step.as_text()) for step in steps]
    assert sent[0] == sent[1]  # nothing grows with the batch
    assert {kind for kind, _ in sent[0]} == {"all-reduce"}
    loop_state = trials[0].loop_state
    statistics = sum(
        leaf.size for leaf in jax.tree.leaves(loop_state.state.collections)
    )
    least = 4 * (trials[0].parameters + len(loop_state.sums))
    # A few sums per channel, forward and backward, some of them sent more than once.
    assert least <= sum(size for _, size in sent[0]) <= least + 8 * 4 * statistics
    check_it_fits(steps, target)


def test_every_preset_is_compiled_for_tpus():
    tests = (
        test_a_step_communicates_once,
        test_batch_statistics_and_gradients_are_all_that_is_sent,
    )
    marks = [mark for test in tests for mark in test.pytestmark]
    tried = [n for mark in marks if mark.name == "parametrize" for n in mark.args[1]]
    names = {getattr(name, "values", (name,))[0] for name in tried}
    assert names == set(MODELS)


@pytest.mark.tpu
def test_chips_of_two_devices(libtpu, capsys):
    flags = Flags(
        topology="v4:2x2x1",
        preset="mlp",
        batch_size=64,
        train_examples=64,
        whole_run=False,
    )
    main(flags)
    assert "on 4 x TPU v4" in capsys.readouterr().out


@pytest.mark.tpu
def test_what_libtpu_refuses(libtpu):
    for topology in ("", "v5e", "v5e:3x5", "v5e:8x1"):
        with pytest.raises(InputError, match=f"unknown topology '{topology}': give a"):
            find_slice(topology)
    flags = Flags(
        topology="v5e:2x2", batch_size=2**25, train_examples=2**25, whole_run=False
    )
    with pytest.raises(InputError, match=r"batch_size and .* RESOURCE_EXHAUSTED"):
        main(flags)
