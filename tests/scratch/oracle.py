"""What the transform is measured against: seeded cases, two oracles, and the bounds, each written once."""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch

LAYOUTS = ["C", "fortran", "transposed", "strided", "channels last"]
EPS = [0.0, 1e-12, 1e-5, 1e-3, 0.1]
MOMENTUM = [0.1, 0.5, None]
MODULES = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d, 5: torch.nn.BatchNorm3d}
LONG = np.longdouble  # 64 bits of mantissa on x86, 113 on 64-bit ARM under Linux


def axes_of(x):
    return (0, *range(2, x.ndim))


def spread(v, x):
    return np.reshape(v, (1, -1, *[1] * (x.ndim - 2)))


def count(x):
    return x.size // x.shape[1]


# --- the cases -------------------------------------------------------------------------------------


class Case(NamedTuple):
    x: np.ndarray
    next_x: np.ndarray  # a second batch, for the running statistics
    dy: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray
    eps: float
    momentum: float | None
    weight: np.ndarray  # of a layer in front of the transform, for fold
    bias: np.ndarray | None
    tags: dict  # how the case was drawn: for messages, and to check that the draw covers what it should


def lay_out(a, layout):
    """The same values in another order of memory."""
    if layout == "fortran":
        return np.asfortranarray(a)
    if layout == "transposed":
        return np.ascontiguousarray(a.swapaxes(0, 1)).swapaxes(0, 1)
    if layout == "channels last":
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)
    if layout == "strided":
        wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), np.nan, a.dtype)  # a NaN that is read shows up at once
        view = wide[::-1, ..., ::2]
        view[...] = a
        return view
    return np.ascontiguousarray(a)


