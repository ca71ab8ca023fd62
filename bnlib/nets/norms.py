"""Normalizers as PyTorch modules, one class each, with the signature ``Norm(channels, eps=..., ...)``.

Each takes ``(N, C, *spatial)``, N samples and C channels on axis 1, in float32 or float64, and gives back the same
shape. A channel holds ``m = N * prod(spatial)`` values.
"""

import math
from numbers import Integral, Real

import torch


class Normalize(torch.autograd.Function):
    """Normalize over the batch, scale and shift; the backward pass is our closed form.

    Implements {eq}`eq-mean`, {eq}`eq-var`, {eq}`eq-xhat` and {eq}`eq-y`; backward {eq}`eq-closed-form`, sorted as in
    {eq}`eq-fast-backward` with the centred input in the place of x.

    Derivatives of every order are right, because nothing that depends on x is a constant to them: only the inputs x
    and gamma are saved for the graph. The mean and the inverse standard deviation are kept beside it, for an ordinary
    backward pass. One that is itself differentiated (``create_graph=True``) computes both again from x.
    A function that saves x_hat has the same gradients and a wrong Hessian: it takes x_hat for a constant.

    Sums run in the dtype of x. Forward-mode derivatives and the transforms of ``torch.func`` are not supported.

    Call ``Normalize.apply(x, gamma, beta, eps, take)``.

    Parameters
    ----------
    x : Tensor (N, C, *spatial), float32 or float64
    gamma, beta : Tensor (C,), dtype of x
    eps : float
        0 is allowed where every variance is positive.
    take : callable or None
        Called as ``take(mean, var)`` with the mean and the biased variance, of shape (C,), without a graph.

    Returns
    -------
    Tensor, shape, dtype and memory format of x

    Raises
    ------
    ValueError
        If ``eps`` is 0 and a channel is constant.
    """

    @staticmethod
    def forward(ctx, x, gamma, beta, eps, take=None):
        axes = (0, *range(2, x.ndim))
        mean, xc, var = _moments(x, axes)
        if eps == 0 and (constant := x.amax(axes) == x.amin(axes)).any():
            where = constant.nonzero().flatten().tolist()
            raise ValueError(f"eps = 0 needs a positive variance: channels {where} are constant")
        inv_std = torch.rsqrt(var + eps)
        if take is not None:
            take(mean, var)
        ctx.save_for_backward(x, gamma)
        ctx.axes, ctx.eps, ctx.statistics = axes, eps, (mean, inv_std)
        # Two operations in place are faster than one addcmul where the channels are not last in memory.
        return xc.mul_(_spread(gamma * inv_std, x)).add_(_spread(beta, x))

    @staticmethod
    def backward(ctx, dy):
        x, gamma = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: the statistics are functions of x
            mean, xc, var = _moments(x, ctx.axes)
            inv_std = torch.rsqrt(var + ctx.eps)
        else:
            mean, inv_std = ctx.statistics
            xc = x - _spread(mean, x)
        dbeta = dy.sum(ctx.axes)
        dgamma = (dy * xc).sum(ctx.axes) * inv_std
        a = gamma * inv_std
        minus = a / -_count(x)
        k1, k0 = minus * inv_std * dgamma, minus * dbeta
        dx = (xc * _spread(k1, x)).add_(_spread(k0, x)).addcmul_(dy, _spread(a, x))
        return dx, dgamma, dbeta, None, None


