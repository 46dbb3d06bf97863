"""The choice of an objective by name: every one reachable, foreign fields refused."""

import dataclasses
from typing import get_args

import numpy as np
import pytest
import tyro

from flaxvae.checks import InputError
from flaxvae.objectives import (
    ELBO,
    IWAE,
    OBJECTIVES,
    TCVAE,
    FactorVAE,
    Objective,
    ObjectiveConfig,
    ObjectiveName,
    Weight,
    static,
)
from flaxvae.objectives.config import ObjectiveChoice
from flaxvae.schedules import Clock, Schedule, build_schedule, cyclical
from flaxvae.settings import (
    choices_of,
    describe_settings,
    field_docs,
    setting,
    settings_from_description,
)


def test_the_names_are_those_of_the_objectives():
    assert get_args(ObjectiveName) == tuple(OBJECTIVES)
    with pytest.raises(InputError, match=r"unknown objective 'fiwae'.*mean iwae"):
        ObjectiveConfig(objective="fiwae")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_and_every_field_of_it_is_reachable(name):
    kind = OBJECTIVES[name]
    assert ObjectiveConfig(objective=name).build() == kind()
    hints = {f.name: f.type for f in dataclasses.fields(ObjectiveConfig)}
    for field in dataclasses.fields(kind):
        if field.metadata.get("from_data"):
            assert field.name not in hints
            continue
        choices = choices_of(hints[field.name])
        value = choices[0] if choices else 1
        if field.name == "num_samples":
            value = 8
        config = ObjectiveConfig(objective=name, **{field.name: value})
        assert getattr(config.build(), field.name) == value


def test_every_field_is_documented():
    docs = field_docs(ObjectiveConfig)
    fields = [field.name for field in dataclasses.fields(ObjectiveConfig)]
    assert fields[0] == "objective"
    assert list(docs) == fields
    assert all(doc.endswith(".") for doc in docs.values())
    assert "elbo 1312.6114" in docs["objective"]
    assert docs["beta"].startswith("elbo (1): Weight of the KL divergence. tcvae (6): ")
    assert docs["num_samples"].startswith(
        "elbo (1), iwae (50), miwae, piwae, ciwae (64"
    )
    assert docs["capacity"].startswith("elbo: Target C")


def test_the_fields_are_flags_with_help(capsys):
    with pytest.raises(SystemExit) as end:
        tyro.cli(ObjectiveConfig, args=["--help"], use_underscores=True)
    assert end.value.code == 0
    help_text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name, doc in field_docs(ObjectiveConfig).items():
        assert f"--{name} " in help_text
        assert doc in help_text
    args = ["--objective=tcvae", "--beta=3", "--sampling", "stratified"]
    config = tyro.cli(ObjectiveConfig, args=args, use_underscores=True)
    assert config == ObjectiveConfig(objective="tcvae", beta=3.0, sampling="stratified")
    assert config.build() == TCVAE(beta=3.0, sampling="stratified")


BAD = [
    (
        {"objective": "iwae", "beta": 2.0},
        "beta must be left out for the objective iwae, which has num_samples, "
        "estimator, got 2.0",
    ),
    (
        {"critic_learning_rate": 1.0},
        "critic_learning_rate must be left out for the objective elbo",
    ),
    ({"num_means": 2}, "num_means must be left out for the objective elbo"),
    (
        {"objective": "miwae", "num_samples": 5, "num_means": 2},
        "num_means must divide num_samples, 5, into equal parts, got 2",
    ),
    (
        {"objective": "wae", "kl_schedule": "linear"},
        "kl_schedule must be constant for the objective wae, which has no beta, got l",
    ),
    ({"kl_cycles": 2}, "kl_cycles must be left out where kl_schedule is constant, got"),
    ({"kl_epochs": 2}, "kl_epochs must be left out where kl_schedule is constant, got"),
    (
        {"kl_schedule": "linear", "kl_cycles": 2},
        "kl_cycles must be left out where kl_schedule is linear",
    ),
    ({"kl_schedule": "linear", "kl_epochs": 0}, "kl_epochs must be > 0, got 0"),
    ({"kl_schedule": "cyclical", "kl_cycles": 0}, "kl_cycles must be >= 1, got 0"),
    ({"kl_schedule": "linear", "beta": -1.0}, "beta must be >= 0, got -1.0"),
    ({"kl_schedule": "quadratic"}, "unknown kl_schedule 'quadratic': choose from con"),
    ({"free_bits": -1.0}, "free_bits must be >= 0"),
    ({"objective": "dip", "version": 3}, "version must be 1 or 2, got 3"),
]


