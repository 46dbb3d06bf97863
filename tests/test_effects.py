"""Every setting has an effect: what is built differs, or the setting is refused.

A setting that needs another one says so where it is declared (`setting`), and so do the
parts of a model, by their fields. From both a model is built in which the setting must
change something: a new field that changes nothing fails here.
"""

import dataclasses
import functools
import re
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from flaxvae.checks import InputError, check_boolean
from flaxvae.data import DataConfig
from flaxvae.evaluation.semi_supervised import (
    METHODS,
    SemiSupervisedConfig,
    check_methods,
)
from flaxvae.models import (
    AutoencoderConfig,
    CodePriorConfig,
    HierarchicalConfig,
    VAEConfig,
    VQVAEConfig,
    build_vae,
)
from flaxvae.models.data_spec import DataSpec
from flaxvae.models.likelihood import LikelihoodConfig, fields_of
from flaxvae.models.networks import NetworkConfig
from flaxvae.nn.likelihoods import LIKELIHOODS
from flaxvae.nn.networks import DECODERS, ENCODERS
from flaxvae.nn.posteriors import POSTERIORS
from flaxvae.nn.priors import PRIORS
from flaxvae.objectives import ELBO, OBJECTIVES, Objective, ObjectiveConfig
from flaxvae.objectives.reconstruction import autoencoder_objective
from flaxvae.settings import Except, check_needs, choices_of, setting
from flaxvae.training import Optimization, Training
from flaxvae.training.storage.fingerprint import fingerprint

IMAGES = DataSpec((4, 4, 1), levels=17, num_classes=3)
TABLES = {
    "encoder": ENCODERS,
    "decoder": DECODERS,
    "likelihood": LIKELIHOODS,
    "prior": PRIORS,
    "posterior": POSTERIORS,
}

BATCH_NORM = {"normalization": "batch"}
RESOLVED = {  # needs that are checked with the defaults of the model, as it is built
    "batch_norm": BATCH_NORM,
    "biases": BATCH_NORM,
    "decoder_biases": BATCH_NORM,
    "before_reshape": BATCH_NORM,
    "dense_normalization": {"hidden": (5,)},
}


def another_value(config, field):
    """A value that is valid and not the default."""
    hint = typing.get_type_hints(config)[field.name]
    if config is HierarchicalConfig and field.name in ("depth", "groups"):
        return {"depth": 3, "groups": (2,)}[field.name]
    if choices := [c for c in choices_of(hint) if c not in (field.default, "mixed")]:
        return choices[-1]
    if hint is bool:
        return not field.default
    is_tuple = typing.get_origin(hint) is tuple
    kinds = (hint,) if is_tuple else typing.get_args(hint) or (hint,)
    if float in kinds:
        return 0.3
    if tuple in map(typing.get_origin, kinds):
        return (5,) * (1 + len(field.default or ()))  # another length
    return 12 if field.name == "prior_width" else 5


def context_of(config, field):
    """Settings under which a field has an effect, as it and the parts declare them."""
    context = dict(RESOLVED.get(field.name, {}))
    for name, wanted in field.metadata.get("needs", {}).items():
        if not isinstance(wanted, Except):
            context[name] = wanted[0] if isinstance(wanted, tuple) else wanted
    own = field.metadata.get("field", field.name.removeprefix("decoder_"))
    if config is VQVAEConfig:
        context["encoder"] = "conv"
    elif field.name in ("prior", "conditioning") and config is VAEConfig:
        context["conditional"] = True
    for part, table in TABLES.items():
        having = [name for name, kind in table.items() if own in fields_of(kind)]
        is_part = field.metadata.get("part", part) == part
        is_part &= part in config.__dataclass_fields__ and field.name not in TABLES
        if is_part and having and len(having) < len(table):
            context[part] = having[0]
    return {name: v for name, v in context.items() if name != field.name}


@functools.cache  # many tests compare with the same one
def program_of(config):
    """The computation of a model in training and in evaluation, as a checksum."""
    model = config.build(IMAGES)
    x = jnp.zeros((2, *IMAGES.shape))

    def call(model, x):
        is_conditional = getattr(model, "condition", None) is not None
        bound = model.given(jnp.zeros(2, jnp.int32)) if is_conditional else model
        q = bound.encode(x)
        mean = q.mean  # of levels a whole pass
        found = [mean, bound.decode(mean).log_prob(x)]
        if isinstance(config, VAEConfig | HierarchicalConfig):
            found += [q.log_prob(mean), bound.prior().log_prob(mean)]
        return found

    def run(key):
        keys = {"params": key, "dropout": key, "codebook": key}
        found, variables = model.init_with_output(keys, x, method=call)
        mutable = [name for name in variables if name != "params"]
        again = model.apply(variables, x, method=call, mutable=mutable, rngs=keys)
        return found, variables, again

    of_objective = ""
    if isinstance(config, AutoencoderConfig):
        of_objective = repr(autoencoder_objective(config))
    return of_objective + checksum_of(run)


