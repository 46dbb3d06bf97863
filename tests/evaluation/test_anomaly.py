"""Detectors: scores, contributions with known answers, thresholds, unusual tables."""

import dataclasses
import functools
import json
from typing import get_args

import jax
import numpy as np
import pandas
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from flaxvae.checks import InputError
from flaxvae.data import from_arrays
from flaxvae.evaluation.anomaly import (
    DetectorConfig,
    detect,
    fit_detector,
    load_detector,
    rank,
    read_examples,
)
from flaxvae.evaluation.anomaly.columns import Columns
from flaxvae.evaluation.anomaly.config import ModelScore
from flaxvae.evaluation.anomaly.ensemble import TrimmedELBO, build_model
from flaxvae.evaluation.anomaly.marginals import fit_log_density, surprise
from flaxvae.evaluation.anomaly.ranking import curves
from flaxvae.evaluation.anomaly.scores import combine, fit_scale, score_parts
from flaxvae.objectives import ELBO

QUICK = DetectorConfig(steps=3, copies=1, hidden=4, latent_dim=2)


def circle(rng, n):
    """Rows near a circle, in three columns and a constant one."""
    angle = rng.uniform(0, 2 * np.pi, n)
    columns = [np.cos(angle), np.sin(angle), np.cos(2 * angle), np.full(n, 7.0)]
    noise = np.array([0.05, 0.05, 0.05, 0.0])
    return np.stack(columns, axis=1) + noise * rng.normal(size=(n, 4))


@pytest.fixture(scope="module")
def rows():
    return circle(np.random.default_rng(0), 400)


@pytest.fixture(scope="module")
def detector(rows):
    config = DetectorConfig(copies=1, hidden=16, variance=0.03)
    return fit_detector(rows, config=config, seed=3)


def test_outliers_far_away_and_inside_the_circle_stand_out(detector):
    new = circle(np.random.default_rng(1), 200)
    assert detector.score([[3.0, -3.0, 0.0, 7.0]]).min() > detector.score(new).max()
    inside = np.array([[0.0, 0.0, 0.0, 7.0], [0.1, -0.1, 0.1, 7.0]])
    of_new, of_inside = (
        score_parts(
            detector.config, detector.scorer, detector.columns(x), is_image=False
        )
        for x in (new, inside)
    )
    elbo, marginals = range(2)
    assert of_inside[:, elbo].min() > np.quantile(of_new[:, elbo], 0.7)
    assert of_inside[:, marginals].max() < of_new[:, marginals].max() + 1.0


