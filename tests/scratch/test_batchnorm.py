"""The transform: 500 seeded cases against two oracles, versions that must fail, torch's modules, staged gradients."""

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from bnlib.scratch.batchnorm import (
    Cache,
    RunningStatistics,
    batchnorm_backward,
    batchnorm_backward_staged,
    batchnorm_forward,
    batchnorm_inference,
    fold,
)
from bnlib.scratch.gradcheck import scaled_error
from bnlib.scratch.layers import BatchNorm

from .oracle import (
    EPS,
    LAYOUTS,
    MOMENTUM,
    Truth,
    axes_of,
    bound_inference,
    bound_running,
    bounds,
    count,
    make_case,
    module_like,
    ratio,
    spread,
    truth,
    truth_inference,
    truth_running,
    up,
)

CASES = 500
QUANTITIES = ["y", "mean", "var", "dx staged", "dgamma staged", "dbeta staged", "dx closed", "dgamma closed"]
QUANTITIES += ["dbeta closed", "running mean", "running var", "inference", "fold weight", "fold bias"]


class Version(NamedTuple):
    """One implementation of the transform: ours, unless a test swaps a function for a wrong one."""

    forward: callable = batchnorm_forward
    staged: callable = batchnorm_backward_staged
    closed: callable = batchnorm_backward
    inference: callable = batchnorm_inference
    running: callable = RunningStatistics
    fold: callable = fold


def measure(case, version):
    """Error divided by bound of every quantity, for one case."""
    x, dy, gamma, beta, eps = case.x, case.dy, case.gamma, case.beta, case.eps
    right = truth(x, dy, gamma, beta, eps)
    allowed = bounds(x, dy, gamma, beta, eps, right)

    y, kept = version.forward(x, gamma, beta, eps)
    staged = version.staged(dy, kept)
    dx, dgamma, dbeta = version.closed(dy, kept)
    shares = {
        "y": ratio(y, right.y, allowed.y),
        "mean": ratio(kept.mu, right.mean, allowed.mean),
        "var": ratio(kept.var, right.var, allowed.var),
        "dx closed": ratio(dx, right.dx, allowed.dx),
        "dgamma closed": ratio(dgamma, right.dgamma, allowed.dgamma),
        "dbeta closed": ratio(dbeta, right.dbeta, allowed.dbeta),
    }
    for name in ("dx", "dgamma", "dbeta"):
        shares[f"{name} staged"] = ratio(staged[name], getattr(right, name), getattr(allowed, name))
    outputs = {"y": y, "dx": dx, "dgamma": dgamma, "dbeta": dbeta, **staged}

    buffers = truth_running(case)
    shares |= measure_running(case, version, right, allowed, buffers)
    mean, var = (b.astype(np.float64) for b in buffers[-1])
    outputs["inference"] = version.inference(x, gamma, beta, mean, var, eps)
    right_eval = truth_inference(x, gamma, beta, mean, var, eps)
    shares["inference"] = ratio(outputs["inference"], right_eval, bound_inference(x, gamma, beta, mean, var, eps))

    # Folding is inference applied to the numbers of the layer before: to its weight without shifts, to its bias with.
    weight, bias = version.fold(case.weight, case.bias, gamma, beta, mean, var, eps)
    outputs |= {"fold weight": weight, "fold bias": bias}
    zero = np.zeros_like(mean)
    before = {
        "fold weight": (case.weight.swapaxes(0, 1), zero, zero),
        "fold bias": ((zero.astype(x.dtype) if case.bias is None else case.bias)[None], beta, mean),
    }
    got = {"fold weight": weight.swapaxes(0, 1), "fold bias": bias[None]}
    for name, (values, shift, centre) in before.items():
        right_fold = truth_inference(values, gamma, shift, centre, var, eps)
        shares[name] = ratio(got[name], right_fold, bound_inference(values, gamma, shift, centre, var, eps))

    wrong_dtype = {name: a.dtype for name, a in outputs.items() if a.dtype != x.dtype}
    assert not wrong_dtype, (wrong_dtype, case.tags)
    return shares