def checksum_of(function):
    return fingerprint(jax.make_jaxpr(function)(jax.random.key(0)))["checksum"]


def cases(config, but=()):
    names = {field.name for field in dataclasses.fields(but)} if but else set()
    return [
        pytest.param(config, field, id=f"{config.__name__}-{field.name}")
        for field in dataclasses.fields(config)
        if field.name not in names
    ]


@pytest.mark.parametrize(
    ("config", "field"),
    [
        *cases(VAEConfig),
        *cases(AutoencoderConfig, but=NetworkConfig),
        *cases(VQVAEConfig, but=NetworkConfig),
        *cases(HierarchicalConfig, but=LikelihoodConfig),
    ],
)
def test_every_setting_of_a_model_changes_it(config, field):
    context = context_of(config, field)
    small = {"hidden": (3,)} if context.get("encoder", "mlp") == "mlp" else {}
    if context.get("encoder") in ("conv", "resnet"):
        small = {"filters": (8,)}
    if field.name == "network" or context.get("network") == "conv":
        small = {"depth": 1}
    before = {**small, **context}
    before.pop(field.name, None)
    changed = config(**before, **{field.name: another_value(config, field)})
    assert program_of(config(**before)) != program_of(changed), (before, changed)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        *cases(VAEConfig),
        *cases(AutoencoderConfig, but=NetworkConfig),
        *cases(VQVAEConfig, but=NetworkConfig),
        *cases(HierarchicalConfig, but=LikelihoodConfig),
        *cases(CodePriorConfig),
    ],
)
def test_a_setting_without_what_it_needs_is_refused(config, field):
    others = {other.name: other for other in dataclasses.fields(config)}
    needs = field.metadata.get("needs", {})
    for i, (name, wanted) in enumerate(needs.items()):
        options = wanted if isinstance(wanted, tuple) else (wanted,)
        choices = choices_of(typing.get_type_hints(config)[name])
        if isinstance(wanted, Except):
            lacking = wanted.value
        elif others[name].default not in options:
            lacking = others[name].default
        else:
            lacking = next(choice for choice in choices if choice not in options)
        values = {**context_of(config, field), name: lacking}
        for later in [*needs][i + 1 :]:  # which may need this one, too
            del values[later]
        with pytest.raises(InputError, match=f"{field.name} must be left out") as error:
            config(**values, **{field.name: another_value(config, field)})
        assert f"{name} is" in str(error.value) or f"without {name}" in str(error.value)
        config(**values, **{field.name: field.default})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden": (), "activation": "tanh"}, "activation must be left out where hid"),
        ({"hidden": (), "dropout": 0.1}, "dropout must be left out where hidden is"),
        (
            {"likelihood": "normal", "scale": "learned", "init_scale": 0.5},
            "init_scale must be left out where scale is learned, got 0.5",
        ),
        (
            {"likelihood": "bernoulli", "scale": "learned"},
            "scale must be left out for this model, got learned: it is a setting of "
            "the likelihoods normal, laplace, discretized_logistic and mixed",
        ),
        ({"encoder": "conv", "activation": "glu"}, "activation must not be glu"),
        ({"decoder": "resnet", "activation": "glu"}, "got it for ResNetDecoder"),
        (
            {"decoder": "conv", "decoder_activation": "glu"},
            "activation must not be glu",
        ),
        ({"filters": (8,)}, "it is a setting of the networks conv and resnet"),
    ],
)
def test_settings_that_no_part_uses_are_refused(values, message):
    with pytest.raises(InputError, match=re.escape(message)):
        VAEConfig(**values)


ONE_STAGE = {"encoder": "conv", "filters": (8,)}
WITHOUT_LAYERS = [  # of a decoder, or of an encoder
    ({**ONE_STAGE, "film": True}, "film for a ConvDecoder"),
    ({"hidden": (8,), "decoder_hidden": (), "film": True}, "film for a MLPDecoder"),
    ({"hidden": (), "film": True}, "film for a MLPEncoder"),
    ({"hidden": (), "decoder_hidden": (8,), "film": True}, "film for a MLPEncoder"),
    ({**ONE_STAGE, "decoder_activation": "tanh"}, "decoder_activation must be left"),
    (
        {"hidden": (8,), "decoder_hidden": (), "decoder_activation": "tanh"},
        "decoder_activation must be left out for a decoder without a layer",
    ),
    ({**ONE_STAGE, "film": True, "before_reshape": "activation"}, None),
    ({"hidden": (), "decoder_hidden": (8,), "activation": "tanh"}, None),
]


