"""Properties of the transform over shapes, scales and dtypes that hypothesis searches, with torch as the oracle."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bnlib.scratch.batchnorm import (
    RunningStatistics,
    batchnorm_backward,
    batchnorm_backward_staged,
    batchnorm_forward,
    batchnorm_inference,
    fold,
)

from .oracle import LAYOUTS, axes_of, bound_running, bounds, count, lay_out, module_like, ratio, truth, up

COMMON = settings(derandomize=True, deadline=None, max_examples=150)
THOUSAND = settings(COMMON, max_examples=1000)


@st.composite
def batches(draw):
    """x, dy, gamma, beta, eps: ranks 2 to 5, any dtype and order of memory, means up to 1e4 standard deviations."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    positions = draw(st.lists(st.integers(1, 5), max_size=3))
    shape = (draw(st.integers(2, 40)), draw(st.integers(1, 4)), *positions)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale, offset = 10.0 ** draw(st.integers(-6, 4)), draw(st.sampled_from([0, 1, -30, 1e4]))
    x = ((rng.standard_normal(shape) + offset) * scale).astype(dtype)
    dy = (rng.standard_normal(shape) + draw(st.sampled_from([0, -3, 100]))).astype(dtype)
    x, dy = (lay_out(a, draw(st.sampled_from(LAYOUTS))) for a in (x, dy))
    gamma, beta = rng.standard_normal((2, shape[1])).astype(dtype)
    return x, dy, gamma, beta, draw(st.sampled_from([1e-12, 1e-5, 1e-1]))


@THOUSAND
@given(batches(), st.sampled_from([0.1, 0.9, None]))
def test_forward_both_backwards_and_the_buffers_stay_within_the_bounds(batch, momentum):
    x, dy, gamma, beta, eps = batch
    right = truth(x, dy, gamma, beta, eps)
    allowed = bounds(x, dy, gamma, beta, eps, right)
    y, cache = batchnorm_forward(x, gamma, beta, eps)
    staged = batchnorm_backward_staged(dy, cache)
    closed = dict(zip(("dx", "dgamma", "dbeta"), batchnorm_backward(dy, cache), strict=True))
    assert ratio(y, right.y, allowed.y) <= 1
    for name in closed:
        assert ratio(closed[name], getattr(right, name), getattr(allowed, name)) <= 1
        assert ratio(staged[name], getattr(right, name), getattr(allowed, name)) <= 1
    running, weight, m = RunningStatistics(momentum, x.shape[1]), momentum or 1, count(x)
    running.update(x)
    for got, old, new, bound in (
        (running.mean, 0, right.mean, allowed.mean),
        (running.var, 1, right.var * m / (m - 1), allowed.var * m / (m - 1)),
    ):
        wanted = (1 - weight) * old + weight * new
        assert ratio(got, wanted, bound_running(bound, old, 0, weight, x.dtype)) <= 1


@COMMON
@given(batches(), st.sampled_from([0.1, 0.9, None]))
def test_two_steps_and_evaluation_follow_torch(batch, momentum):
    x, _, gamma, beta, eps = batch
    module, running = module_like(x, gamma, beta, eps, momentum), RunningStatistics(momentum)
    for step in (x, x[::-1] * x.dtype.type(0.5)):
        module(up(step))
        running.update(step)
    mean, var = module.running_mean.numpy(), module.running_var.numpy()
    scale = np.abs(x).max()
    np.testing.assert_allclose(running.mean, mean, rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(running.var, var, rtol=0, atol=1e-10 * scale**2 + 1e-15)
    assert running.count == module.num_batches_tracked
    module.eval()
    theirs = module(up(x)).detach().numpy()
    ours = batchnorm_inference(x.astype(np.float64), gamma, beta, mean, var, eps)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9 * np.abs(theirs).max())


@COMMON
@given(batches(), st.floats(0.01, 100), st.floats(-100, 100))
def test_scale_and_shift_of_a_channel_change_nothing_without_eps(batch, a, b):
    x, _, gamma, beta, _ = batch
    x = np.random.default_rng(0).permutation(x.astype(np.float64))
    moved = a * x + b * x.std()
    y, moved_y = (batchnorm_forward(v, gamma, beta, 0.0)[0] for v in (x, moved))
    np.testing.assert_allclose(moved_y, y, rtol=0, atol=1e-6)  # an offset of 1e4 / a costs eight digits


@COMMON
@given(batches())
def test_mean_and_variance_of_the_output_belong_to_the_layer(batch):
    x, _, gamma, beta, eps = batch
    y, cache = batchnorm_forward(x.astype(np.float64), gamma, beta, eps)
    np.testing.assert_allclose(y.mean(axes_of(y)), beta, rtol=0, atol=1e-9)
    share = cache.var / (cache.var + eps)  # eq-two-sums
    np.testing.assert_allclose(y.var(axes_of(y)), gamma.astype(np.float64) ** 2 * share, rtol=1e-6, atol=1e-9)
    assert np.abs(cache.x_hat).max() <= np.sqrt(count(x) - 1) * (1 + 1e-12)  # eq-bound


@COMMON
@given(batches())
def test_order_of_the_samples_does_not_matter(batch):
    x, dy, gamma, beta, eps = (v.astype(np.float64) if isinstance(v, np.ndarray) else v for v in batch)
    order = np.random.default_rng(1).permutation(len(x))
    y, cache = batchnorm_forward(x, gamma, beta, eps)
    moved_y, moved_cache = batchnorm_forward(x[order], gamma, beta, eps)
    dx, moved_dx = batchnorm_backward(dy, cache)[0], batchnorm_backward(dy[order], moved_cache)[0]
    np.testing.assert_allclose(moved_y, y[order], rtol=0, atol=1e-9)
    np.testing.assert_allclose(moved_dx, dx[order], rtol=0, atol=1e-8 * max(1, np.abs(dx).max()))


@COMMON
@given(batches())
def test_folding_into_a_linear_layer_changes_nothing(batch):
    _, _, gamma, beta, eps = batch
    rng = np.random.default_rng(2)
    weight, bias, u = (
        rng.standard_normal((len(gamma), 6)),
        rng.standard_normal(len(gamma)),
        rng.standard_normal((5, 6)),
    )
    mean, var = rng.standard_normal(len(gamma)), rng.uniform(0.1, 2, len(gamma))
    folded_weight, folded_bias = fold(weight, bias, gamma, beta, mean, var, eps)
    args = [torch.from_numpy(np.asarray(v, np.float64)) for v in (mean, var, gamma, beta)]
    theirs = torch.nn.functional.batch_norm(torch.from_numpy(u @ weight.T + bias), *args, eps=eps).numpy()
    np.testing.assert_allclose(
        u @ folded_weight.T + folded_bias, theirs, rtol=0, atol=1e-12 * max(1, np.abs(theirs).max())
    )