def measure_running(case, version, right, allowed, buffers):
    """Both buffers after each of two batches; the bound of the first batch's error shrinks with its weight."""
    running = version.running(case.momentum)
    worst = {"running mean": 0.0, "running var": 0.0}
    old, before = (np.zeros(len(case.gamma)), np.ones(len(case.gamma))), (0.0, 0.0)
    for batch, (x, now) in enumerate(zip((case.x, case.next_x), buffers, strict=True), start=1):
        if batch == 2:
            right = truth(x, case.dy, case.gamma, case.beta, case.eps)
            allowed = bounds(x, case.dy, case.gamma, case.beta, case.eps, right)
        running.update(x)
        weight = 1 / batch if case.momentum is None else case.momentum
        per_batch = (allowed.mean, allowed.var)
        before = [bound_running(a, o, b, weight, x.dtype) for a, o, b in zip(per_batch, old, before, strict=True)]
        for name, got, wanted, bound in zip(worst, (running.mean, running.var), now, before, strict=True):
            worst[name] = max(worst[name], ratio(got, wanted, bound))
        old = now
    assert running.count == 2
    return worst


def worst_shares(version, cases):
    """For each dtype and quantity, the worst share of its bound and the case it came from."""
    worst = {}
    for case in cases:
        for quantity, share in measure(case, version).items():
            key = (case.tags["dtype"], quantity)
            if key not in worst or share > worst[key][0]:
                worst[key] = (share, case.tags)
    return worst


@cache
def worst_of_ours():
    return worst_shares(Version(), map(make_case, range(CASES)))


@pytest.fixture(scope="module")
def measured():
    worst = worst_of_ours()
    print(f"\nworst error as a share of its bound, {CASES} cases\n{'':16}  float32  float64")
    for quantity in QUANTITIES:
        shares = [worst[dtype, quantity][0] for dtype in ("float32", "float64")]
        print(f"{quantity:16}{shares[0]:9.2g}{shares[1]:9.2g}")
    return worst


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("quantity", QUANTITIES)
def test_every_quantity_is_within_its_bound_on_500_cases(measured, quantity, dtype):
    share, tags = measured[dtype, quantity]
    assert share <= 1, f"{quantity} is off by {share:.3g} times its bound in case {tags}"


def test_the_500_cases_cover_what_they_should():
    cases = [make_case(i) for i in range(CASES)]
    tags = [case.tags for case in cases]
    assert {(len(t["shape"]), t["dtype"], t["layout"]) for t in tags} == {
        (rank, dtype, layout) for rank in (2, 3, 4, 5) for dtype in ("float32", "float64") for layout in LAYOUTS
    }
    for dtype in ("float32", "float64"):
        ours = [t for t in tags if t["dtype"] == dtype]
        assert min(t["m"] for t in ours) == 2
        assert max(t["m"] for t in ours) == 20_000
        assert all(max(t["m"] for t in ours if len(t["shape"]) == rank) > 15_000 for rank in (2, 3, 4, 5))
        assert max(t["offset"] for t in ours) > 5000
        assert {t["eps"] for t in ours} == set(EPS)
        assert sum(t["outlier"] > 100 for t in ours) > 20
        assert sum(t["dy_mean"] != 0 for t in ours) > 100
        assert any(t["constant"] for t in ours)
    assert {case.momentum for case in cases} == set(MOMENTUM)
    assert sum((case.gamma == 0).any() for case in cases) > 50
    assert sum((case.gamma < 0).any() for case in cases) > 100
    assert sum(case.bias is None for case in cases) > 50
    assert min(np.var(case.x, axes_of(case.x), dtype=np.float64).min() for case in cases[:100]) < 1e-12
    strided = [case for case in cases if not (case.x.flags.c_contiguous or case.x.flags.f_contiguous)]
    assert len(strided) > 50


# --- wrong versions: if these passed, the test above would show nothing ----------------------------


def forward_with(statistics, outside=0.0):
    """A forward pass with other statistics; ``outside`` is eps put outside the root, in units of eps."""

    def forward(x, gamma, beta, eps=1e-5):
        mu, var = statistics(x)
        with np.errstate(divide="ignore", invalid="ignore"):
            std = np.sqrt(var + eps * (1 - outside)) + outside * eps
            xc = x.astype(np.float64) - spread(mu, x)
            x_hat = xc / spread(std, x)
        y = (spread(gamma, x) * x_hat + spread(beta, x)).astype(x.dtype)
        # The backward pass is not what is wrong here, and must not stop on a variance of zero.
        return y, Cache(xc, np.nan_to_num(x_hat), mu, np.maximum(var, 1e-30), eps, gamma.astype(np.float64), x.dtype)

    return forward