@pytest.mark.parametrize(("fields", "message"), BAD, ids=[m for _, m in BAD])
def test_nonsense_is_refused_when_the_config_is_created(fields, message):
    with pytest.raises(InputError, match=message):
        ObjectiveConfig(**fields)


def test_a_schedule_of_beta():
    default = ObjectiveConfig(kl_schedule="linear").build()
    assert default == ELBO(beta=Schedule(1.0, "linear"))
    tc = ObjectiveConfig(objective="tcvae", kl_schedule="sigmoid", kl_epochs=2.0)
    assert tc.build() == TCVAE(beta=Schedule(6.0, "sigmoid", epochs=2.0))
    again = ObjectiveConfig(beta=3.0, kl_schedule="cyclical", kl_cycles=2).build()
    assert again == ELBO(beta=cyclical(3.0, cycles=2))


@pytest.mark.parametrize("kind", ["linear", "cyclical"])
@pytest.mark.parametrize("epochs", [1, 2, 7, 30])
@pytest.mark.parametrize("per_epoch", [1, 5, 445])
def test_the_default_length_is_a_share_of_the_run_to_the_nearest_step(
    kind, epochs, per_epoch
):
    share = 1 / 3 if kind == "linear" else 1.0
    steps = max(1, round(share * epochs * per_epoch))
    beta = ObjectiveConfig(kl_schedule=kind).build().beta
    factor = beta.factor(Clock(per_epoch, epochs))
    at = np.arange(30 * 445 + 2)  # beyond the end of each
    np.testing.assert_array_equal(factor(at), build_schedule(kind, steps)(at))


def test_a_config_is_stored_and_comes_back():
    config = ObjectiveConfig(objective="factor", gamma=2.0, critic_learning_rate=1e-3)
    described = describe_settings(config)
    assert described["objective"] == "factor"
    assert settings_from_description(ObjectiveConfig, described) == config
    assert config.build() == FactorVAE(gamma=2.0, critic_learning_rate=1e-3)
    assert hash(config) == hash(dataclasses.replace(config))


def test_a_new_objective_needs_one_line_only():
    class Renyi(Objective):
        """Renyi's bound.

        Source: Li and Turner, 2016, arXiv 1602.02311.
        """

        alpha: Weight = setting(0.5, above=0)
        """Order of the divergence."""
        num_samples: int = static(8, at_least=1)
        """Draws of z for each example."""

        def __call__(self, vae, x, *, key):
            return {"loss": x}

    class Choice(ObjectiveChoice, objectives={"renyi": Renyi, "iwae": IWAE}):
        """An objective."""

    assert Choice(alpha=2.0).build() == Renyi(alpha=2.0)
    assert Choice(objective="iwae").build() == IWAE()
    docs = field_docs(Choice)
    assert docs["alpha"] == "renyi (0.5): Order of the divergence."
    assert docs["num_samples"] == "renyi (8), iwae (50): Draws of z for each example."
    assert docs["objective"].endswith("renyi 1602.02311, iwae 1509.00519.")
    with pytest.raises(InputError, match="alpha must be > 0, got 0"):
        Choice(alpha=0)
    with pytest.raises(InputError, match="which has no beta, got linear"):
        Choice(kl_schedule="linear")