@pytest.mark.parametrize(("values", "message"), WITHOUT_LAYERS)
def test_what_a_network_without_layers_would_ignore_is_refused(values, message):
    if is_film := values.pop("film", False):
        values |= {"conditional": True, "conditioning": "film"}
    data = DataSpec((8, 8, 1), num_classes=2 if is_film else None)
    if message is not None:
        with pytest.raises(InputError, match=message):
            VAEConfig(**values).build(data)
        return
    VAEConfig(**values).build(data)


def test_what_the_data_decide_is_refused_when_they_are_known():
    config = VAEConfig(scale="learned", init_scale=0.5)  # of a mixed table
    with pytest.raises(InputError, match="init_scale must be left out where scale"):
        config.build(DataSpec((5,)))
    mixed = DataSpec((2,), columns=(("real",), ("real",)), is_mixed=True)
    assert config.build(mixed).likelihood.init_scale == 0.5


@dataclasses.dataclass(frozen=True)
class Page:
    """The flags of a page."""

    figures: bool = True
    sampler: str = setting("prior", needs={"figures": True})
    dims: tuple[int, ...] = setting((), needs={"figures": True})
    epochs: int = setting(3, needs={"methods": ("m1", "m2")})
    noise: bool = setting(False, needs={"figures": True})


def test_the_rule_of_needs():
    check_needs(Page(figures=False))
    check_needs(Page(figures=False, sampler="prior"))  # the default
    check_needs(Page(epochs=4))  # nothing is known of its methods
    check_needs(Page(epochs=4), methods=("m2", "m3"))
    message = "sampler must be left out without figures, got mixture"
    with pytest.raises(InputError, match=message):
        check_needs(Page(figures=False, sampler="mixture"))
    with pytest.raises(InputError, match=r"dims must .*figures, got 0 1"):
        check_needs(Page(figures=False, dims=(0, 1)))
    message = "epochs must be left out unless methods is m1 or m2, got 4"
    with pytest.raises(InputError, match=message):
        check_needs(Page(epochs=4), methods=("m3",))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_field_of_an_objective_changes_it(name, stripes):
    kind = OBJECTIVES[name]
    fields = {f.name: f for f in dataclasses.fields(kind)}
    vae = build_vae((4, 4, 1), 2, hidden=(3,), critic=True)
    groups = {"num_samples": 4, "num_means": 4} if "num_means" in fields else {}

    def program(objective: Objective) -> str:
        x, done = jnp.zeros((4, 4, 4, 1)), objective.complete(vae, stripes)
        wrapped = done.wrap_optimizer.__repr__()  # the critic's learning rate
        return wrapped + checksum_of(
            lambda key: vae.init_with_output(key, x, key=key, method=done.objective)
        )

    before = program(kind(**groups))
    for field in fields.values():
        if field.metadata.get("from_data"):
            continue
        hints = {**typing.get_type_hints(kind)}
        choices = [c for c in choices_of(hints[field.name]) if c != field.default]
        is_count = hints[field.name] is int
        value = choices[-1] if choices else 8 if is_count else 0.3
        value = 2 if field.name == "num_means" else value
        changed = kind(**{**groups, field.name: value})
        assert program(changed) != before, field.name
    for other in ObjectiveConfig.__dataclass_fields__.keys() - fields.keys():
        if other != "objective" and not other.startswith("kl_"):
            with pytest.raises(InputError, match=f"{other} must be left out for the"):
                ObjectiveConfig(objective=name, **{other: wrong_type_or(other)})


def wrong_type_or(name):
    field = ObjectiveConfig.__dataclass_fields__[name]
    return another_value(ObjectiveConfig, field)


@pytest.mark.parametrize("weight", ["capacity", "free_bits"])
def test_parts_of_a_kl_of_weight_0_are_refused(weight):
    with pytest.raises(InputError, match=f"{weight} must be left out where beta is 0"):
        ObjectiveConfig(beta=0.0, **{weight: 1.0})
    assert ELBO(beta=0.0, **{weight: 1.0}).beta == 0  # as where a schedule begins
    with pytest.raises(InputError, match="kl_schedule must be constant where beta"):
        ObjectiveConfig(beta=0.0, kl_schedule="linear")


