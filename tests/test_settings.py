"""Settings: checked where they are created, documented, and the same after JSON."""

import dataclasses
import importlib
import json
import math
import pkgutil
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import flaxvae
from experiments.command import parse
from flaxvae.capabilities import Support
from flaxvae.checks import InputError
from flaxvae.data import DataConfig
from flaxvae.models import (
    AutoencoderConfig,
    CodePriorConfig,
    VAEConfig,
    VQVAEConfig,
    build_vae,
)
from flaxvae.models.autoencoder import NoiseKind
from flaxvae.models.classifier import ClassifierEncoder
from flaxvae.nn.networks import ENCODERS
from flaxvae.objectives import ELBO
from flaxvae.objectives.corruption import CORRUPTIONS
from flaxvae.schedules import warm_up
from flaxvae.settings import (
    check_settings,
    choices_of,
    describe_settings,
    describe_value,
    field_docs,
    flatten_settings,
    setting,
    settings_from_description,
)
from flaxvae.training import Engine, Optimization, fit, load
from flaxvae.training.stack import as_lists

MODULES = [
    importlib.import_module(info.name)
    for info in pkgutil.walk_packages(flaxvae.__path__, "flaxvae.")
    if not info.ispkg
]
CONFIGS = sorted(
    {
        kind
        for module in [*MODULES, flaxvae.objectives]
        for name, kind in vars(module).items()
        if isinstance(kind, type)
        and dataclasses.is_dataclass(kind)
        and (name.endswith("Config") or kind in (Optimization, Engine))
    },
    key=lambda kind: kind.__name__,
)
Mode = Literal["slow", "fast"]


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A group inside another one."""

    folder: Path | None = None
    """Where."""
    limit: float = setting(1.0, above=0)
    """How much."""


@dataclass(frozen=True, kw_only=True)
class Outer:
    """A group of settings of every type."""

    mode: Mode = "slow"
    """A name."""
    version: Literal[1, 2] = 1
    """A number of a few."""
    widths: tuple[int, ...] | None = setting(None, at_least=1)
    """Several integers."""
    share: float = setting(0.5, at_least=0, below=1)
    """A number with bounds."""
    size: int | float = 3
    """An integer or a real number."""
    padding: Literal["SAME"] | int | None = None
    """A name or a number."""
    inner: Inner = dataclasses.field(default_factory=Inner)
    """A group."""

    def __post_init__(self) -> None:
        check_settings(self)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "fats"}, "unknown mode 'fats': choose from fast, slow .*mean fast"),
        ({"version": 3}, "version must be 1 or 2, got 3"),
        ({"widths": (4, 0)}, "widths must be >= 1, got 0"),
        ({"widths": (4, 1.5)}, "widths must be an integer, got 1.5"),
        ({"widths": ("4",)}, "widths must be a number, got '4'"),
        ({"share": 1.0}, "share must be < 1, got 1.0"),
        ({"share": -0.1}, "share must be >= 0, got -0.1"),
        ({"share": math.nan}, "share must be >= 0, got nan"),
        ({"share": "half"}, "share must be a number, got 'half'"),
        ({"padding": "VALID"}, "unknown padding 'VALID': choose from SAME"),
    ],
)
def test_a_bad_value_is_refused_with_its_name(values, message):
    with pytest.raises(InputError, match=message):
        Outer(**values)


def test_good_values_pass():
    for values in (
        {"mode": "fast", "version": 2, "widths": (np.int64(3),), "share": 0},
        {"size": 0.25, "padding": 2},
        {"padding": "SAME", "widths": None},
        {"share": np.arange(3.0)},  # not a plain number
    ):
        Outer(**values)
    with pytest.raises(InputError, match="limit must be > 0"):
        check_settings(Inner(limit=0.0))


def test_choices_documents_and_flat_names():
    assert choices_of(Mode | None) == ("slow", "fast")
    assert choices_of(int | None) == ()
    docs = field_docs(Outer)
    assert docs["widths"] == "Several integers."
    assert docs.keys() == {field.name for field in dataclasses.fields(Outer)}
    assert flatten_settings(Outer())["limit"] == 1.0
    assert "inner" not in flatten_settings(Outer())


numbers = st.floats(allow_nan=False, width=32)


@hypothesis_settings(deadline=None)
@given(
    mode=st.sampled_from(get_args(Mode)),
    widths=st.none() | st.lists(st.integers(1, 99)).map(tuple),
    share=st.floats(0, 1, exclude_max=True),
    size=st.integers() | numbers,
    padding=st.none() | st.just("SAME") | st.integers(0, 9),
    folder=st.none() | st.text("ab/.", min_size=1).map(Path),
    limit=st.floats(min_value=0, exclude_min=True),
)
def test_settings_are_the_same_after_json(folder, limit, **values):
    settings = Outer(**values, inner=Inner(folder=folder, limit=limit))
    text = json.dumps(describe_settings(settings), allow_nan=False)
    assert settings_from_description(Outer, json.loads(text)) == settings


def test_a_description_with_an_unknown_field_is_refused():
    with pytest.raises(InputError, match="unknown setting of Outer 'modes'"):
        settings_from_description(Outer, {"modes": "slow"})


def literal_tables():
    """Every ``TABLE: dict[Alias, ...]`` and ``TABLE: tuple[Alias, ...]``."""
    for module in MODULES:
        for name, hint in getattr(module, "__annotations__", {}).items():
            parts = get_args(hint)
            if parts and typing.get_origin(parts[0]) is Literal:
                yield module, name, get_args(parts[0])


TABLES = list(literal_tables())


@pytest.mark.parametrize(
    ("module", "name", "choices"), TABLES, ids=[name for _, name, _ in TABLES]
)
def test_the_names_of_choices_are_those_of_their_table(module, name, choices):
    assert tuple(getattr(module, name)) == choices


def test_every_alias_of_networks_and_models_has_a_table():
    """Except for parts of another table, checked below, and what classes declare."""
    tables = {choices for _, _, choices in TABLES}
    assert len(tables) > 20
    for module in MODULES:
        if module.__name__.startswith(("flaxvae.nn.", "flaxvae.models.")):
            for name, alias in vars(module).items():
                is_part = alias in (NoiseKind, ClassifierEncoder, Support)
                if typing.get_origin(alias) is Literal and not is_part:
                    assert get_args(alias) in tables, (module.__name__, name)
    assert ["none", *get_args(NoiseKind)] == list(CORRUPTIONS)
    assert set(get_args(ClassifierEncoder)) < ENCODERS.keys()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_every_field_is_documented_and_survives_json(config):
    assert len(CONFIGS) >= 8
    names = {field.name for field in dataclasses.fields(config)}
    docs = field_docs(config)
    assert docs.keys() == names
    for name, doc in docs.items():
        assert doc.endswith((".", ")")), (name, doc)
    settings = config()
    text = json.dumps(describe_settings(settings), allow_nan=False)
    assert settings_from_description(config, json.loads(text)) == settings


@pytest.mark.parametrize(
    "config",
    [
        VAEConfig(
            encoder="conv",
            hidden=(),
            strides=(2, 1),
            padding="VALID",
            prior="flow",
            prior_flow="autoregressive",
            conditional=True,
            conditioning="film",
        ),
        AutoencoderConfig(kind="sparse", penalty="rate", rate=0.1, latent_dim=3),
        VQVAEConfig(quantizer="fsq", fsq_levels=(3, 4)),
        CodePriorConfig(prior_epochs=2, prior_width=8),
        Optimization(skip_above=math.inf, early_stopping=3),
        DataConfig(data_dir=Path("somewhere"), categorical=("a", "b")),
    ],
    ids=lambda config: type(config).__name__,
)
def test_chosen_settings_survive_json(config):
    text = json.dumps(describe_settings(config), allow_nan=False)
    assert settings_from_description(type(config), json.loads(text)) == config


SAME_WORDS: list[tuple[type, dict[str, Any]]] = [
    (VAEConfig, {"latent_dim": 0}),
    (VAEConfig, {"hidden": (8, 0)}),
    (VAEConfig, {"filters": (8,)}),
    (VAEConfig, {"dropout": 1.0}),
    (VAEConfig, {"likelihood": "categorical", "levels": 1}),
    (VAEConfig, {"levels": 4}),
    (VAEConfig, {"prior_components": 3}),
    (VAEConfig, {"posterior": "iaf", "posterior_flows": 0}),
    (VAEConfig, {"prior": "vamp", "normalization": "batch"}),
    (VAEConfig, {"prior": "conditional"}),
    (VAEConfig, {"conditioning": "film"}),
    (AutoencoderConfig, {"noise": 0.5}),
    (AutoencoderConfig, {"kind": "sparse", "rate": 0.1}),
    (AutoencoderConfig, {"kind": "denoising", "corruption": "masking", "noise": 1.5}),
    (AutoencoderConfig, {"latent_dim": 0}),
    (VQVAEConfig, {"encoder": "mlp"}),
    (VQVAEConfig, {"hidden": (4,)}),
    (VQVAEConfig, {"decay": 1.0}),
    (VQVAEConfig, {"fsq_levels": (8, 1)}),
    (CodePriorConfig, {"prior_width": 6}),
    (CodePriorConfig, {"prior_learning_rate": 0.0}),
]


@pytest.mark.parametrize(
    ("config", "values"),
    SAME_WORDS,
    ids=lambda value: str(getattr(value, "__name__", value)),
)
def test_python_and_the_command_line_refuse_with_the_same_words(config, values):
    with pytest.raises(InputError) as from_python:
        config(**values)
    flags = []
    for name, value in values.items():
        flags.append(f"--{name}")
        flags += map(str, value) if isinstance(value, tuple) else [str(value)]
    with pytest.raises(InputError) as from_flags:
        parse(config, flags)
    assert str(from_flags.value) == str(from_python.value)
    assert next(reversed(values)) in str(from_python.value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strict:
    count: int = setting(1, at_least=1)
    rate: float = 0.5
    flag: bool = False
    maybe: int | None = None
    sizes: tuple[int, ...] = ()
    kind: Literal["a", "b"] = "a"

    def __post_init__(self):
        check_settings(self)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": True}, "count must be a number, got True"),
        ({"count": None}, "count must have a value, got None"),
        ({"count": [3]}, r"count must be a single value, got \[3\]"),
        ({"count": float("nan")}, "count must be an integer, got nan"),
        ({"count": float("inf")}, "count must be an integer, got inf"),
        ({"count": 2.5}, "count must be an integer, got 2.5"),
        ({"rate": b"3"}, "rate must be a number, got b'3'"),
        ({"flag": "no"}, "flag must be True or False, got 'no'"),
        ({"flag": 1}, "flag must be True or False, got 1"),
        ({"sizes": (3, True)}, "sizes must be a number, got True"),
        ({"kind": True}, "unknown kind 'True'"),
        ({"kind": None}, "kind must have a value, got None"),
    ],
)
def test_values_of_another_type_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        Strict(**values)


def test_numbers_become_pythons_own():
    values = Strict(
        count=np.int64(3), rate=np.float32(0.25), maybe=4.0, sizes=[np.int8(2), 5.0]
    )
    for name, kind in (("count", int), ("rate", float), ("maybe", int)):
        assert type(getattr(values, name)) is kind
    assert [type(size) for size in values.sizes] == [int, int]
    assert Strict(flag=np.bool_(True)).flag is True


@dataclasses.dataclass
class Described:
    count: Any
    values: Any = None


def make_scale():
    def scale(x):
        return x

    return scale


ANYTHING = {
    "path": (Path("a/b"), "a/b"),
    "tuple": ((np.int64(1), 2.5), [1, 2.5]),
    "set": ({3, 1, "a"}, [1, 3, "a"]),
    "dataclass": (Described(np.int8(2)), {"count": 2, "values": None}),
    "bool": (np.bool_(True), True),
    "float32": (np.float32(0.1), 0.1),
    "JAX": (jnp.int32(3), 3),
    "NaN": (float("nan"), "nan"),
    "infinity": (-np.inf, "-inf"),
    "dict": ({1: {2: np.float64(0.5)}}, {"1": {"2": 0.5}}),
    "objects": (np.array([1, "a", None], object), [1, "a", None]),
    "key": (jax.random.key(0), "uint32 (2,) 6522df69"),
    "function": (make_scale(), f"{__name__}.make_scale.<locals>.scale"),
    "class": (Described, f"{__name__}.Described"),
    "object": (object(), "<object object>"),
    "bytes": (b"x", "b'x'"),
    "complex": (1j, "1j"),
}


@pytest.mark.parametrize("name", ANYTHING)
def test_anything_is_described_as_plain_json(name):
    value, expected = ANYTHING[name]
    described = describe_value(value)
    assert described == expected
    assert json.loads(json.dumps(described, allow_nan=False)) == expected


def test_numbers_of_numpy_and_jax_define_a_run(stripes, tmp_path):
    """And the same call finds it again, with anything among its settings."""
    vae = build_vae(np.array([4, 4, 1]), np.int64(2), hidden=np.array([6]))
    odd = {name: value for name, (value, _) in ANYTHING.items()}
    call = {
        "epochs": np.int64(1),
        "batch_size": jnp.int32(50),
        "learning_rate": np.float32(1e-3),
        "seed": np.uint32(3),
        "objective": ELBO(beta=warm_up(np.float32(2), epochs=np.int64(1))),
        "settings": odd,
        "notes": odd,
        "engine": Engine(keep=np.int8(1)),
    }
    fit(vae, stripes, workdir=tmp_path, progress=False, **call)
    trained = fit(vae, stripes, workdir=tmp_path, progress=False, **call)
    assert trained.seed == 3 and len(trained.history) == 1
    assert load(tmp_path).objective.beta.value == 2.0


def test_a_grid_may_be_arrays_and_ranges():
    grid = {"beta": np.linspace(0.5, 1, 2), "seed": range(2), "rate": jnp.ones(1)}
    assert as_lists(grid) == {"beta": [0.5, 1.0], "seed": [0, 1], "rate": [1.0]}
    for values in (4.0, "4", np.array(4.0), None):
        with pytest.raises(InputError, match="grid must hold a list of beta, got"):
            as_lists({"beta": values})
    with pytest.raises(InputError, match="grid must be a dict of lists"):
        as_lists([1])
