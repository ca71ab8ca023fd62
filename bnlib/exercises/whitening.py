"""The exercise ``whiten``: decorrelate the channels of a batch and give each variance 1, without turning the axes."""

import numpy as np

from .exercise import Case, Exercise


def _covariance(x):
    xc = x - x.mean(0)
    return xc.T @ xc / len(x)


def _symmetric(matrix, power):
    """``power(eigenvalues)`` of a symmetric matrix, on its own eigenvectors."""
    values, vectors = np.linalg.eigh(matrix)
    return vectors * power(values) @ vectors.T


def _root(matrix, eps):
    """The inverse root of a covariance, with eps inside the root."""
    return _symmetric(matrix, lambda values: 1 / np.sqrt(values + eps))


def _reference(x, eps):
    return (x - x.mean(0)) @ _root(_covariance(x), eps)


def _cases():
    rng = np.random.default_rng(6)

    def case(m, channels, eps, scale=1.0, **options):
        mixed = rng.normal(0, 1, (m, channels)) @ rng.normal(0, 1, (channels, channels))
        return Case((scale * mixed + rng.uniform(1, 3, channels), eps), **options)

    # m samples give a covariance of rank m - 1. Where that is less than the number of channels, an answer without
    # eps is rounding, another one for each way to write it.
    singular = dict(tolerance=1e-6, rough=True)
    return [
        case(12, 3, 1e-3),
        case(9, 4, 1e-5, scale=3e-3),  # variances near eps
        case(5, 5, 1e-2, **singular),  # square: statistics along the wrong axis still fit
        case(4, 6, 1e-3, **singular),
    ]


EXERCISE = Exercise(
    name="whiten",
    usage="x_hat = my_whiten(x, eps)",
    inputs=("x", "eps"),
    outputs=("x_hat",),
    reference=_reference,
    cases=_cases(),
    run=lambda answer, x, eps: [answer(x, eps)],
)


@EXERCISE.mistake(
    "covariance-not-centred",
    "Your matrix of the channels holds the means: it is the mean of the products, not a covariance. Subtract the "
    "mean of each channel before you multiply.",
)
def second_moments(x, eps):
    return (x - x.mean(0)) @ _root(x.T @ x / len(x), eps)


@EXERCISE.mistake("covariance-not-centred")
def nothing_centred(x, eps):
    return x @ _root(x.T @ x / len(x), eps)


@EXERCISE.mistake(
    "output-not-centred",
    "Your matrix is right, and you apply it to `x` with its mean. The outputs of each channel should have mean 0: "
    "apply it to the centred batch.",
)
def output_not_centred(x, eps):
    return x @ _root(_covariance(x), eps)


@EXERCISE.mistake(
    "mean-of-a-sample",
    "You subtract the mean of each sample over its channels. Each channel has a mean over the samples: axis 0.",
)
def mean_of_a_sample(x, eps):
    xc = x - x.mean(1, keepdims=True)
    return xc @ _root(xc.T @ xc / len(x), eps)


@EXERCISE.mistake("mean-of-a-sample")
def mean_of_a_sample_right_covariance(x, eps):
    return (x - x.mean(1, keepdims=True)) @ _root(_covariance(x), eps)


@EXERCISE.mistake(
    "root-forgotten",
    "You divide by the eigenvalues. They are variances: along an axis of variance 4 you leave 1/4. Divide by the "
    "root of eigenvalue plus `eps`.",
)
def root_forgotten(x, eps):
    return (x - x.mean(0)) @ _symmetric(_covariance(x), lambda values: 1 / (values + eps))


@EXERCISE.mistake(
    "eps-outside-root", "You add `eps` to the root. It belongs inside, to the eigenvalue: `sqrt(value + eps)`."
)
def eps_outside_root(x, eps):
    return (x - x.mean(0)) @ _symmetric(_covariance(x), lambda v: 1 / (np.sqrt(np.maximum(v, 0)) + eps))


@EXERCISE.mistake(
    "eps-forgotten",
    "You divide by the root of the eigenvalue alone. With fewer samples than channels some eigenvalues are 0: add "
    "`eps` inside the root.",
)
def eps_forgotten(x, eps):
    return (x - x.mean(0)) @ _root(_covariance(x), 0.0)


