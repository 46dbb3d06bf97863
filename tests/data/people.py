"""A table with columns of every kind and known dependencies."""

import numpy as np
import pyarrow

CATEGORIES = {
    "colour": ["red", "green", "blue"],
    "plan": ["basic", "plus", "family", "none"],
    "city": ["Ulm", "Köln", "Bonn", "Graz", "Bern"],
}


def make_people(count, seed=0):
    """Rows of a latent class and a latent factor, as an Arrow table."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, count, p=[0.5, 0.3, 0.2])
    factor = rng.normal(size=count)
    member = rng.random(count) < 1 / (1 + np.exp(0.5 - 1.5 * factor - kind))
    score = 2 * factor + rng.normal(size=count)
    is_missing = rng.random(count) < np.where(factor > 0, 0.25, 0.05)
    city = np.digitize(factor + 0.5 * rng.normal(size=count), [-1.0, -0.3, 0.3, 1.0])
    plans = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.6, 0.2, 0.1], [0.1, 0.1, 0.2, 0.6]])
    plan = (plans[kind].cumsum(1) < rng.random((count, 1))).sum(1).clip(0, 3)
    colour = np.where(rng.random(count) < 0.8, kind, rng.integers(0, 3, count))
    age = 40 + 10 * factor + 8 * kind + 5 * rng.normal(size=count)
    income = np.exp(10 + 0.5 * factor + 0.4 * kind + 0.3 * rng.normal(size=count))
    height = 170 + 8 * factor + 5 * (kind == 1) + 3 * rng.normal(size=count)
    return pyarrow.table(
        {
            "height": np.round(height, 2),
            "income": np.round(income, 2),
            "member": np.where(member, "yes", "no"),
            "colour": np.array(CATEGORIES["colour"])[colour],
            "visits": rng.poisson(np.exp(0.5 + 0.5 * factor)),
            "age": np.round(age).clip(18, 90).astype(int),
            "score": pyarrow.array(np.round(score, 3), mask=is_missing),
            "plan": np.array(CATEGORIES["plan"])[plan],
            "city": np.array(CATEGORIES["city"])[city],
        }
    )


def compare(table, other):
    """The distance of each column's distribution, and of each pair's correlation.

    Returns:
      By column the total variation (text, few integers) or the Kolmogorov-Smirnov
      distance, missing values included; and the largest difference of correlations, of
      numbers, indicators of categories and of missing values.
    """
    distances, features = {}, ([], [])
    for name in table.column_names:
        columns = [t.column(name).to_pandas() for t in (table, other)]
        gaps = [c.isna().mean() for c in columns]
        distances[name] = abs(gaps[0] - gaps[1])
        if columns[0].dtype.kind in "if" and columns[0].nunique() > 20:
            a, b = (np.sort(c.dropna().to_numpy()) for c in columns)
            every = np.concatenate([a, b])
            shares = [np.searchsorted(v, every, "right") / len(v) for v in (a, b)]
            distances[name] += np.abs(shares[0] - shares[1]).max()
        else:
            shares = [c.value_counts(normalize=True) for c in columns]
            distances[name] += shares[0].sub(shares[1], fill_value=0).abs().sum() / 2
        for column, own in zip(columns, features, strict=True):
            if column.dtype.kind in "if":
                own.append(column.fillna(column.mean()).to_numpy())
                if gaps[0]:
                    own.append(column.isna().to_numpy(float))
            else:
                own += [
                    (column == value).to_numpy(float)
                    for value in sorted(columns[0].dropna().unique())
                ]
    first, second = (np.corrcoef(own) for own in features)
    return distances, np.abs(first - second).max()