def two_pass(x, ddof=0):
    mu = x.mean(axes_of(x), dtype=np.float64)
    return mu, np.sum((x - spread(mu, x)) ** 2, axes_of(x)) / (count(x) - ddof)


def one_pass(x):
    """E[x^2] - E[x]^2 in the dtype of x."""
    mu = x.mean(axes_of(x))
    return mu, np.maximum(np.mean(x * x, axes_of(x)) - mu * mu, 0)


def short_sums(x):
    """Two passes, but float32 sums stay in float32."""
    mu = x.mean(axes_of(x))
    return mu, np.mean((x - spread(mu, x)) ** 2, axes_of(x))


def without_variance_path(dy, kept):
    m = count(dy)
    dbeta, dgamma = dy.sum(axes_of(dy), dtype=np.float64), (dy * kept.x_hat).sum(axes_of(dy))
    scale = kept.gamma / np.sqrt(kept.var + kept.eps)
    dx = spread(scale, dy) * (dy - spread(dbeta / m, dy))
    return dx.astype(kept.dtype), dgamma.astype(kept.dtype), dbeta.astype(kept.dtype)


def without_mean_path(dy, kept):
    grads = batchnorm_backward_staged(dy, kept)
    return {**grads, "dx": grads["dxc"]}


class Biased(RunningStatistics):
    """The buffer that most from-scratch versions keep."""

    def update(self, x):
        old = self.var if self.var is not None else np.ones(x.shape[1])
        super().update(x)
        weight = 1 / self.count if self.momentum is None else self.momentum
        self.var = (1 - weight) * old + weight * two_pass(x)[1]


class Swapped(RunningStatistics):
    """Momentum as the weight of the old batch, as in TensorFlow."""

    def __init__(self, momentum=0.1, channels=None):
        super().__init__(None if momentum is None else 1 - momentum, channels)


