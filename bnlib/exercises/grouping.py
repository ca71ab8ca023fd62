"""The exercise ``group-norm``: group normalization, forward."""

import numpy as np

from .comparing import as_float
from .exercise import Case, Exercise


def _cases():
    rng = np.random.default_rng(11)

    def case(groups, *shape, eps=1e-2):  # large enough that its place is seen
        gamma, beta = rng.normal(size=(2, shape[1]))
        return Case((rng.normal(1, 2, shape), gamma, beta, groups, eps))

    return [case(2, 3, 6), case(3, 4, 6, 2, 3), case(2, 2, 8, 3), case(3, 3, 6, 5, eps=0.3)]


def _apart(x, groups):
    """The values of each group of each sample, (N, groups, values)."""
    return x.reshape(len(x), groups, -1)


def _shift(x, scaled, gamma, beta):
    shape = (1, -1, *[1] * (x.ndim - 2))
    return gamma.reshape(shape) * scaled.reshape(x.shape) + beta.reshape(shape)


def _over(values, axes, eps, ddof=0):
    mean, var = values.mean(axes, keepdims=True), values.var(axes, keepdims=True, ddof=ddof)
    return (values - mean) / np.sqrt(var + eps)


def _reference(x, gamma, beta, groups, eps):
    return _shift(x, _over(_apart(x, groups), 2, eps), gamma, beta)


EXERCISE = Exercise(
    name="group-norm",
    usage="y = my_group_norm(x, gamma, beta, groups, eps)",
    inputs=("x", "gamma", "beta", "groups", "eps"),
    outputs=("y",),
    reference=_reference,
    cases=_cases(),
    run=lambda answer, *args: [as_float(answer(*args))],
)


@EXERCISE.mistake(
    "batch-statistics",
    "You normalize each channel over the batch: that is BN. Group normalization takes the statistics of one sample, "
    "over the channels of a group and all positions.",
)
def of_the_batch(x, gamma, beta, groups, eps):
    return _shift(x, _over(x, (0, *range(2, x.ndim)), eps), gamma, beta)


@EXERCISE.mistake(
    "samples-mixed",
    "Your groups are right, and their statistics run over all samples of the batch. Each sample has its own: keep "
    "axis 0 out of the mean and of the variance.",
)
def over_the_samples_too(x, gamma, beta, groups, eps):
    return _shift(x, _over(_apart(x, groups), (0, 2), eps), gamma, beta)


@EXERCISE.mistake(
    "one-group",
    "You take all channels of a sample together: layer normalization, one group. Here there are `groups` of them.",
)
def all_channels(x, gamma, beta, groups, eps):
    return _reference(x, gamma, beta, 1, eps)


@EXERCISE.mistake(
    "group-a-channel",
    "Each channel of each sample has statistics of its own: instance normalization. A group holds "
    "`channels // groups` channels.",
)
def each_channel(x, gamma, beta, groups, eps):
    return _reference(x, gamma, beta, x.shape[1], eps)


@EXERCISE.mistake(
    "groups-as-size",
    "You read `groups` as the number of channels in a group. It is the number of groups. (Libraries have both: "
    "look up which one yours means.)",
)
def size_of_a_group(x, gamma, beta, groups, eps):
    return _reference(x, gamma, beta, x.shape[1] // groups, eps)


@EXERCISE.mistake(
    "channels-interleaved",
    "The channels of your groups lie far apart. They should be neighbours: 0, 1, 2, ... are the first group. In "
    "a reshape the groups come before the channels of a group.",
)
def far_apart(x, gamma, beta, groups, eps):
    order = np.arange(x.shape[1]).reshape(-1, groups).T.ravel()
    y = np.empty_like(x)
    y[:, order] = _over(_apart(x[:, order], groups), 2, eps).reshape(x.shape)
    return _shift(x, y, gamma, beta)


@EXERCISE.mistake(
    "positions-apart",
    "Each position has statistics of its own. A group holds all positions of its channels: average over them too.",
)
def each_position(x, gamma, beta, groups, eps):
    values = x.reshape(len(x), groups, x.shape[1] // groups, -1)
    return _shift(x, _over(values, 2, eps), gamma, beta)


@EXERCISE.mistake(
    "unbiased-variance",
    "You divide by the unbiased variance, with the number of values minus one. Like BN, group normalization "
    "normalizes with the biased one: divide by the number of values.",
)
def with_ddof(x, gamma, beta, groups, eps):
    return _shift(x, _over(_apart(x, groups), 2, eps, ddof=1), gamma, beta)


@EXERCISE.mistake("eps-outside-root", "`eps` belongs to the variance, inside the root: `np.sqrt(var + eps)`.")
def added_to_the_root(x, gamma, beta, groups, eps):
    values = _apart(x, groups)
    scaled = (values - values.mean(2, keepdims=True)) / (values.std(2, keepdims=True) + eps)
    return _shift(x, scaled, gamma, beta)


@EXERCISE.mistake("eps-missing", "Your `eps` has no effect. Add it to the variance, inside the root.")
def without_eps(x, gamma, beta, groups, eps):
    return _shift(x, _over(_apart(x, groups), 2, 0), gamma, beta)


@EXERCISE.mistake(
    "affine-missing",
    "You normalize and stop. Then each channel is multiplied by its `gamma` and `beta` is added.",
)
def not_shifted(x, gamma, beta, groups, eps):
    return _over(_apart(x, groups), 2, eps).reshape(x.shape)


@EXERCISE.mistake(
    "affine-per-group",
    "All channels of a group have the same scale and shift. The statistics belong to a group, `gamma` and `beta` to "
    "a channel.",
)
def shared_affine(x, gamma, beta, groups, eps):
    first = np.repeat(np.arange(groups) * (x.shape[1] // groups), x.shape[1] // groups)
    return _reference(x, gamma[first], beta[first], groups, eps)