def shape_of(rng, rank, channels, m):
    """(N, C, *spatial) with about m values per channel; N = 1 happens where there are spatial axes."""
    sizes = [int(np.exp(rng.uniform(0, np.log(m) / (rank - 1)))) for _ in range(rank - 2)]
    samples = max(1, m // math.prod(sizes))
    if samples * math.prod(sizes) == 1:
        samples = 2
    return (samples, channels, *sizes)


def make_case(index):
    """Case number ``index``: all of it comes from ``default_rng([2015, index])``."""
    rng = np.random.default_rng([2015, index])
    pick = lambda options: options[rng.integers(len(options))]  # noqa: E731
    rank, dtype = 2 + index % 4, [np.float32, np.float64][index // 4 % 2]
    m = {0: 2, 1: 20_000}.get(index // 8 % 10, int(np.exp(rng.uniform(np.log(2), np.log(20_000)))))
    shape = shape_of(rng, rank, int(rng.integers(1, 5)), m)
    channels, ones = shape[1], [1] * (rank - 2)
    per_channel = (1, channels, *ones)

    scale = 10 ** (rng.uniform(-8, 3, per_channel) if rng.random() < 0.5 else np.zeros(per_channel))
    offset = 10 ** rng.uniform(-1, 4, per_channel) * rng.choice([-1, 1], per_channel)
    offset *= rng.random() < 0.7
    outlier = 10 ** rng.uniform(1, 4) * (rng.random() < 0.3)
    constant = rng.random() < 0.05
    layout, dy_layout = pick(LAYOUTS), pick(LAYOUTS)

    def draw():
        x = rng.standard_normal(shape) + offset
        x[0] += outlier
        if constant:
            x[:, 0] = offset.flat[0]
        return lay_out((x * scale).astype(dtype), layout)

    x, next_x = draw(), draw()
    eps = pick(EPS)
    if eps == 0 and not all((np.ptp(a, axes_of(a)) > 0).all() for a in (x, next_x)):
        eps = 1e-5  # 0 is for positive variances only
    dy_mean = pick([0.0, 0.3, -3.0, 100.0])
    dy = ((rng.standard_normal(shape) + dy_mean) * 10 ** rng.uniform(-4, 2)).astype(dtype)
    gamma = (rng.standard_normal(channels) * 10 ** rng.uniform(-2, 2)).astype(dtype)
    if rng.random() < 0.2:
        gamma[rng.integers(channels)] = 0
    beta = (rng.standard_normal(channels) * 10 ** rng.uniform(-2, 2)).astype(dtype)
    weight = rng.standard_normal((channels, int(rng.integers(1, 6)), *[3] * (rank - 2))).astype(dtype)
    bias = rng.standard_normal(channels).astype(dtype) if rng.random() < 0.7 else None

    dy = lay_out(dy, dy_layout)
    arrays = [x, next_x, dy, gamma, beta, weight] + ([] if bias is None else [bias])
    for a in arrays:
        a.flags.writeable = False
    tags = dict(index=index, shape=shape, dtype=np.dtype(dtype).name, layout=layout, m=count(x), eps=eps)
    tags |= dict(offset=float(np.abs(offset).max()), outlier=float(outlier), constant=constant, dy_mean=dy_mean)
    return Case(x, next_x, dy, gamma, beta, eps, pick(MOMENTUM), weight, bias, tags)


# --- the oracles -----------------------------------------------------------------------------------


class Truth(NamedTuple):
    y: np.ndarray
    mean: np.ndarray
    var: np.ndarray  # biased
    dx: np.ndarray
    dgamma: np.ndarray
    dbeta: np.ndarray


def truth_longdouble(x, dy, gamma, beta, eps):
    """The two-pass formula, and its closed-form gradients, in extended precision."""
    x, dy, gamma, beta = (a.astype(LONG) for a in (x, dy, gamma, beta))
    axes, m = axes_of(x), count(x)
    mean = x.mean(axes)
    xc = x - spread(mean, x)
    var = (xc * xc).mean(axes)
    std = np.sqrt(var + LONG(eps))
    x_hat = xc / spread(std, x)
    dbeta, dgamma = dy.sum(axes), (dy * x_hat).sum(axes)
    dx = spread(gamma / std, x) * (dy - spread(dbeta / m, x) - x_hat * spread(dgamma / m, x))
    return Truth(spread(gamma, x) * x_hat + spread(beta, x), mean, var, dx, dgamma, dbeta)


def up(a):
    """A torch tensor in double precision with the values of ``a``."""
    return torch.tensor(np.ascontiguousarray(a, dtype=np.float64))


def module_like(x, gamma, beta, eps, momentum=0.1, dtype=torch.float64):
    """``torch.nn.BatchNorm1d``, ``2d`` or ``3d`` with our affine parameters."""
    module = MODULES[x.ndim](x.shape[1], eps=eps, momentum=momentum, dtype=dtype)
    with torch.no_grad():
        module.weight.copy_(up(gamma))
        module.bias.copy_(up(beta))
    return module


def truth_torch(x, dy, gamma, beta, eps):
    """``torch.nn.BatchNorm`` in double precision, its gradients by autograd."""
    module, t = module_like(x, gamma, beta, eps), up(x).requires_grad_()
    y = module(t)
    y.backward(up(dy))
    values = t.detach()
    mean, var = values.mean(axes_of(x)), values.var(axes_of(x), unbiased=False)
    return Truth(*(a.detach().numpy() for a in (y, mean, var, t.grad, module.weight.grad, module.bias.grad)))


def truth(x, dy, gamma, beta, eps):
    """torch for float32; for float64, where torch rounds as we do, and for eps = 0, which it refuses, longdouble."""
    oracle = truth_torch if x.dtype == np.float32 and eps > 0 else truth_longdouble
    return oracle(x, dy, gamma, beta, eps)


def truth_running(case):
    """Running mean and unbiased variance after each of two batches, by the same choice of oracle."""
    batches = [case.x, case.next_x]
    after = []
    if case.x.dtype == np.float32 and case.eps > 0:
        module = module_like(case.x, case.gamma, case.beta, case.eps, case.momentum)
        for x in batches:
            module(up(x))
            after.append((module.running_mean.numpy().copy(), module.running_var.numpy().copy()))
        return after
    mean, var = np.zeros(len(case.gamma), LONG), np.ones(len(case.gamma), LONG)
    for i, x in enumerate(batches):
        weight = LONG(1) / (i + 1) if case.momentum is None else LONG(case.momentum)
        now = truth_longdouble(x, case.dy, case.gamma, case.beta, case.eps)
        mean = (1 - weight) * mean + weight * now.mean
        var = (1 - weight) * var + weight * now.var * count(x) / (count(x) - 1)
        after.append((mean, var))
    return after


def truth_inference(x, gamma, beta, mean, var, eps):
    if x.dtype == np.float32:
        args = [up(a) for a in (x, mean, var, gamma, beta)]
        return torch.nn.functional.batch_norm(*args, training=False, eps=eps).numpy()
    scale = gamma.astype(LONG) / np.sqrt(var.astype(LONG) + LONG(eps))
    return (x - spread(mean.astype(LONG), x)) * spread(scale, x) + spread(beta, x)


# --- the bounds, as in "How equal is equal" --------------------------------------------------------


def bounds(x, dy, gamma, beta, eps, right):
    """Largest error allowed per channel, from the oracle's statistics ``right``: a Truth of shapes (C,)."""
    m, u = count(x), np.finfo(x.dtype).eps
    unit = 16 * u * (np.sqrt(m) if x.dtype == np.float64 else 1)  # float64 sums have no wider type to go to
    s = np.sqrt(right.var + eps)
    k = 1 + np.abs(right.mean) / s
    sum_dy, max_dy = np.abs(dy).sum(axes_of(x), dtype=np.float64), np.abs(dy).max(axes_of(x))
    return Truth(
        y=unit * k * (np.abs(gamma) * np.sqrt(m) + np.abs(beta)),
        mean=unit * k * s,
        var=unit * k * (right.var + eps),
        dx=unit * k * np.abs(gamma) / s * max_dy,
        dgamma=unit * k * sum_dy,
        dbeta=unit * sum_dy,
    )


def bound_inference(x, gamma, beta, mean, var, eps):
    """Entry by entry. Nothing is summed, so float64 gets no factor either."""
    gamma, mean, s = np.abs(spread(gamma, x)), np.abs(spread(mean, x)), np.sqrt(spread(var, x) + eps)
    return 16 * np.finfo(x.dtype).eps * (gamma * (np.abs(x) + mean) / s + np.abs(spread(beta, x)))


def bound_running(allowed, old, before, weight, dtype):
    """``weight`` times the bound of the batch statistic, plus 2 u |old|, plus what is left of ``before``."""
    return weight * allowed + 2 * np.finfo(dtype).eps * np.abs(old) + (1 - weight) * before


def ratio(got, right, allowed):
    """Worst error as a share of what is allowed: per channel for arrays of samples. NaN counts as infinite."""
    error = np.abs(got.astype(LONG) - right)
    if error.ndim > allowed.ndim:
        error = error.max(axes_of(error))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(error == 0, 0, error / allowed)
    return float(np.nan_to_num(share, nan=np.inf).max())


@cache
def worst(shares):
    """The worst of 500 cases: ``(dtype, name)`` -> share of its bound, number of the case.

    Parameters
    ----------
    shares : callable
        ``shares(x, dy, gamma, beta, eps)`` gives name -> share of the bound that the error takes.
    """
    found = {}
    for index in range(500):
        case = make_case(index)
        for name, share in shares(case.x, case.dy, case.gamma, case.beta, case.eps).items():
            key = case.tags["dtype"], name
            found[key] = max(found.get(key, (0.0, -1)), (share, index))
    return found
