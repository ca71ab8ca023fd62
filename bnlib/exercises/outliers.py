"""The exercise ``gradient-share``: how much of a gradient lies in the leading eigenvectors of a Hessian."""

import numpy as np

from .comparing import as_float
from .exercise import Case, Exercise


def _case(seed, values, k):
    rng = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(rng.normal(size=(len(values), len(values))))
    return Case(((vectors * values) @ vectors.T, rng.normal(size=len(values)) * 1.7, k))


EXERCISE = Exercise(
    name="gradient-share",
    usage="share = my_share(H, g, k)",
    inputs=("H", "g", "k"),
    outputs=("share",),
    reference=lambda H, g, k: _of(H, g, k),
    cases=[
        _case(0, [9.0, 4.0, 1.0, 0.5, -2.0], 2),
        _case(1, [30.0, 2.0, 1.5, 0.2, 0.1, -0.4, -5.0, -7.0], 3),
        _case(2, [3.0, 2.5, -1.0, -4.0], 2),
    ],
    run=lambda answer, H, g, k: [as_float(answer(H, g, k))],
)


def _along(H, g):
    """Parts of the gradient along the eigenvectors, largest eigenvalue first."""
    return (np.linalg.eigh(H)[1].T @ g)[::-1]


def _of(H, g, k):
    return np.square(_along(H, g)[:k]).sum() / (g @ g)


@EXERCISE.mistake(
    "smallest",
    "You take the eigenvectors of the smallest eigenvalues. `eigh` sorts them upwards: the largest come last.",
)
def smallest(H, g, k):
    return np.square(_along(H, g)[-k:]).sum() / (g @ g)


@EXERCISE.mistake(
    "by-size",
    "You take the largest eigenvalues by their absolute value. A very negative one bends down: sort by "
    "the value itself.",
)
def by_size(H, g, k):
    values, vectors = np.linalg.eigh(H)
    chosen = np.argsort(-np.abs(values))[:k]
    return np.square(vectors[:, chosen].T @ g).sum() / (g @ g)


@EXERCISE.mistake(
    "rows",
    "You take rows of the matrix of eigenvectors. Eigenvector `i` is the column `vectors[:, i]`.",
)
def rows(H, g, k):
    return np.square(np.linalg.eigh(H)[1][::-1][:k] @ g).sum() / (g @ g)


@EXERCISE.mistake("rows")
def rows_unsorted(H, g, k):
    return np.square(np.linalg.eigh(H)[1][:k] @ g).sum() / (g @ g)


@EXERCISE.mistake(
    "not-squared",
    "You compare lengths. The squared lengths of orthogonal parts add up to the whole, so divide squared lengths.",
)
def lengths(H, g, k):
    return np.sqrt(_of(H, g, k))


@EXERCISE.mistake("not-squared")
def absolute(H, g, k):
    along = np.abs(_along(H, g))
    return along[:k].sum() / along.sum()


@EXERCISE.mistake(
    "not-divided", "You return the squared length of the part. Divide by the squared length of the whole gradient."
)
def undivided(H, g, k):
    return np.square(_along(H, g)[:k]).sum()


@EXERCISE.mistake(
    "of-the-spectrum",
    "You return the share of the eigenvalues. The gradient does not enter it: project `g` on the eigenvectors.",
)
def spectrum(H, g, k):
    values = np.linalg.eigvalsh(H)[::-1]
    return values[:k].sum() / values.sum()


@EXERCISE.mistake("of-the-spectrum")
def spectrum_absolute(H, g, k):
    values = np.linalg.eigvalsh(H)[::-1]
    return values[:k].sum() / np.abs(values).sum()


@EXERCISE.mistake("first-alone", "You take one eigenvector. The share of the first `k` together is asked for.")
def first(H, g, k):
    return _of(H, g, 1)


@EXERCISE.mistake("first-alone")
def last_of_them(H, g, k):
    return np.square(_along(H, g)[k - 1]) / (g @ g)


@EXERCISE.mistake("the-rest", "You return what lies outside of the leading eigenvectors: one minus the share.")
def rest(H, g, k):
    return 1 - _of(H, g, k)


@EXERCISE.mistake("off-by-one", "You take one eigenvector too many or too few: `k` of them are asked for.")
def one_more(H, g, k):
    return _of(H, g, k + 1)


@EXERCISE.mistake(
    "weighted",
    "You weigh each part with its eigenvalue. That is the share of the curvature along the gradient, another number.",
)
def weighted(H, g, k):
    values, along = np.linalg.eigvalsh(H)[::-1], _along(H, g)
    return (values * along**2)[:k].sum() / (values * along**2).sum()
