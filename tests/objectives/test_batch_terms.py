"""Objectives with terms of the whole batch: against loops, identities, and devices."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from flaxvae.checks import InputError
from flaxvae.collectives import DATA_AXIS
from flaxvae.distributions import Normal
from flaxvae.evaluation.bound import evaluate_terms
from flaxvae.models import build_vae
from flaxvae.objectives import DIPVAE, ELBO, TCVAE, WAE, FactorVAE, InfoVAE, mmd
from flaxvae.training import Trained, fit, sweep
from tests.objectives.linear_gaussian import LinearGaussian

MODEL = LinearGaussian(np.float32([0.4, -0.2]), np.float32([-1.0, 0.5]))
X = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
N = 100


@jax.jit
def compute(objective, key, model=MODEL, x=X):
    """The terms of a batch."""
    return objective(model, x, key=key)


def close(a, b, rtol=1e-4):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-5)


@pytest.mark.parametrize("sampling", ["weighted", "stratified"])
def test_the_parts_sum_to_the_kl_and_the_loss_to_the_elbo(key, sampling):
    fixed = {"sampling": sampling, "num_examples": N}
    terms = compute(TCVAE(alpha=1.0, beta=1.0, gamma=1.0, **fixed), key)
    parts = ("mutual_information", "total_correlation", "dimension_kl")
    close(sum(terms[name] for name in parts), terms["kl"])
    sampled = compute(ELBO(kl="sampled"), key)
    for name in ("loss", "elbo", "log_likelihood", "kl"):
        close(terms[name], sampled[name])
    heavy = compute(TCVAE(alpha=2.0, beta=5.0, gamma=3.0, **fixed), key)
    more = sum(w * terms[n] for w, n in zip((1, 4, 2), parts, strict=True))
    close(heavy["loss"] - terms["loss"], more, rtol=1e-3)


@jax.jit
def encode(model, x, key):
    """The codes of an objective that draws them by this key, means and deviations."""
    q = model.encode(x)
    return q.sample(key), q.mean, q.std


@pytest.mark.parametrize("sampling", ["weighted", "stratified"])
def test_the_marginal_is_the_papers_sum(key, sampling):
    """Against loops in double precision, with the weights of appendix C."""
    posterior = encode(MODEL, X, key)
    z, mean, std = (np.float64(array) for array in posterior)
    B = len(X)
    log_q_z, log_product = np.zeros(B), np.zeros(B)
    for i in range(B):
        total, each = 0.0, np.zeros(2)
        for j in range(B):
            density = stats.norm.pdf(z[i], mean[j], std[j])
            if sampling == "weighted":
                weight = 1 / (N * B)
            elif j == i:
                weight = 1 / N
            elif j == (i + 1) % B:
                weight = (N - B + 1) / (N * (B - 1))
            else:
                weight = 1 / (B - 1)
            total += weight * density.prod()
            each += weight * density
        log_q_z[i], log_product[i] = np.log(total), np.log(each).sum()
    terms = compute(TCVAE(sampling=sampling, num_examples=N), key)
    log_q = stats.norm.logpdf(z, mean, std).sum(-1)
    log_p = stats.norm.logpdf(z).sum(-1)
    close(terms["mutual_information"], log_q - log_q_z, rtol=1e-3)
    close(terms["total_correlation"], log_q_z - log_product, rtol=1e-3)
    close(terms["dimension_kl"], log_product - log_p, rtol=1e-3)


def test_weights_of_a_batch_larger_than_the_training_split_sum_to_one(key):
    """Of an evaluation: equal posteriors then have the density of each."""
    same = np.zeros((16, 3), np.float32)
    for num in (5, 16, 17, 100):
        fixed = {"sampling": "stratified", "num_examples": num}
        terms = compute(TCVAE(**fixed), key, MODEL, same)
        close(terms["mutual_information"], np.zeros(16))


def test_codes_that_know_nothing_have_no_information(key):
    same = np.zeros((16, 3), np.float32)
    terms = compute(TCVAE(sampling="stratified", num_examples=N), key, MODEL, same)
    close(terms["mutual_information"], np.zeros(16))
    close(terms["total_correlation"], np.zeros(16))


@pytest.mark.parametrize("version", [1, 2])
def test_the_covariance_penalty_is_the_papers(key, version):
    objective = DIPVAE(off_diagonal=3.0, on_diagonal=7.0, version=version)
    terms = compute(objective, key)
    _, mean, std = encode(MODEL, X, key)
    covariance = np.cov(np.float64(mean).T, bias=True)
    if version == 2:
        covariance += np.diag((std**2).mean(0))
    off = covariance[0, 1] ** 2 + covariance[1, 0] ** 2
    on = (covariance[0, 0] - 1) ** 2 + (covariance[1, 1] - 1) ** 2
    close(terms["covariance_penalty"], np.full(16, 3 * off + 7 * on))
    plain = compute(ELBO(), key)["loss"]
    close(terms["loss"], plain + 3 * off + 7 * on)


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_the_discrepancy_is_the_mean_over_pairs(kernel):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 3)), rng.normal(1.0, 2.0, size=(5, 3))

    def k(a, b):
        distance = ((a - b) ** 2).sum()
        if kernel == "rbf":
            return np.exp(-distance / 6)
        scales = (0.1, 0.2, 0.5, 1, 2, 5, 10)
        return sum(6 * s / (6 * s + distance) for s in scales)

    def mean(a, b):
        values = [k(p, q) for p in a for q in b if p is not q]
        return np.mean(values)

    x, y = list(x), list(y)
    expected = mean(x, x) + mean(y, y) - 2 * mean(x, y)
    arrays = (np.stack(rows).astype(np.float32) for rows in (x, y))
    close(jax.jit(mmd, static_argnums=2)(*arrays, kernel), expected)
    same = np.float32([[0.0, 1], [2, 1], [5, 5]])
    close(mmd(same, same, kernel), mmd(same, same.copy(), kernel))


@pytest.mark.parametrize("kernel", ["rbf", "imq"])
def test_the_discrepancy_of_a_distribution_with_itself_has_mean_zero(kernel):
    draws = np.random.default_rng(0).normal(size=(2, 400, 20, 3)).astype(np.float32)
    compare = jax.jit(jax.vmap(lambda x, y: mmd(x, y, kernel)))
    values, shifted = (np.asarray(compare(draws[0], draws[1] + d)) for d in (0, 1))
    error = values.std() / np.sqrt(400)
    assert abs(values.mean()) < 4 * error
    assert shifted.mean() > 10 * error


@dataclasses.dataclass
class WithPrior:
    """A model with another prior, N(mean, I)."""

    model: Any
    mean: jax.Array

    def __getattr__(self, name):
        return getattr(self.model, name)

    def prior(self):
        return Normal(self.mean, jnp.zeros(2), event_ndim=1)


def test_a_learned_prior_comes_nearer_to_the_codes(key):
    codes = np.asarray(encode(MODEL, X, key)[1]).mean(0)

    @jax.jit
    @jax.grad
    def slope(mean):
        return WAE()(WithPrior(MODEL, mean), X, key=key)["loss"].mean()

    for direction in np.array([[1.0, 0.0], [0.6, -0.8]], np.float32):
        assert slope(codes + 2 * direction) @ direction > 0.1


def test_weights_between_the_elbo_and_the_discrepancy(key):
    plain = compute(ELBO(), key)
    close(compute(InfoVAE(alpha=0.0, mmd_weight=1.0), key)["loss"], plain["loss"])
    for kernel in ("rbf", "imq"):
        terms = compute(InfoVAE(alpha=0.3, mmd_weight=5.0, kernel=kernel), key)
        expected = -plain["log_likelihood"] + 0.7 * plain["kl"] + 4.3 * terms["mmd"]
        close(terms["loss"], expected)
        terms = compute(WAE(mmd_weight=5.0, kernel=kernel), key)
        close(terms["loss"], -plain["log_likelihood"] + 5 * terms["mmd"])
        assert len(set(np.asarray(terms["mmd"]).tolist())) == 1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WithCritic(LinearGaussian):
    """A critic that looks at one product of the code."""

    slope: Any = 0.7

    def critic(self, z):
        return self.slope * z[:, 0] * z[:, 1] + 0.2


def test_the_critic_and_the_model_follow_their_own_losses(key):
    """Against two losses, each with what the other player has held fixed."""
    model = WithCritic(MODEL.shift, MODEL.log_var)
    objective = FactorVAE(gamma=4.0)

    def whole(model):
        return objective(model, X, key=key)["loss"].mean()

    def of_model(model):
        terms = objective(model, X, key=key)
        z = model.encode(X).sample(jax.random.split(key)[0])
        return (4.0 * model.critic(z) - terms["elbo"]).mean()

    def of_critic(model):
        return objective(model, X, key=key)["critic_loss"].mean()

    @jax.jit
    def slopes_of(model):
        return [jax.grad(f)(model) for f in (whole, of_model, of_critic)]

    slopes, by_model, by_critic = slopes_of(model)
    close(slopes.shift, by_model.shift, rtol=1e-3)
    close(slopes.log_var, by_model.log_var, rtol=1e-3)
    close(slopes.slope, by_critic.slope, rtol=1e-3)
    assert abs(by_model.slope) > 1e-3  # which the critic must not follow
    terms = compute(objective, key, model)
    expected = 4 * terms["total_correlation"] - terms["elbo"] + terms["critic_loss"]
    close(terms["loss"], expected)


def test_a_blind_critic_has_the_loss_of_a_coin_and_a_good_one_less(key):
    n = 2000
    along = np.array([[5, 5, -5]], np.float32)  # so that the code's dimensions depend
    x = np.random.default_rng(0).normal(size=(n, 1)).astype(np.float32) * along
    factor = FactorVAE()
    blind = compute(factor, key, WithCritic(MODEL.shift, MODEL.log_var, slope=0.0), x)
    assert abs(blind["critic_loss"].mean() - np.log(2)) < 0.02
    z = np.asarray(encode(MODEL, x, jax.random.split(key)[0])[0])
    product = z[:, 0] * z[:, 1]
    slope = product.mean() / (product**2).mean()  # the best small one, about
    good, bad = (
        compute(factor, key, WithCritic(MODEL.shift, MODEL.log_var, slope=s), x)
        for s in (slope, -slope)
    )
    blind_loss = blind["critic_loss"].mean()
    assert good["critic_loss"].mean() < blind_loss - 0.005
    assert bad["critic_loss"].mean() > blind_loss + 0.005
    with pytest.raises(InputError, match="must have a critic for the objective fact"):
        jax.eval_shape(factor, MODEL, x, key=key)


OF_DEVICES = {
    "weighted": TCVAE(num_examples=N),
    "factor": FactorVAE(),
    "stratified": TCVAE(num_examples=N, sampling="stratified"),
    "dip": DIPVAE(),
    "info": InfoVAE(),
    "wae": WAE(),
    "bits": ELBO(free_bits=0.8),
    "capacity": ELBO(capacity=1.5),
}


@pytest.fixture(scope="module")
def of_devices():
    """Loss and gradient of each objective on one device, and on eight by two rows."""

    def losses_and_gradients(x):
        def loss(shift, objective):
            model = WithCritic(shift, MODEL.log_var)
            return objective(model, x, key=jax.random.key(1))["loss"].mean()

        value_and_grad = functools.partial(jax.value_and_grad(loss), MODEL.shift)
        return {name: value_and_grad(each) for name, each in OF_DEVICES.items()}

    def local(x):
        return jax.lax.pmean(losses_and_gradients(x), DATA_AXIS)

    several = jax.pmap(local, axis_name=DATA_AXIS)(X.reshape(8, 2, 3))
    return jax.device_get((jax.jit(losses_and_gradients)(X), several))


@pytest.mark.parametrize("name", OF_DEVICES)
def test_the_batch_is_that_of_all_devices(of_devices, name):
    (value, slope), (values, slopes) = (each[name] for each in of_devices)
    close(values, np.full(8, value))
    close(slopes[0], slope, rtol=1e-3)


@pytest.mark.parametrize(
    "objective",
    [InfoVAE(), WAE(), DIPVAE(), TCVAE(), FactorVAE()],
    ids=lambda objective: type(objective).__name__,
)
def test_one_example_cannot_be_compared(stripes, objective):
    vae, name = build_vae(stripes.shape, 2, hidden=(4,)), type(objective).__name__
    one = dataclasses.replace(stripes, validation=stripes.validation[:1])
    options = {"objective": objective, "progress": False}
    rule = f"batch_size must be >= 2 for the objective {name}, which compares"
    with pytest.raises(InputError, match=rule):
        fit(vae, stripes, batch_size=1, **options)
    with pytest.raises(InputError, match=rule):
        sweep(lambda: vae, stripes, {"seed": [0, 1]}, batch_size=1, **options)
    with pytest.raises(InputError, match=f"leave 2 examples for the objective {name}"):
        fit(vae, one, batch_size=8, **options)
    trained = Trained(vae, {}, stripes.shape, stripes.preprocessing)
    rule = f"split must hold 2 examples for the objective {name}, which compares them"
    with pytest.raises(InputError, match=rule):
        evaluate_terms(trained, stripes.test[:1], objective)


@pytest.mark.parametrize("sizes", [(1, 3), (3, 1), (1, 1)])
def test_a_discrepancy_needs_two_examples_of_each(sizes):
    x, y = (jnp.zeros((size, 2)) for size in sizes)
    with pytest.raises(InputError, match="examples that are compared must be >= 2"):
        mmd(x, y)


def test_dependent_posteriors_and_unknown_choices_are_refused(key):
    full = LinearGaussian(exact=True)
    for objective, name in (
        (TCVAE(num_examples=N), "tcvae"),
        (DIPVAE(), "dip"),
        (FactorVAE(), "factor"),
    ):
        model = WithCritic(exact=True) if name == "factor" else full
        rule = f"posterior must be diagonal for {name}, got MultivariateNormal"
        with pytest.raises(InputError, match=rule):
            jax.eval_shape(objective, model, X, key=key)
    with pytest.raises(InputError, match="unknown sampling 'w': choose from str"):
        TCVAE(sampling="w")
    with pytest.raises(InputError, match="num_examples must be >= 2, got 1"):
        TCVAE(num_examples=1)
    with pytest.raises(InputError, match="num_examples must be set for the objecti"):
        jax.eval_shape(TCVAE(), MODEL, X, key=key)
    with pytest.raises(InputError, match="version must be 1 or 2, got 3"):
        DIPVAE(version=3)
    with pytest.raises(InputError, match="unknown kernel 'r': choose from imq, rbf"):
        WAE(kernel="r")
    with pytest.raises(InputError, match="unknown kernel 'r': choose from imq, rbf"):
        mmd(jnp.zeros((3, 2)), jnp.zeros((3, 2)), "r")
    assert isinstance(MODEL.encode(X), Normal)