def test_a_score_depends_on_its_row_alone(detector, rows):
    scores = detector.score(rows)
    np.testing.assert_allclose(scores, detector.training_scores, rtol=1e-5, atol=1e-5)
    few = detector.score(rows[[5, 2]])
    np.testing.assert_allclose(few, scores[[5, 2]], rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def quick(rows):
    """Fitted in a few steps, with a variance that is not 1."""
    return fit_detector(rows, config=dataclasses.replace(QUICK, variance=0.3))


@pytest.fixture(scope="module")
def formulas(quick, rows):
    """Scores of 20 rows by NumPy, from the means and deviations of a model."""
    x = quick.columns(rows)[:20]
    model = build_model(quick.config, 3, variance=0.3)
    variables = jax.tree.map(lambda leaf: leaf[0], quick.scorer.variables)
    q = jax.jit(functools.partial(model.apply, method="encode"))(variables, x)
    decode = jax.jit(functools.partial(model.apply, method="decode"))
    mean, std = np.asarray(q.mean, np.float64), np.exp(0.5 * np.asarray(q.log_var))

    def log_likelihood(z):
        decoded = decode(variables, z.astype(np.float32)).mean
        return stats.norm.logpdf(x, decoded, 0.3**0.5).sum(-1)

    kl = (0.5 * (mean**2 + std**2 - 1) - np.log(std)).sum(1)
    z = mean + std * np.random.default_rng(0).normal(size=(20_000, 20, 2))
    prior_over_q = stats.norm.logpdf(z) - stats.norm.logpdf(z, mean, std)
    drawn = log_likelihood(z)
    weight = np.exp(drawn + prior_over_q.sum(-1))
    at_mean = kl - log_likelihood(mean)
    return {
        "kl": kl,
        "reconstruction": -log_likelihood(mean),
        "elbo": at_mean,
        "typicality": at_mean,
        "draws": kl - drawn.mean(0),
        "bound": -np.log(weight.mean(0)),
    }


@pytest.mark.parametrize("name", get_args(ModelScore))
def test_a_score_is_that_of_the_formula(name, quick, rows, formulas):
    """Draws are independent of those of the formula."""
    is_drawn = name in ("draws", "bound")
    more = {"num_samples": 5000} if is_drawn else {}
    config = dataclasses.replace(quick.config, score=name, **more)
    x = quick.columns(rows)[:20]
    got = score_parts(config, quick.scorer, x, is_image=False)[:, 0]
    error = 0.5 if is_drawn else 1e-3
    np.testing.assert_allclose(got, formulas[name], atol=error, rtol=error / 10)


def test_parts_are_combined_on_a_logarithmic_scale():
    rng = np.random.default_rng(0)
    parts = rng.lognormal(size=(500, 2)) * [1.0, 100.0]
    config = DetectorConfig(marginals_share=0.3)
    low, high = np.percentile(parts, [1, 75], axis=0)
    above = (parts - low) / (high - low)
    tamed = np.where(above > 0, np.log(1 + np.maximum(above, 0)), above)
    got = combine(config, parts, fit_scale(config, parts))
    np.testing.assert_allclose(got, 0.7 * tamed[:, 0] + 0.3 * tamed[:, 1])
    assert (np.diff(got[parts[:, 0].argsort()]) >= 0).mean() < 1  # both count

    config = DetectorConfig(score="typicality")
    one = rng.normal(size=(501, 1))
    got = combine(config, one, fit_scale(config, one))
    expected = np.abs(one[:, 0] - np.median(one)).argsort()
    assert got.argsort().tolist() == expected.tolist()


def test_the_trimmed_objective_leaves_the_highest_losses_out():
    model = build_model(QUICK, 3)
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    key = jax.random.key(0)
    variables = jax.jit(functools.partial(model.init, method=ELBO()))(key, x, key=key)

    def losses(objective, x=x):
        apply = jax.jit(functools.partial(model.apply, method=objective))
        return apply(variables, x, key=key)["loss"]

    every = np.asarray(losses(ELBO(beta=0.5)))
    found = losses(TrimmedELBO(beta=0.5, trim=0.25)).mean()
    np.testing.assert_allclose(found, np.sort(every)[:6].mean(), rtol=1e-5)
    np.testing.assert_allclose(losses(TrimmedELBO(beta=0.5)), every, rtol=1e-6)
    x = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    two = np.asarray(losses(TrimmedELBO(beta=0.5, trim=0.9), x))
    assert np.count_nonzero(two) == 2


def test_columns_are_standardized_and_constant_ones_left_out(rows):
    found = Columns.fit(rows, 8.0)
    kept = rows[:, :3]
    expected = (kept - kept.mean(0)) / kept.std(0)
    np.testing.assert_allclose(found(rows), expected, atol=1e-5)
    assert found.used.tolist() == [True, True, True, False]


@pytest.fixture(scope="module")
def of_marginals(rows):
    return fit_detector(rows, config=DetectorConfig(score="marginals"))


def test_the_marginals_are_kernel_estimates_of_the_columns(of_marginals, rows):
    """By SciPy's, whose bandwidth is a factor of the deviation with N - 1."""
    x = (rows[:, :3] - rows[:, :3].mean(0)) / rows[:, :3].std(0)
    total = np.zeros(400)
    for column in x.T:
        kernels = stats.gaussian_kde(column, 0.2 / column.std(ddof=1))(column)
        total -= np.log((400 * kernels + 1 / 16) / 401)  # and one of 16 deviations
    got = score_parts(
        of_marginals.config,
        of_marginals.scorer,
        of_marginals.columns(rows),
        is_image=False,
    )
    np.testing.assert_allclose(got[:, 0], total, atol=0.05)
    low, high = np.percentile(total, [1, 75])
    above = (total - low) / (high - low)
    expected = np.where(above > 0, np.log1p(np.maximum(above, 0)), above)
    np.testing.assert_allclose(of_marginals.score(rows), expected, atol=0.05)


def test_a_density_has_an_integral_of_one_and_a_floor():
    x = np.array([[-8.0, 0.0], [8.0, 0.0], [0.1, 0.0]], np.float32)
    found = fit_log_density(x, 8.0)
    np.testing.assert_allclose((np.exp(found) * 0.05).sum(1), 1, rtol=1e-5)
    nowhere = np.log(1 / (321 * 0.05) / 4)  # the one uniform observation of 4
    np.testing.assert_allclose(found[1, [0, -1]], nowhere, rtol=1e-5)
    at = np.array([[0.05 * 3.25, -8.0], [8.0, 8.0]], np.float32)
    got = np.asarray(surprise(found, at, 8.0))
    between = 0.75 * found[0, 163] + 0.25 * found[0, 164]
    expected = [[-between, -found[1, 0]], [-found[0, -1], -found[1, -1]]]
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_contributions_to_the_marginals_are_those_of_the_columns(of_marginals, rows):
    """Each column's -log p above the typical row's, on the scale of the score."""
    typical = np.append(of_marginals.typical * of_marginals.columns.std[:3], 0)
    typical += of_marginals.columns.mean
    other = typical + np.array([0.0, 2.0, 0.7, 0.0])
    seen = of_marginals.columns(np.stack([typical, other]))
    terms = np.asarray(surprise(of_marginals.scorer.log_density, seen, 8.0))
    above = of_marginals.score(other[None]) - of_marginals.training_scores.min()
    expected = (terms[1] - terms[0]) / (terms[1] - terms[0]).sum() * above
    given = of_marginals.contributions(other[None])[0]
    np.testing.assert_allclose(given[:3], expected, rtol=0.02, atol=1e-4)
    assert given[3] == 0 and given[0] == 0


def test_contributions_add_up_to_the_score_above_the_lowest(detector, rows):
    some = np.concatenate([rows[:20], [[3.0, 0.0, 0.0, 7.0]]])
    total = detector.contributions(some).sum(1)
    above = detector.score(some) - detector.training_scores.min()
    np.testing.assert_allclose(total, above, rtol=0.1, atol=0.1)
    assert detector.contributions(some)[-1].argmax() == 0


def test_thresholds_have_the_share_that_is_asked_for(detector):
    scores = detector.training_scores
    cut = detector.threshold(contamination=0.1)
    assert (scores > cut).sum() == 40
    below = scores[scores <= cut]
    lower = detector.threshold(contamination=0.1, false_alarm_rate=0.05)
    assert (below > lower).mean() == pytest.approx(0.05, abs=0.003)
    alone = detector.threshold(false_alarm_rate=0.05)
    assert (scores > alone).mean() == pytest.approx(0.05, abs=0.003)
    with pytest.raises(InputError, match="must be stated, got neither"):
        detector.threshold()
    with pytest.raises(InputError, match="contamination must be < 1, got 1"):
        detector.threshold(contamination=1)


def test_a_saved_detector_scores_the_same(detector, rows, tmp_path):
    detector.save(tmp_path / "detector.npz")
    loaded = load_detector(tmp_path / "detector.npz")
    assert loaded.config == detector.config
    np.testing.assert_array_equal(loaded.score(rows), detector.score(rows))
    np.testing.assert_array_equal(
        loaded.contributions(rows[:3]), detector.contributions(rows[:3])
    )
    np.savez(tmp_path / "other.npz", a=1)
    (tmp_path / "text.npz").write_text("no detector")
    for name in ("other.npz", "text.npz"):
        with pytest.raises(InputError, match=rf"{name} must be a file of a detector"):
            load_detector(tmp_path / name)


def test_seeds_decide(quick, rows):
    config = quick.config
    one, same, other = (fit_detector(rows, config=config, seed=s) for s in (1, 1, 2))
    leaves = [jax.tree.leaves(each.scorer.variables) for each in (one, same, other)]
    assert all((a == b).all() for a, b in zip(leaves[0], leaves[1], strict=True))
    assert not all((a == b).all() for a, b in zip(leaves[0], leaves[2], strict=True))


def unusual_tables():
    """Of five columns, where the kind says nothing else: one program for all."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(60, 5))
    huge, missing, heavy = x.copy(), x.copy(), x.copy()
    huge[:, 1] *= 1e30
    huge[0, 2] = 1e300
    missing[3, 1] = np.nan
    heavy[:, 0] = rng.standard_cauchy(60) ** 3
    return {
        "huge": huge,
        "missing": missing,
        "heavy": heavy,
        "equal": np.ones((60, 5)),
        "one row": x[:1],
        "one column": x[:, :1],
        "constants": np.stack([x[:, 0], np.full(60, 1e30), np.zeros(60)], axis=1),
        "integers": rng.integers(0, 5, (60, 5)),
        "wide": rng.normal(size=(3, 5)),
        "images": rng.uniform(size=(60, 1, 5, 1)),
    }


@pytest.mark.parametrize("kind", unusual_tables())
def test_an_unusual_table_has_finite_scores(kind, tmp_path):
    x = unusual_tables()[kind]
    found = fit_detector(x, config=QUICK)
    assert np.isfinite(found.score(x)).all()
    assert np.isfinite(found.score(x * 1e6)).all()
    given = found.contributions(x)
    assert given.shape == x.shape and np.isfinite(given).all()
    found.save(tmp_path / "d.npz")
    loaded = load_detector(tmp_path / "d.npz")
    np.testing.assert_array_equal(loaded.score(x), found.score(x))


def test_a_column_without_a_value_is_left_out():
    x = np.random.default_rng(0).normal(size=(50, 2))
    x[:, 1] = np.nan
    found = Columns.fit(x, 8.0)
    assert found.used.tolist() == [True, False]
    assert found(x).shape == (50, 1)


def test_one_huge_value_leaves_its_column_useful():
    x = np.random.default_rng(0).normal(size=(200, 2))
    x[0, 0] = 1e30
    found = Columns.fit(x, 8.0)
    assert found.std[0] < 4
    assert found(x)[0, 0] > 5


def test_pixels_share_one_scale():
    x = np.random.default_rng(0).uniform(size=(50, 2, 2, 1))
    x[:, 0, 0] = 0.5
    found = Columns.fit(x, 8.0)
    assert found.used.all()
    np.testing.assert_allclose(found.std, np.sqrt(x.var(0).mean()))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((0, 3)), "at least one row and one column, got the shape"),
        (np.zeros(3), "must be .N, F., or images"),
        ([["a", "b"]], "must be numbers"),
        ([[np.inf, 0.0]], "finite or missing .NaN., got inf in column 0"),
    ],
)
def test_what_is_not_a_table_is_refused(x, message):
    with pytest.raises(InputError, match=message):
        fit_detector(x, config=QUICK)


def test_other_columns_and_bad_settings_are_refused(detector):
    with pytest.raises(InputError, match="rows must have 4 columns, got 2"):
        detector.score(np.zeros((1, 2)))
    with pytest.raises(InputError, match="steps must be >= 1"):
        DetectorConfig(steps=0)
    with pytest.raises(InputError, match="unknown score 'iwae'"):
        DetectorConfig(score="iwae")
    with pytest.raises(InputError, match="num_samples must be left out unless score"):
        DetectorConfig(num_samples=4)
    with pytest.raises(InputError, match="trim must be left out where score is marg"):
        DetectorConfig(score="marginals", trim=0.2)


def test_areas_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [180, 20])
    scores = np.round(rng.normal(size=200) + labels, 1)  # with ties
    found = rank(scores, labels, num_resamples=400)
    assert found.auroc == pytest.approx(roc_auc_score(labels, scores))
    expected = average_precision_score(labels, scores)
    assert found.average_precision == pytest.approx(expected)
    # An independent bootstrap, and for the AUROC the error of Hanley and McNeil, 1982.
    drawn = [
        np.concatenate([rng.choice(180, 180), 180 + rng.choice(20, 20)])
        for _ in range(400)
    ]
    for area, interval in (
        (roc_auc_score, found.auroc_interval),
        (average_precision_score, found.average_precision_interval),
    ):
        again = np.quantile([area(labels[i], scores[i]) for i in drawn], [0.025, 0.975])
        np.testing.assert_allclose(interval, again, atol=0.04)
    a, m, n = found.auroc, 20, 180
    q1, q2 = a / (2 - a), 2 * a**2 / (1 + a)
    variance = a * (1 - a) + (m - 1) * (q1 - a**2) + (n - 1) * (q2 - a**2)
    low, high = found.auroc_interval
    assert (high - low) / 3.92 == pytest.approx((variance / (m * n)) ** 0.5, rel=0.25)


def test_curves_pass_through_known_points():
    found = curves(np.array([3.0, 2.0, 2.0, 1.0]), np.array([1, 0, 1, 0]))
    assert found.recall.tolist() == [0, 0.5, 1, 1]
    assert found.false_alarm_rate.tolist() == [0, 0, 0.5, 1]
    assert found.precision.tolist() == [1, 1, 2 / 3, 0.5]


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([1.0, 2.0], [0, 0], "labels must hold 0 .normal. and 1 .anomaly., and both"),
        ([1.0, np.nan], [0, 1], "scores must be finite"),
        ([1.0], [0, 1], "must be .N,. each"),
    ],
)
def test_what_cannot_be_ranked_is_refused(scores, labels, message):
    with pytest.raises(InputError, match=message):
        rank(scores, labels)


@pytest.fixture
def table():
    """A table with a category, whose anomalies have a large height."""
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame(rng.normal(size=(80, 2)), columns=["width", "height"])
    frame["kind"] = rng.choice(["a", "b", "c"], 80)
    frame["class"] = ["odd" if i % 20 == 0 else "even" for i in range(80)]
    frame.loc[::20, "height"] += 30
    return from_arrays(frame, label_column="class", test_size=0, validation_size=0)


def test_examples_stay_in_the_order_of_the_data(table):
    found = read_examples(table, normal_class="even", test_size=0.25)
    np.testing.assert_array_equal(found.x, table.train.x)
    assert found.places["index"].tolist() == list(range(80))
    assert found.labels.sum() == 4 and found.labels[::20].all()
    assert found.is_test.sum() == 20
    assert not (found.is_test & found.is_training).any()
    assert not found.labels[found.is_training].any()
    assert list(found.groups) == ["width", "height", "kind"]
    assert len(found.groups["kind"]) == 3
    by_number = read_examples(table, normal_class="0")  # of even, by the alphabet
    np.testing.assert_array_equal(by_number.labels, found.labels)
    for name, message in (("oddd", "unknown normal_class 'oddd'"),):
        with pytest.raises(InputError, match=message):
            read_examples(table, normal_class=name)


def test_test_examples_are_held_out_of_the_training_examples(table):
    validation, train = table.train[:30], table.train[30:]
    known = dataclasses.replace(table, train=train, validation=validation)
    found = read_examples(known, test_size=0.2)
    of_split = found.places["split"]
    assert np.unique(of_split, return_counts=True)[1].tolist() == [10, 40, 30]
    assert set(of_split[:40]) == {"test", "train"}  # training examples come first
    np.testing.assert_array_equal(found.is_test, of_split == "test")
    np.testing.assert_array_equal(found.is_training, of_split == "train")
    own = dataclasses.replace(table, train=train, test=validation)
    with pytest.raises(InputError, match="test_size must be left out for 'arrays'"):
        read_examples(own, test_size=0.2)


def test_what_is_not_a_file_of_a_detector_is_one_line(detector, tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_detector(tmp_path / "none.npz")
    detector.save(path := tmp_path / "d.npz")
    for content in (path.read_bytes()[:100], path.read_bytes()[:-100], b"PK", b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match="must be a file of a detector"):
            load_detector(path)


def test_a_detection_names_the_columns_and_writes_its_files(table, tmp_path, coarse):
    examples = read_examples(table)
    found = detect("t", examples, contamination=0.05, config=QUICK)
    assert found.table["is_anomaly"].tolist() == (examples.labels == 1).tolist()
    assert set(found.table["column_1"][::20]) == {"height"}
    assert found.ranking.auroc == 1.0
    files = found.write(tmp_path, output=tmp_path / "s.parquet")
    assert sorted(f.relative_to(tmp_path).as_posix() for f in files) == [
        "detector.npz",
        "figures/contributions.png",
        "figures/ranking.png",
        "figures/scores.png",
        "s.parquet",
        "summary.json",
    ]
    written = pandas.read_parquet(tmp_path / "s.parquet")
    np.testing.assert_array_equal(written["score"], found.table["score"])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["num_flagged"] == 4 and summary["ranking"]["num_anomalies"] == 4
    loaded = load_detector(tmp_path / "detector.npz")
    np.testing.assert_array_equal(loaded.score(examples.x), found.table["score"])