@EXERCISE.mistake(
    "eps-hard-coded", "You always add 1e-5 to the eigenvalue. Add the argument `eps`: it can be another one."
)
def eps_hard_coded(x, eps):
    return (x - x.mean(0)) @ _root(_covariance(x), 1e-5)


@EXERCISE.mistake(
    "unbiased-covariance",
    "You divide the covariance by m - 1, as `np.cov` does unless told otherwise. This batch is to have variance 1 "
    "itself: divide by m, with `bias=True`.",
)
def unbiased_covariance(x, eps):
    return (x - x.mean(0)) @ _root(np.cov(x, rowvar=False), eps)


@EXERCISE.mistake(
    "samples-as-channels",
    "Your covariance is taken between samples. Asked for is the one between channels, of shape (C, C). `np.cov` "
    "takes the rows as variables unless told otherwise: `rowvar=False`.",
)
def samples_as_channels(x, eps):
    return (x - x.mean(0)) @ _root(np.cov(x, bias=True), eps)


@EXERCISE.mistake("samples-as-channels")
def samples_as_channels_unbiased(x, eps):
    return (x - x.mean(0)) @ _root(np.cov(x), eps)


@EXERCISE.mistake("samples-as-channels")
def samples_as_channels_from_the_left(x, eps):
    return _root(np.cov(x, bias=True), eps) @ (x - x.mean(0))


@EXERCISE.mistake("samples-as-channels")
def samples_as_channels_from_the_left_unbiased(x, eps):
    return _root(np.cov(x), eps) @ (x - x.mean(0))


@EXERCISE.mistake(
    "not-turned-back",
    "Your outputs are uncorrelated, but in turned axes: channel k of the output is no longer close to channel k of "
    "the input. After the division turn back, with the transposed eigenvectors.",
)
def not_turned_back(x, eps):
    values, vectors = np.linalg.eigh(_covariance(x))
    return (x - x.mean(0)) @ vectors / np.sqrt(values + eps)


@EXERCISE.mistake("not-turned-back")
def not_turned_back_largest_first(x, eps):
    return not_turned_back(x, eps)[:, ::-1]


@EXERCISE.mistake("not-turned-back")  # the signs of its axes are others
def not_turned_back_by_singular_values(x, eps):
    _, values, axes = np.linalg.svd(x - x.mean(0))
    values = np.append(values, np.zeros(x.shape[1]))[: x.shape[1]]
    return (x - x.mean(0)) @ axes.T / np.sqrt(values**2 / len(x) + eps)


@EXERCISE.mistake("not-turned-back")
def by_triangular_factor(x, eps):
    factor = np.linalg.cholesky(_covariance(x) + eps * np.eye(x.shape[1]))
    return np.linalg.solve(factor, (x - x.mean(0)).T).T


@EXERCISE.mistake(
    "eigenvectors-transposed",
    "You take the rows of the eigenvector matrix for the eigenvectors. `np.linalg.eigh` returns them as columns: "
    "`vectors * scale @ vectors.T`.",
)
def eigenvectors_transposed(x, eps):
    values, vectors = np.linalg.eigh(_covariance(x))
    return (x - x.mean(0)) @ (vectors.T / np.sqrt(values + eps) @ vectors)


@EXERCISE.mistake(
    "channels-on-their-own",
    "You normalize each channel on its own. That is batch normalization: the channels stay correlated. Use the whole "
    "covariance matrix.",
)
def channels_on_their_own(x, eps):
    return (x - x.mean(0)) / np.sqrt(x.var(0) + eps)


@EXERCISE.mistake(
    "root-of-entries",
    "You take the root of each entry of a matrix. A matrix R is the root of the covariance when R @ R, the matrix "
    "product, gives it back: take the roots of the eigenvalues.",
)
def root_of_entries(x, eps):
    return (x - x.mean(0)) @ np.linalg.pinv(np.sqrt(np.abs(_covariance(x)) + eps))


@EXERCISE.mistake("root-of-entries")
def inverse_root_of_entries(x, eps):
    return (x - x.mean(0)) @ (1 / np.sqrt(np.abs(_covariance(x)) + eps))