def test_weights_are_finite():
    for kind, name in ((OBJECTIVES["wae"], "mmd_weight"), (ELBO, "beta")):
        with pytest.raises(InputError, match=f"{name} must be .*, got inf"):
            kind(**{name: float("inf")})
    with pytest.raises(InputError, match="mixing must be <= 1, got"):
        OBJECTIVES["ciwae"](mixing=1.5)
    assert Optimization(skip_above=float("inf")).skip_above == float("inf")


OPTIMIZERS = {
    "learning_rate": 0.1,
    "optimizer": "sgd",
    "lr_schedule": "cosine",
    "warmup_epochs": 2.0,
    "weight_decay": 0.1,
    "clip_norm": 1.0,
}
PROGRAMS = {
    "epochs": 3,
    "batch_size": 10,
    "accumulation_steps": 2,
    "skip_above": 3.0,
    "ema_decay": 0.9,
    "early_stopping": 1,
    "freeze": ("decoder",),
}
ELSEWHERE = {"monitor"}  # tests/training/test_monitor.py


def make(dataset, **choices):
    vae = build_vae(dataset.shape, 2, hidden=())
    return Training(vae, dataset, ELBO(), Optimization(**choices))


def test_every_field_of_the_optimization_changes_the_training(stripes):
    fields = Optimization.__dataclass_fields__.keys()
    assert OPTIMIZERS.keys() | PROGRAMS.keys() | ELSEWHERE == fields
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}

    def update(**choices):
        optimizer = make(stripes, **choices).transformation
        state = optimizer.init(params)
        return checksum_of(lambda key: optimizer.update(params, state, params)), state

    before, at_start = update()
    for name, value in OPTIMIZERS.items():
        after, state = update(**{name: value})
        assert after != before or str(state) != str(at_start), name

    def program(**choices):
        training = make(stripes, **choices)
        run = jax.eval_shape(lambda: training.init(0))
        step = fingerprint(jax.make_jaxpr(training.step)(run.state, training.batch))
        return step, jax.tree.structure(run), training.clock

    before = program()
    for name, value in PROGRAMS.items():
        assert program(**{name: value}) != before, name


@pytest.mark.parametrize(
    ("epochs", "message"),
    [
        (50, "warmup_epochs must be < 5, the epochs of the run, got 50"),
        (4.9, "warmup_epochs must be < 5, the epochs of the run, got 4.9"),
        (0.01, r"warmup_epochs must be 0 or at least one step \(an epoch has 1\)"),
    ],
)
def test_a_warm_up_is_refused_in_epochs(stripes, epochs, message):
    with pytest.raises(InputError, match=message):
        make(stripes, epochs=5, warmup_epochs=epochs)


def fields_and_methods():
    for field in dataclasses.fields(SemiSupervisedConfig):
        wanted = field.metadata["needs"]["methods"]
        yield field, {wanted} if isinstance(wanted, str) else set(wanted)


def test_settings_of_methods_that_are_left_out_are_refused():
    for field, wanted in fields_and_methods():
        value = another_value(SemiSupervisedConfig, field)
        config = SemiSupervisedConfig(**{field.name: value})
        for method in METHODS:
            if method in wanted:
                check_methods(config, (method,))
                continue
            with pytest.raises(InputError, match=f"{field.name} must be left out"):
                check_methods(config, (method,))
        check_methods(SemiSupervisedConfig(), METHODS)


