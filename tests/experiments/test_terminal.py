"""The rows that commands print about a model."""

import math

import pytest

from experiments.terminal import describe_bounds

TEST = {"elbo": -2.93, "log_likelihood": -2.77, "kl": 0.16}
NLL = {"nll": 2.91, "nll_monte_carlo_error": 0.013, "nll_effective_samples": 46.0}
OWN = {"elbo_own_units": -18.46, "nll_own_units": 18.43}
UNITS = {"units": "nats per example, of a", "own_units": "nats per example, of b"}
PARTS = {
    "mutual_information": 0.14,
    "mutual_information_ceiling": math.log(40),
    "marginal_kl": 0.02,
    "total_correlation": 0.01,
    "dimension_kl": 0.01,
}


@pytest.mark.parametrize("units", [{}, UNITS])
def test_the_rows_stand_in_order_and_each_has_a_name(units):
    test = TEST | NLL | (OWN if units else {})
    rows = describe_bounds({"test": test, "surgery": PARTS, **units})
    own = ["  in own units"] if units else []
    assert [name for name, _ in rows] == [
        *("test -ELBO", *own, "reconstruction", "KL"),
        *("  mutual information I(x; z)", "  marginal KL(q(z) || p(z))"),
        *("    total correlation", "    dimension-wise KL"),
        *("test -log p(x)", *own, "  effective sample size"),
    ]
    values = [value for _, value in rows]
    assert values[0] == "2.93 " + units.get("units", "nats per example")
    assert "2.91 ± 0.01 nats (standard error of the draws)" in values
    assert ("18.46 nats per example, of b" in values) is bool(units)
    assert ("18.43 nats per example, of b" in values) is bool(units)
    assert max(map(len, values)) < 80


def test_one_draw_has_no_error():
    one = TEST | NLL | {"nll_monte_carlo_error": None}
    rows = dict(describe_bounds({"test": one, "surgery": {}}))
    assert rows["test -log p(x)"] == "2.91 nats"