WRONG = {
    "biased running variance": (Version(running=Biased), ["running var"]),
    "momentum the other way round": (Version(running=Swapped), ["running mean", "running var"]),
    "one-pass variance": (Version(forward=forward_with(one_pass)), ["y", "var"]),
    "unbiased variance in the transform": (Version(forward=forward_with(lambda x: two_pass(x, 1))), ["y", "var"]),
    "eps outside the root": (Version(forward=forward_with(two_pass, outside=1.0)), ["y"]),
    "no path through the variance": (Version(closed=without_variance_path), ["dx closed"]),
    "no path through the mean": (Version(staged=without_mean_path), ["dx staged"]),
    "eps left out when folding": (Version(fold=lambda *a: fold(*a[:-1], a[-1] / 2)), ["fold weight", "fold bias"]),
    "eps left out in evaluation": (
        Version(inference=lambda *a: batchnorm_inference(*a[:-1], a[-1] / 2)),
        ["inference"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_version_exceeds_the_bounds(name):
    version, broken = WRONG[name]
    worst = worst_shares(version, map(make_case, range(0, CASES, 7)))
    for dtype in ("float32", "float64"):
        shares = {quantity: worst[dtype, quantity][0] for quantity in QUANTITIES}
        assert min(shares[quantity] for quantity in broken) > 1, (dtype, shares)


def test_float32_sums_in_float32_exceed_the_bounds():
    # NumPy adds mean(0) of an (N, C) array row by row: after 200,704 rows float32 has lost two digits or more.
    x = np.random.default_rng(0).standard_normal((200_704, 2), np.float32) + np.float32(3)
    dy, ones, eps = np.ones_like(x), np.ones(2, np.float32), 1e-5
    right = truth(x, dy, ones, ones, eps)
    allowed = bounds(x, dy, ones, ones, eps, right)
    short = short_sums(x)
    assert ratio(short[0], right.mean, allowed.mean) > 1
    assert ratio(short[1], right.var, allowed.var) > 1
    y, kept = batchnorm_forward(x, ones, ones, eps)
    assert ratio(y, right.y, allowed.y) < 0.1
    assert ratio(kept.mu, right.mean, allowed.mean) < 0.1
    assert ratio(kept.var, right.var, allowed.var) < 0.1


def test_mean_1000_and_spread_a_tenth_survive_in_float32():
    x = (1000 + 0.1 * np.random.default_rng(0).standard_normal((256, 2))).astype(np.float32)
    assert one_pass(x)[1].max() == 0  # what the textbook formula makes of it
    _, kept = batchnorm_forward(x, np.ones(2), np.zeros(2))
    assert_allclose(kept.var, np.var(x.astype(np.float64), 0), rtol=1e-10)


# --- torch.nn.BatchNorm, step by step --------------------------------------------------------------

SHAPES = [(16, 3), (6, 3, 7), (5, 3, 4, 3), (4, 3, 2, 3, 2)]


@pytest.mark.parametrize("momentum", MOMENTUM)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_training_steps_then_evaluation_agree_with_the_torch_module(shape, dtype, momentum):
    rng = np.random.default_rng(len(shape))
    gamma, beta = rng.standard_normal((2, 3)).astype(dtype)
    layer = BatchNorm(3, eps=1e-3, momentum=momentum)
    layer.params = {"gamma": gamma, "beta": beta}
    like = np.empty(shape, dtype)
    module = module_like(like, gamma, beta, 1e-3, momentum, getattr(torch, np.dtype(dtype).name))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    steps = 5
    for _ in range(steps):
        x, dy = (2 * rng.standard_normal(shape) + 1).astype(dtype), rng.standard_normal(shape).astype(dtype)
        t = torch.tensor(x, requires_grad=True)
        y = module(t)
        optimizer.zero_grad()
        y.backward(torch.tensor(dy))
        grads = (t.grad, module.weight.grad, module.bias.grad)
        theirs = Truth(y, torch.zeros(3), torch.zeros(3), *grads)
        theirs = Truth(*(a.detach().numpy() for a in theirs))

        ours, dx = layer.forward(x), layer.backward(dy)
        args = x, dy, layer.params["gamma"], layer.params["beta"], 1e-3
        allowed = bounds(*args, truth(*args))
        for name, got in {"y": ours, "dx": dx, "dgamma": layer.grads["gamma"], "dbeta": layer.grads["beta"]}.items():
            assert ratio(got, getattr(theirs, name), getattr(allowed, name)) <= 1, name

        optimizer.step()  # both go on from the same affine parameters, each with its own buffers
        layer.params = {"gamma": module.weight.detach().numpy().copy(), "beta": module.bias.detach().numpy().copy()}

    u = np.finfo(dtype).eps
    assert layer.running.count == int(module.num_batches_tracked) == steps
    assert_allclose(layer.running.mean, module.running_mean.numpy(), rtol=0, atol=32 * u)
    assert_allclose(layer.running.var, module.running_var.numpy(), rtol=32 * u)
    module.eval()
    buffers = layer.running.mean.copy(), layer.running.var.copy()
    ours, theirs = layer.forward(x, training=False), module(torch.tensor(x)).detach().numpy()
    assert ours.dtype == dtype
    assert_allclose(ours, theirs, rtol=0, atol=64 * u)
    # Evaluation reads the buffers and leaves them alone.
    assert_array_equal(layer.running.mean, buffers[0])
    assert_array_equal(layer.running.var, buffers[1])
    assert layer.running.count == int(module.num_batches_tracked) == steps


def test_running_statistics_before_the_first_batch_are_those_of_torch():
    running = RunningStatistics(channels=4)
    module = torch.nn.BatchNorm1d(4)
    assert_array_equal(running.mean, module.running_mean.numpy())
    assert_array_equal(running.var, module.running_var.numpy())
    assert running.momentum == module.momentum
    assert running.count == module.num_batches_tracked == 0
    assert RunningStatistics().mean is None
    assert RunningStatistics().var is None


def test_momentum_none_is_the_plain_average_of_all_batches():
    rng = np.random.default_rng(0)
    batches = rng.standard_normal((7, 10, 2)) + 5
    running = RunningStatistics(momentum=None)
    for x in batches:
        running.update(x)
    assert_allclose(running.mean, batches.mean((0, 1)), rtol=1e-13)
    assert_allclose(running.var, batches.var(1, ddof=1).mean(0), rtol=1e-13)


@pytest.mark.parametrize(("momentum", "kept"), [(0, 0.0), (1, 1.0)])
def test_momentum_0_keeps_the_old_buffer_and_1_the_new_batch(momentum, kept):
    x = np.random.default_rng(0).standard_normal((10, 2)) + 5
    running = RunningStatistics(momentum, channels=2)
    running.update(x)
    assert_allclose(running.mean, kept * x.mean(0), rtol=1e-13)
    assert_allclose(running.var, x.var(0, ddof=1) if kept else np.ones(2), rtol=1e-13)


# --- every node of the graph -----------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_every_staged_gradient_equals_autograd_on_the_same_graph(shape):
    for seed in range(10):
        rng = np.random.default_rng([seed, len(shape)])
        x, dy = rng.standard_normal((2, *shape)) * 2 + 0.5
        gamma, beta = rng.standard_normal((2, 3))
        eps = EPS[seed % len(EPS)]

        nodes = {name: torch.tensor(a, requires_grad=True) for name, a in dict(x=x, gamma=gamma, beta=beta).items()}

        def node(name, value, nodes=nodes):
            value.retain_grad()
            nodes[name] = value
            return value

        t, axes, like = nodes["x"], axes_of(x), (1, 3, *[1] * (x.ndim - 2))
        mu = node("mu", t.mean(axes))
        xc = node("xc", t - mu.reshape(like))
        sq = node("sq", xc**2)
        var = node("var", sq.mean(axes))
        std = node("std", torch.sqrt(var + eps))
        inv_std = node("inv_std", 1 / std)
        x_hat = node("x_hat", xc * inv_std.reshape(like))
        y = nodes["gamma"].reshape(like) * x_hat + nodes["beta"].reshape(like)
        y.backward(torch.tensor(dy))

        ours_y, kept = batchnorm_forward(x, gamma, beta, eps)
        assert scaled_error(ours_y, y.detach().numpy()) < 1e-14
        staged = batchnorm_backward_staged(dy, kept)
        assert set(staged) == {f"d{name}" for name in nodes}
        for name, value in nodes.items():
            assert scaled_error(staged[f"d{name}"], value.grad.numpy()) < 1e-13, (name, seed)


@pytest.mark.parametrize("shape", SHAPES)
def test_dx_has_no_mean_and_no_part_along_x_hat(shape):
    # With eps = 0, y does not change when a channel is shifted or scaled, so the gradient is orthogonal to both.
    rng = np.random.default_rng(1)
    x, dy = rng.standard_normal((2, *shape))
    _, kept = batchnorm_forward(x, np.ones(3), np.zeros(3), eps=0)
    for dx in (batchnorm_backward(dy, kept)[0], batchnorm_backward_staged(dy, kept)["dx"]):
        assert np.abs(dx.sum(axes_of(x))).max() < 1e-12
        assert np.abs((dx * kept.x_hat).sum(axes_of(x))).max() < 1e-12


# --- folding ---------------------------------------------------------------------------------------

LAYERS = [torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("dims", [0, 1, 2, 3])
def test_fold_gives_the_layer_and_its_norm_in_one(dims, has_bias, dtype):
    torch.manual_seed(dims)
    rng = np.random.default_rng(dims)
    kernel = (3,) if dims else ()
    layer = LAYERS[dims](2, 4, *kernel, bias=has_bias, dtype=dtype)
    x = torch.randn(5, 2, *[6] * dims, dtype=dtype)
    gamma, beta, mean = rng.standard_normal((3, 4))
    var = rng.uniform(0.1, 2, 4)
    norm = module_like(layer(x), gamma, beta, 1e-3, dtype=dtype)
    norm.running_mean.copy_(up(mean))
    norm.running_var.copy_(up(var))
    layer.eval()
    norm.eval()
    stats = [a.detach().numpy() for a in (norm.weight, norm.bias, norm.running_mean, norm.running_var)]
    bias = layer.bias.detach().numpy() if has_bias else None
    weight, bias = fold(layer.weight.detach().numpy(), bias, *stats, eps=1e-3)
    assert weight.dtype == bias.dtype == stats[0].dtype

    folded = LAYERS[dims](2, 4, *kernel, dtype=dtype)
    folded.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    tolerance = dict(rtol=0, atol=128 * torch.finfo(dtype).eps)
    with torch.no_grad():
        assert_allclose(folded(x).numpy(), norm(layer(x)).numpy(), **tolerance)
    if dims:
        fused = torch.nn.utils.fusion.fuse_conv_bn_eval(layer, norm)
    else:
        fused = torch.nn.utils.fusion.fuse_linear_bn_eval(layer, norm)
    assert_allclose(weight, fused.weight.detach().numpy(), **tolerance)
    assert_allclose(bias, fused.bias.detach().numpy(), **tolerance)


# --- nothing that is handed in is changed ----------------------------------------------------------


@pytest.mark.parametrize("index", range(16))
def test_no_input_is_changed_and_no_output_shares_its_memory(index):
    case = make_case(index + 16)
    mean, var = np.full(len(case.gamma), 0.5), np.full(len(case.gamma), 2.0)
    bias = np.zeros_like(case.gamma) if case.bias is None else case.bias
    inputs = [case.x, case.dy, case.gamma, case.beta, mean, var, case.weight, bias]
    for a in inputs:
        a.flags.writeable = True  # the cases are read-only: a change would raise, and not be seen here
    x, dy, gamma, beta, mean, var, weight, bias = inputs
    before = [a.tobytes() for a in inputs]

    y, kept = batchnorm_forward(x, gamma, beta, case.eps)
    kept_before = [np.asarray(a).tobytes() for a in kept[:-1]]
    staged = batchnorm_backward_staged(dy, kept)
    closed = batchnorm_backward(dy, kept)
    assert [np.asarray(a).tobytes() for a in kept[:-1]] == kept_before
    evaluated = batchnorm_inference(x, gamma, beta, mean, var, case.eps)
    running = RunningStatistics()
    running.update(x)
    folded = fold(weight, bias, gamma, beta, mean, var, case.eps)

    assert [a.tobytes() for a in inputs] == before
    for output in (y, *staged.values(), *closed, evaluated, running.mean, running.var, *folded):
        assert not any(np.shares_memory(output, a) for a in inputs)
        assert output.flags.writeable


def test_the_buffers_of_an_earlier_step_are_left_alone():
    x = np.random.default_rng(0).standard_normal((8, 2))
    running = RunningStatistics(channels=2)
    earlier = running.mean, running.var
    running.update(x)
    assert_array_equal(earlier, [[0, 0], [1, 1]])


@pytest.mark.parametrize(("x_dtype", "other"), [(np.float32, np.float64), (np.float64, np.float32)])
def test_the_dtype_of_x_decides_whatever_that_of_the_other_arrays(x_dtype, other):
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((6, 2)).astype(x_dtype), rng.standard_normal((6, 2)).astype(other)
    gamma, beta, mean, var = rng.uniform(1, 2, (4, 2)).astype(other)
    y, kept = batchnorm_forward(x, gamma, beta)
    outputs = [y, *batchnorm_backward(dy, kept), *batchnorm_backward_staged(dy, kept).values()]
    outputs.append(batchnorm_inference(x, gamma, beta, mean, var))
    outputs += fold(x, gamma[[0, 0, 0, 1, 1, 1]], *[a[[0, 0, 0, 1, 1, 1]] for a in (gamma, beta, mean, var)])
    assert {a.dtype for a in outputs} == {np.dtype(x_dtype)}


@pytest.mark.parametrize("value", [1.6610760184394302, 0.7764, 0.2259])
def test_sums_of_systematic_values_stay_within_the_bounds(value):
    # Rounding errors of equal or quantized numbers do not cancel: row by row they grow with m, not with its root.
    m = 19_999
    gamma, beta, rng = np.array([1.0, -2.0]), np.zeros(2), np.random.default_rng(0)
    quantized = value * rng.choice([-1.0, 1.0, 3.0], (m, 2))
    for x, dy in ((rng.standard_normal((m, 2)), np.full((m, 2), value)), (quantized, quantized)):
        right = truth(x, dy, gamma, beta, 1e-5)
        allowed = bounds(x, dy, gamma, beta, 1e-5, right)
        y, kept = batchnorm_forward(x, gamma, beta, 1e-5)
        dx, dgamma, dbeta = batchnorm_backward(dy, kept)
        for name, got in dict(y=y, mean=kept.mu, var=kept.var, dx=dx, dgamma=dgamma, dbeta=dbeta).items():
            assert ratio(got, getattr(right, name), getattr(allowed, name)) <= 0.25, name


def test_fold_names_the_shape_of_the_weight_it_was_given():
    with pytest.raises(ValueError, match=r"gamma must have shape \(4,\).*\(4, 2\).*got \(3,\)"):
        fold(np.ones((4, 2)), None, np.ones(3), np.ones(4), np.ones(4), np.ones(4))