class BatchNorm(torch.nn.Module):
    """Batch normalization: batch statistics in training, running statistics in evaluation.

    Training implements {eq}`eq-y` by `Normalize`, and {eq}`eq-running` for the buffers; evaluation implements
    {eq}`eq-inference`. Outputs, gradients and buffers are those of ``torch.nn.BatchNorm1d``, ``2d`` and ``3d``.

    Parameters
    ----------
    channels : int
    eps : float
        Added to the variance, inside the root. 0 is allowed where every variance is positive.
    momentum : float in [0, 1]
        Weight of the new batch in the running statistics.

    Attributes
    ----------
    gamma, beta : Parameter (C,)
        Scale and shift, the affine parameters: 1 and 0 at the start.
    running_mean, running_var : Tensor (C,)
        Buffers, 0 and 1 at the start. The variance is the unbiased one.

    Raises
    ------
    ValueError
        At construction for arguments out of range. In the forward pass if x is not ``(N, channels, *spatial)`` of 2
        to 5 axes, or, in training, if a channel has fewer than two values. Values that are not finite raise nothing:
        a run that diverges is a result.
    TypeError
        If x is not float32 or float64, or not of the dtype of the parameters.
    """

    def __init__(self, channels, eps=1e-5, momentum=0.1):
        super().__init__()
        check_arguments(eps, channels=channels)
        if not (isinstance(momentum, Real) and 0 <= momentum <= 1):
            raise ValueError(f"momentum is the weight of the new batch, from 0 to 1, got {momentum!r}")
        self.channels, self.eps, self.momentum = channels, float(eps), float(momentum)
        self.gamma = torch.nn.Parameter(torch.ones(channels))
        self.beta = torch.nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x):
        """Normalize ``x`` of shape (N, C, *spatial); in training also take its statistics into the buffers."""
        check_input(x, self.channels, self.gamma.dtype)
        if not self.training:
            scale = self.gamma * torch.rsqrt(self.running_var + self.eps)
            shift = self.beta - scale * self.running_mean
            return x * _spread(scale, x) + _spread(shift, x)
        m = _count(x)
        if m < 2:
            raise ValueError(
                f"expected more than one value per channel in training, got shape {tuple(x.shape)}: the only value "
                "of a channel is its own mean, and every output would be beta"
            )

        def take(mean, var):
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (m / (m - 1)), self.momentum)

        return Normalize.apply(x, self.gamma, self.beta, self.eps, take)

    def extra_repr(self):
        """What ``print(module)`` shows between the brackets."""
        return f"{self.channels}, eps={self.eps}, momentum={self.momentum}"


class GhostBatchNorm(BatchNorm):
    """Batch normalization whose statistics are taken over parts of the mini-batch, each of ``ghost`` samples.

    Every part is normalized as if it were a batch of its own (Hoffer et al. 2017). The running statistics get, once a
    step, the averages over the parts. Evaluation is that of `BatchNorm`.

    Parameters
    ----------
    channels, eps, momentum
        As in `BatchNorm`.
    ghost : int
        Samples in a part: the first so many of the mini-batch, the next so many, and so on.

    Raises
    ------
    ValueError, TypeError
        As in `BatchNorm`; and in training if the parts do not fill the mini-batch.
    """

    def __init__(self, channels, eps=1e-5, momentum=0.1, ghost=16):
        super().__init__(channels, eps, momentum)
        check_arguments(eps, ghost=ghost)
        self.ghost = ghost

    def forward(self, x):
        """Normalize each part of ``x``, of shape (N, C, *spatial); in evaluation as `BatchNorm` does it."""
        if not self.training:
            return super().forward(x)
        check_input(x, self.channels, self.gamma.dtype)
        parts, rest = divmod(len(x), self.ghost)
        if rest or not parts:
            raise ValueError(f"a batch of {len(x)} samples is no whole number of parts of {self.ghost}")
        m = _count(x) // parts
        if m < 2:
            raise ValueError(f"expected more than one value per channel and part, got shape {tuple(x.shape)}")

        def take(mean, var):
            self.running_mean.lerp_(mean.view(parts, -1).mean(0), self.momentum)
            self.running_var.lerp_(var.view(parts, -1).mean(0) * (m / (m - 1)), self.momentum)

        # Side by side, (ghost, parts * C, *spatial): each channel of each part is a channel.
        apart = x.unflatten(0, (parts, self.ghost)).transpose(0, 1).flatten(1, 2)
        y = Normalize.apply(apart, self.gamma.repeat(parts), self.beta.repeat(parts), self.eps, take)
        return y.unflatten(1, (parts, self.channels)).transpose(0, 1).flatten(0, 1)

    def extra_repr(self):
        """What ``print(module)`` shows between the brackets."""
        return f"{super().extra_repr()}, ghost={self.ghost}"


