"""How many directions the samples of a batch keep on their way through a random net: measures, and why they change.

A **representation** is an array ``h`` of shape (N, units): what one layer makes of N samples. Its singular values say
how its rows spread over directions; one large value means that all samples look alike.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.special import digamma

from .gradient_explosion import relu_kernel

SHARE = 0.01  # of the largest singular value: smaller ones are not counted
NODES = 400  # of the quadrature in `next_shares`
leggauss = cache(np.polynomial.legendre.leggauss)  # its nodes take longer than all else there


class Rank(NamedTuple):
    """Three measures of one representation.

    Attributes
    ----------
    stable : float
        Stable rank, {eq}`eq-rank-stable`: from 1 (one direction) to the number of samples.
    count : int
        Singular values above 1 % of the largest.
    gap : float
        Orthogonality gap, {eq}`eq-rank-gap`: 0 where the samples are orthogonal and of one length.
    """

    stable: float
    count: int
    gap: float


def rank(h):
    """The three measures of a representation.

    Implements {eq}`eq-rank-stable` and {eq}`eq-rank-gap`.

    Parameters
    ----------
    h : array (N, units)

    Returns
    -------
    Rank

    Raises
    ------
    ValueError
        If ``h`` is not two-dimensional, not finite, or 0 everywhere.
    """
    h = _batch(h)
    s = np.linalg.svd(h, compute_uv=False)
    if not s[0] > 0:
        raise ValueError("a representation that is 0 everywhere has no direction")
    s = s / s[0]
    shares = np.zeros(len(h))
    shares[: len(s)] = s**2 / (s**2).sum()  # eigenvalues of the Gram matrix over its trace
    return Rank(float((s**2).sum()), int((s > SHARE).sum()), float(np.linalg.norm(shares - 1 / len(h))))


def cosines(h):
    """Cosines between the samples, array (N, N); 0 for a sample that is 0."""
    h = _batch(h)
    length = np.linalg.norm(h, axis=1, keepdims=True)
    h = np.divide(h, length, out=np.zeros_like(h), where=length > 0)
    return h @ h.T


def normalize(z, mean=True, scale=True):
    """BN without affine parameters and with ``eps = 0``; or one half of it.

    Implements {eq}`eq-rank-bn`. Without ``mean`` each unit is divided by its root mean square.

    Parameters
    ----------
    z : array (N, units)
    mean, scale : bool

    Raises
    ------
    ValueError
        If a unit is to be divided by 0.
    """
    z = _batch(z)
    z = z - z.mean(0) if mean else z
    if not scale:
        return z
    size = np.sqrt(np.square(z).mean(0))
    if not size.all():
        raise ValueError(f"unit {int(np.argmin(size))} is constant over the batch: it cannot be divided by 0")
    return z / size


def random_weights(rng, units, inputs, kind="gaussian", relu=False):
    """Random weights of one layer, array (units, inputs), that keep the mean square of its inputs.

    Parameters
    ----------
    rng : numpy.random.Generator
    units, inputs : int
    kind : {"gaussian", "orthogonal"}
        Gaussian: variance 1 / inputs. Orthogonal: orthonormal rows or columns, whichever are fewer.
    relu : bool
        Whether a ReLU follows: then all weights are larger by the root of 2 (He et al. 2015).
    """
    if kind not in ("gaussian", "orthogonal"):
        raise ValueError(f"weights are gaussian or orthogonal, not {kind!r}")
    if kind == "gaussian":
        weight = rng.normal(size=(units, inputs)) / np.sqrt(inputs)
    else:
        weight = _orthogonal(rng, units, inputs)
    return (2**0.5 if relu else 1.0) * weight


def mirrored_weights(rng, sizes, shrink=1.0):
    """Weights of a ReLU net that is linear at the start, with the singular values that are asked for.

    Implements {eq}`eq-rank-mirror`. Up to the last hidden layer the first direction keeps its length, all others are
    multiplied by ``shrink``, an equal part of it in each layer but the first.

    Parameters
    ----------
    rng : numpy.random.Generator
    sizes : sequence of int
        Inputs, then the units of each hidden layer: all the same even number, at most twice the inputs.
    shrink : float
        Above 0. With 1 all directions keep their lengths.

    Returns
    -------
    list of array (units, inputs)
    """
    inputs, units, half = sizes[0], sizes[1], sizes[1] // 2
    if units % 2 or set(sizes[1:]) != {units} or half > inputs or not shrink > 0:
        raise ValueError(f"mirrored weights need one even width up to twice the inputs, and shrink > 0, got {sizes}")
    values = np.full(half, shrink ** (1 / max(len(sizes) - 2, 1)))
    values[0] = 1
    base = _orthogonal(rng, half, half)
    weight = base @ _orthogonal(rng, half, inputs)
    weights = [np.concatenate([weight, -weight])]
    for _ in sizes[2:]:
        before, base = base, _orthogonal(rng, half, half)
        weight = base * values @ before.T
        weights.append(np.block([[weight, -weight], [-weight, weight]]))
    return weights


def twin_weights(rng, sizes, common):
    """He's weights whose units are nearly twins: the cosine of any two of a layer is ``common``, or minus that.

    Signs are drawn, so that a ReLU behind them passes both the positive and the negative part on.

    Parameters
    ----------
    rng : numpy.random.Generator
    sizes : sequence of int
        Inputs, then the units of each hidden layer.
    common : float
        From 0 (independent units) to 1 (all units alike).

    Returns
    -------
    list of array (units, inputs)
    """
    if not 0 <= common <= 1:
        raise ValueError(f"common must be from 0 to 1, got {common}")
    pairs = zip(sizes[1:], sizes[:-1], strict=True)
    weights = []
    for units, inputs in pairs:
        own, shared = random_weights(rng, units, inputs, relu=True), random_weights(rng, 1, inputs, relu=True)
        signs = rng.choice([-1.0, 1.0], (units, 1))
        weights.append(common**0.5 * signs * shared + (1 - common) ** 0.5 * own)
    return weights


def layer(h, weight, *, mean=False, scale=False, relu=False):
    """One layer without bias: weights, the halves of BN that are asked for, ReLU if there is one.

    Parameters
    ----------
    h : array (N, inputs)
    weight : array (units, inputs)

    Returns
    -------
    array (N, units)
    """
    z = normalize(h @ weight.T, mean, scale) if mean or scale else h @ weight.T
    return np.maximum(z, 0) if relu else z


# --- without BN: linear nets of any width


def lyapunov(width, count):
    """Mean growth per layer of the logarithms of the singular values, largest first, of a Gaussian linear net.

    Implements {eq}`eq-rank-lyapunov`. Sums of the first k of them are exact at any depth: they are the mean growth of
    the logarithm of a volume spanned by k vectors.

    Parameters
    ----------
    width, count : int
        ``count`` at most ``width``.

    Returns
    -------
    array (count,)
    """
    if not 1 <= count <= width:
        raise ValueError(f"a net of width {width} has 1 to {width} exponents, not {count}")
    return (digamma((width - np.arange(count)) / 2) + np.log(2 / width)) / 2


def log_volume(h):
    """Logarithm of the volume that the samples span, half that of the determinant of their Gram matrix."""
    h = _batch(h)
    with np.errstate(divide="ignore"):
        return float(np.log(np.abs(np.diag(np.linalg.qr(h.T)[1]))).sum()) if len(h) <= h.shape[1] else -np.inf


# --- without BN: ReLU, infinite width


def cosine_path(c, depth):
    """The cosine of two samples after 0, 1, ..., ``depth`` wide ReLU layers without BN: array (depth + 1,).

    Implements {eq}`eq-rank-relu`.
    """
    path = [float(c)]
    for _ in range(depth):
        path.append(float(relu_kernel(min(path[-1], 1.0))))
    return np.array(path)


def cosine_law(depth):
    """What is left of ``1 - c`` after many layers, whatever ``c`` was at first.

    Implements {eq}`eq-rank-relu-speed`.
    """
    return 9 * np.pi**2 / (2 * np.square(np.asarray(depth, float)))


# --- with BN, infinite width


def root_shares(shares):
    """What a wide linear layer with BN makes of two directions' shares: in proportion to their roots.

    Implements {eq}`eq-rank-root`.

    Parameters
    ----------
    shares : array (2,)
        Two eigenvalues of the Gram matrix of the centred batch.
    """
    root = np.sqrt(np.asarray(shares, float))
    if root.shape != (2,) or not root.sum() > 0:
        raise ValueError(f"root_shares takes two shares, of which one is positive, got {shares}")
    return root / root.sum()


def next_shares(shares):
    """Shares of the directions after a wide random linear layer with BN, for any number of directions.

    Implements {eq}`eq-rank-shares` by {eq}`eq-rank-laplace`, with Gauss-Legendre quadrature.

    Parameters
    ----------
    shares : array (directions,)
        Eigenvalues of the Gram matrix of the centred batch: none negative, at least one positive.

    Returns
    -------
    array (directions,)
        In the same order; their sum is 1.
    """
    shares = np.asarray(shares, float)
    if shares.ndim != 1 or not (shares >= 0).all() or not shares.sum() > 0:
        raise ValueError(f"shares must be one row of numbers, none negative, one positive, got {shares}")
    shares = shares / shares.sum()
    # t = exp(v), from so small that nothing has decayed to so large that all has.
    smallest = shares[shares > 0].min()
    low, high = np.log(1e-18), np.log(1e18 / smallest)
    nodes, weights = leggauss(NODES)
    v = (high - low) / 2 * nodes + (high + low) / 2
    t = np.exp(v)[:, None]
    common = v - np.log1p(2 * shares * t).sum(1) / 2  # logarithm of dt times the product over all directions
    parts = shares * np.exp(common[:, None] - np.log1p(2 * shares * t)) * weights[:, None]
    found = parts.sum(0)
    return found / found.sum()


def shares_path(shares, depth):
    """Shares after 0, 1, ..., ``depth`` wide linear layers with BN, sorted: array (depth + 1, directions)."""
    path = [np.sort(np.asarray(shares, float) / np.sum(shares))[::-1]]
    for _ in range(depth):
        path.append(next_shares(path[-1]))
    return np.array(path)


def relu_stable_rank(samples):
    """Stable rank behind BN and ReLU in a wide net whose samples all have the same cosine with each other.

    Implements {eq}`eq-rank-relu-bn`.

    Parameters
    ----------
    samples : int
        At least 2.
    """
    if samples < 2:
        raise ValueError(f"BN needs at least 2 samples, got {samples}")
    return float(samples / (1 + (samples - 1) * relu_kernel(-1 / (samples - 1))))


def _orthogonal(rng, rows, columns):
    """Orthonormal rows, or columns where there are more rows than columns; all directions equally likely."""
    q, r = np.linalg.qr(rng.normal(size=(max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))
    return q if rows >= columns else q.T


def _batch(h):
    h = np.asarray(h, float)
    if h.ndim != 2 or not h.size or not np.isfinite(h).all():
        raise ValueError(f"a batch is an array (N, units) of finite numbers, got shape {h.shape}")
    return h