GREY = np.arange(60 * 36, dtype=np.uint8).reshape(60, 6, 6)
CHANGES = [  # source, settings, settings that change what they give
    ("grey.npy", {}, {"validation_size": 7}),
    ("grey.npy", {}, {"test_size": 9}),
    ("grey.npy", {}, {"split_seed": 1}),
    ("grey.npy", {}, {"num_examples": 30}),
    ("grey.npy", {}, {"layout": "series"}),
    ("grey.npy", {}, {"binarize": "dynamic"}),
    ("grey.npy", {}, {"dequantize": True}),
    ("grey.npy", {}, {"max_value": 300.0}),
    ("rows.npy", {}, {"standardized": False}),
    ("rows.npy", {}, {"image_shape": (6, 6)}),
    ("rows.npy", {"image_shape": (6, 6)}, {"image_order": "F"}),
    ("folder", {}, {"image_size": (3, 3)}),
    ("t.csv", {}, {"label_column": "kind"}),
    ("t.csv", {}, {"weight_column": "w"}),
    ("t.csv", {}, {"drop_columns": ("w",)}),
    ("t.csv", {}, {"categorical": ("n",)}),
    ("t.csv", {}, {"impute": "mask"}),
    ("t.csv", {"impute": "mean"}, {"missing_values": ("3",)}),
    ("t.csv", {"drop_columns": ("kind",)}, {"normal_scores": True}),
    ("t.csv", {}, {"header": "no"}),
    ("t.csv", {}, {"separator": ";"}),
    ("t.csv", {}, {"decimal": ","}),
    ("t.csv", {}, {"encoding": "utf-16"}),
    ("digits", {}, {"dataset": "grey.npy"}),
    ("digits", {}, {"data_dir": Path("somewhere")}),
    ("digits", {"num_examples": 50}, {"split_seed": 1}),
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    np.save(folder / "grey.npy", GREY)
    np.save(folder / "rows.npy", GREY.reshape(60, 36))
    np.savez(folder / "parts.npz", x_train=GREY[:40], x_test=GREY[40:])
    (folder / "folder").mkdir()
    for i, image in enumerate(GREY[:20]):
        PIL.Image.fromarray(image).save(folder / "folder" / f"{i}.png")
    rng = np.random.default_rng(0)
    rows = zip(rng.gamma(0.3, 1.0, 60), rng.integers(0, 9, 60), "ab" * 30, strict=True)
    lines = [f"{x:.3f},{n},{kind},{i + 1}.5" for i, (x, n, kind) in enumerate(rows)]
    (folder / "t.csv").write_text("\n".join(["x,n,kind,w", *lines]))
    return folder


def load(sources, dataset, **choices):
    is_file = (sources / dataset).exists()
    return DataConfig(
        dataset=str(sources / dataset) if is_file else dataset, **choices
    ).load()


def described(dataset):
    return {**dataset.describe(), "test": np.sum(dataset.test.x, dtype=np.float64)}


def test_every_setting_of_the_data_changes_them(sources):
    names = {field.name for field in dataclasses.fields(DataConfig)}
    assert {name for _, _, change in CHANGES for name in change} == names
    for source, context, change in CHANGES:
        before = described(load(sources, source, **context))
        try:
            after = described(load(sources, **{"dataset": source, **context, **change}))
        except InputError as error:
            assert next(iter(change)) in str(error) or source == "t.csv"
            continue
        assert before != after, (source, change)


@pytest.mark.parametrize(
    ("source", "choices", "message"),
    [
        ("digits", {"split_seed": 3}, "split_seed must be left out for 'digits'"),
        ("mnist", {"split_seed": 3}, "split_seed must be left out for 'mnist'"),
        ("mnist", {"test_size": 0.3}, "test_size must be left out for 'mnist', which"),
        (
            "digits",
            {"split_seed": 3, "num_examples": 1500},
            "split_seed must be left out for 'digits'",
        ),
        ("parts.npz", {"test_size": 9}, "test_size must be left out for 'parts'"),
        (
            "parts.npz",
            {"validation_size": 0, "split_seed": 1},
            "split_seed must be left out for 'parts'",
        ),
        ("digits", {"normal_scores": True}, "normal_scores is for tables"),
        (
            "t.csv",
            {"standardized": False, "normal_scores": True},
            "normal_scores must be left out where standardized is False",
        ),
        (
            "grey.npy",
            {"image_shape": (6, 6), "image_order": "F"},
            "image_order must be left out where x .*holds images",
        ),
        ("t.csv", {"decimal": ","}, "column 'x' must have a comma before decimals"),
        ("folder", {"image_size": 100_000}, "image_size must be <= 4096, got 100000"),
        ("grey.npy", {"split_seed": -1}, "split_seed must be >= 0"),
        (" ", {}, "dataset must be a name or a path, got ' '"),
    ],
)
def test_settings_that_the_data_leave_without_effect(sources, source, choices, message):
    with pytest.raises(InputError, match=message):
        load(sources, source, **choices)


def test_sizes_of_splits_may_be_0_or_their_defaults(sources):
    data = load(sources, "parts.npz", test_size=0, validation_size=5, split_seed=2)
    assert [len(data.train), len(data.validation), len(data.test)] == [35, 5, 20]
    load(sources, "digits", test_size=0.1, split_seed=0)


def test_a_text_is_not_a_boolean(stripes):
    for value in ("no", 1, None):
        with pytest.raises(InputError, match="progress must be True or False, got"):
            check_boolean("progress", value)
    check_boolean("progress", np.True_)
    with pytest.raises(InputError, match="critic must be True or False, got 'no'"):
        build_vae(stripes.shape, critic="no")
