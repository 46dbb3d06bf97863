"""The disentanglement of a trained model."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.data import Split, from_arrays
from flaxvae.evaluation.disentanglement import Score, disentanglement, mig
from flaxvae.evaluation.disentanglement.model import METRICS
from flaxvae.latent.encode import encode_means
from flaxvae.models import build_classifier, build_vae
from tests.evaluation.untrained import untrained

from .known import all_combinations

FACTORS = np.insert(all_combinations(2, 3, repeats=20), 1, 7, axis=1)  # (120, 3)


@pytest.fixture(scope="module")
def trained_and_split():
    rng = np.random.default_rng(0)
    x = FACTORS @ rng.normal(size=(3, 4)) + 0.1 * rng.normal(size=(120, 4))
    data = from_arrays(x, name="rows")
    data = dataclasses.replace(data, factor_names=("shape", "colour", "size"))
    model = build_vae(data.shape, 2, hidden=(8,))
    return untrained(model, data), Split(x.astype(np.float32), factors=FACTORS)


def test_codes_are_posterior_means_and_constant_factors_are_left_out(trained_and_split):
    trained, split = trained_and_split
    found = disentanglement(trained, split)
    json.dumps(found, allow_nan=False)
    assert (found["examples"], found["dimensions"]) == (120, 2)
    assert found["factors"] == ["shape", "size"]
    assert found["constant_factors"] == ["colour"]
    codes, factors = encode_means(trained, split), FACTORS[:, [0, 2]]
    assert found["mig"]["value"] == mig(codes, factors).value
    assert np.shape(found["mig"]["mutual_information"]) == (2, 2)
    scores = {"dci_disentanglement", "dci_completeness", "dci_informativeness"}
    assert scores | (METRICS.keys() - {"dci"}) < found.keys()
    assert found["dci_trees"] == "forest"
    for name in scores | (METRICS.keys() - {"dci"}):
        assert 0 <= found[name]["value"] <= 1 and found[name]["standard_error"] >= 0


def test_a_metric_alone_has_the_same_numbers(trained_and_split):
    trained, split = trained_and_split
    both = disentanglement(trained, split, metrics=["irs", "sap"], seed=3)
    alone = disentanglement(trained, split, metrics=["sap"], seed=3)
    assert alone["sap"] == both["sap"] and "irs" not in alone
    other = disentanglement(trained, split, metrics=["sap"], seed=4)
    assert alone["sap"]["standard_error"] != other["sap"]["standard_error"]
    again = disentanglement(trained, split, metrics=["sap"])  # the run's seed is 0
    assert again == disentanglement(trained, split, metrics=["sap"], seed=trained.seed)


def test_of_many_examples_some_are_drawn(trained_and_split):
    trained, split = trained_and_split
    names = ["a", "b", "c"]
    found = disentanglement(
        trained, split, metrics=["mig"], max_examples=50, factor_names=names, seed=1
    )
    assert (found["examples"], found["factors"]) == (50, ["a", "c"])
    rows = np.sort(np.random.default_rng(1).permutation(120)[:50])
    codes = encode_means(trained, split[rows])
    assert found["mig"]["value"] == mig(codes, FACTORS[rows][:, [0, 2]]).value


def test_trees_are_those_of_the_argument(trained_and_split, monkeypatch):
    trained, split = trained_and_split
    seen = []

    def own(codes, factors, *, rng, trees):
        seen.append((trees, factors.shape))
        return {"part": Score(0.25, None)}

    monkeypatch.setitem(METRICS, "dci", own)
    found = disentanglement(trained, split, metrics=["dci"], trees="boosting")
    assert found["dci_part"] == {"value": 0.25, "standard_error": None}
    assert found["dci_trees"] == "boosting" and seen == [("boosting", (120, 2))]


def test_other_splits_and_models_are_refused(trained_and_split):
    trained, split = trained_and_split

    def refuse(says, trained=trained, split=split, **options):
        with pytest.raises(InputError, match=says):
            disentanglement(trained, split, **options)

    refuse("split must have factors to measure", split=Split(split.x))
    refuse("split must hold an example", split=split[:0])
    refuse("no weights", split=dataclasses.replace(split, weights=np.ones(120)))
    constant = dataclasses.replace(split, factors=FACTORS * 0)
    refuse("a factor that varies, got one value each of shape, colour", split=constant)
    refuse("unknown metric 'gim': choose from beta_vae, .* mig", metrics=["gim"])
    refuse("max_examples must be >= 2", max_examples=1)
    refuse("one for each of 3 factors, got 1", factor_names=["a"])
    classifier = dataclasses.replace(trained, model=build_classifier("mlp", 2))
    refuse(
        "codes that are vectors, and those of Classifier are not", trained=classifier
    )
    model = SimpleNamespace(encode=None)
    for own in ({"code_shape": (2, 2, 3)}, {"code_shape": None, "has_levels": True}):
        grid = SimpleNamespace(model=model, seed=0, **({"has_levels": False} | own))
        refuse("codes that are vectors", trained=grid)