class GroupNorm(torch.nn.Module):
    """Group normalization (Wu & He 2018): statistics of each sample alone, over groups of neighbouring channels.

    A group holds ``channels // groups * prod(spatial)`` values of one sample; they are normalized as `BatchNorm` does
    it with the values of a channel, then scaled and shifted channel by channel. No sample sees another one, so
    training and evaluation are the same. Outputs and gradients are those of ``torch.nn.GroupNorm``.

    Parameters
    ----------
    channels : int
    eps : float
        Added to the variance, inside the root; above 0, because a group may be constant.
    groups : int
        Must divide the channels. 1 is layer normalization, ``channels`` is instance normalization.

    Attributes
    ----------
    gamma, beta : Parameter (C,)
        Scale and shift: 1 and 0 at the start.

    Raises
    ------
    ValueError
        At construction for arguments out of range. In the forward pass for a shape as in `BatchNorm`, or if a group
        has fewer than two values.
    TypeError
        As in `BatchNorm`.
    """

    def __init__(self, channels, eps=1e-5, groups=8):
        super().__init__()
        check_arguments(eps, channels=channels, groups=groups)
        if channels % groups or eps == 0:
            raise ValueError(f"groups must divide channels and eps be positive, got {channels}, {groups} and {eps!r}")
        self.channels, self.eps, self.groups = channels, float(eps), groups
        self.gamma = torch.nn.Parameter(torch.ones(channels))
        self.beta = torch.nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        """Normalize ``x`` of shape (N, C, *spatial)."""
        check_input(x, self.channels, self.gamma.dtype)
        count = len(x) * self.groups
        if x.numel() < 2 * count:
            raise ValueError(
                f"expected more than one value per group, got shape {tuple(x.shape)} and {self.groups} groups"
            )
        # One sample whose channels are the groups of all samples.
        groups = x.reshape(1, count, -1)
        x_hat = Normalize.apply(groups, x.new_ones(count), x.new_zeros(count), self.eps).view(x.shape)
        return x_hat * _spread(self.gamma, x) + _spread(self.beta, x)

    def extra_repr(self):
        """What ``print(module)`` shows between the brackets."""
        return f"{self.channels}, eps={self.eps}, groups={self.groups}"


def check_arguments(eps, **counts):
    """Raise ValueError unless ``eps`` is a number from 0 up and each of ``counts`` a whole number from 1 up."""
    for name, count in counts.items():
        if not (isinstance(count, Integral) and count >= 1):
            raise ValueError(f"{name} must be a whole number from 1 up, got {count!r}")
    if not (isinstance(eps, Real) and 0 <= eps < math.inf):
        raise ValueError(f"eps must be a number from 0 up, got {eps!r}")


def check_input(x, channels, dtype):
    """Raise what `BatchNorm` says unless ``x`` is (N, channels, *spatial) of the dtype of the parameters."""
    if not 2 <= x.ndim <= 5:
        raise ValueError(f"x must be (N, C, *spatial), 2 to 5 axes, got shape {tuple(x.shape)}")
    if x.shape[1] != channels:
        raise ValueError(f"x must have {channels} channels on axis 1, got shape {tuple(x.shape)}")
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x must be float32 or float64, got {x.dtype}")
    if x.dtype != dtype:
        raise TypeError(f"x is {x.dtype}, the parameters are {dtype}: convert one of them, as in module.to(x.dtype)")


def _count(x):
    """Values per channel, m."""
    return x.numel() // x.shape[1]


def _spread(v, x):
    """``v`` of shape (C,) in the shape that broadcasts along axis 1 of ``x``."""
    return v if x.ndim == 2 else v.view(-1, *[1] * (x.ndim - 2))


def _moments(x, axes):
    """Mean of each channel, centred input, biased variance of each channel.

    Sums, because ``torch.var_mean`` takes several times as long on a processor. The variance is taken about the mean:
    mean(x^2) - mean(x)^2 would cancel.
    """
    m = _count(x)
    mean = x.sum(axes) / m
    xc = x - _spread(mean, x)
    return mean, xc, (xc * xc).sum(axes) / m
