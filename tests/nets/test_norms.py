"""The normalizers against torch's: values, first and second derivatives, buffers; and versions that must fail."""

import copy
import gc
import io
import weakref

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call
from torch.nn import functional as F

from bnlib.nets.norms import BatchNorm, GhostBatchNorm, GroupNorm, Normalize, check_arguments, check_input

from ..scratch.oracle import (
    LAYOUTS,
    axes_of,
    bound_inference,
    bounds,
    lay_out,
    make_case,
    module_like,
    ratio,
    truth,
    worst,
)

# The bounds are those of sums in float64. Ours are of float32 where the input is: see `test_float32_...` for how much
# of the bounds they take on arrays as nets have them, and on 500 cases with outliers and far means.
ROOM = 8
SHAPES = [(2, 3), (9, 3), (5, 3, 4), (4, 3, 5, 2), (1, 3, 2, 2), (2, 3, 2, 3, 2)]
NAMES = ["y", "mean", "var", "dx", "dgamma", "dbeta"]


def tensor(a):
    """The same values in the same order of memory, as far as torch knows it."""
    return torch.from_numpy(a.copy(order="K") if min(a.strides) >= 0 else np.ascontiguousarray(a))


def compute(x, dy, gamma, beta, eps, apply=Normalize.apply):
    """All that the function gives for arrays, as arrays."""
    x, gamma, beta = (tensor(a).requires_grad_() for a in (x, gamma, beta))
    taken = {}
    y = apply(x, gamma, beta, eps, lambda mean, var: taken.update(mean=mean, var=var))
    y.backward(tensor(dy))
    assert y.dtype == x.dtype
    assert y.stride() == x.grad.stride() == torch.empty_like(x).stride()
    values = y, taken["mean"], taken["var"], x.grad, gamma.grad, beta.grad
    return {name: value.detach().numpy() for name, value in zip(NAMES, values, strict=True)}


def shares(x, dy, gamma, beta, eps):
    """Error of every quantity as a share of the bound."""
    right = truth(x, dy, gamma, beta, eps)
    allowed = bounds(x, dy, gamma, beta, eps, right)
    got = compute(x, dy, gamma, beta, eps)
    return {name: ratio(got[name], getattr(right, name), getattr(allowed, name)) for name in NAMES}


def draw(shape, dtype, seed=0, offset=0.0, layout="C"):
    rng = np.random.default_rng(seed)
    x, dy = (lay_out((rng.standard_normal(shape) + o).astype(dtype), layout) for o in (offset, 0.5))
    gamma, beta = rng.standard_normal((2, shape[1])).astype(dtype)
    return x, dy, gamma, beta


def double(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def inputs(shape, seed=0):
    """x, gamma and beta in float64 for the checks by differences: no two derivatives are alike, none is zero."""
    return [double(*s, seed=seed + i).requires_grad_() for i, s in enumerate([shape, shape[1:2], shape[1:2]])]


# --- outputs, gradients, buffers ---------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("offset", [0, 100])
@pytest.mark.parametrize("shape", [*SHAPES, (400, 7), (32, 16, 7, 7)])
def test_in_float64_all_is_as_torch_has_it(shape, offset, layout):
    x, dy, gamma, beta = draw(shape, np.float64, offset=offset, layout=layout)
    theirs = module_like(x, gamma, beta, 1e-5)
    ours = BatchNorm(shape[1]).double()
    with torch.no_grad():
        ours.gamma.copy_(theirs.weight)
        ours.beta.copy_(theirs.bias)
    allowed = bounds(x, dy, gamma, beta, 1e-5, truth(x, dy, gamma, beta, 1e-5))
    t, u = (tensor(x).requires_grad_() for _ in range(2))
    y, right = ours(t), theirs(u)
    y.backward(tensor(dy))
    right.backward(tensor(dy))

    def near(got, wanted, bound):
        assert ratio(got.detach().numpy(), wanted.detach().numpy(), bound) <= 1

    near(y, right, allowed.y)
    near(t.grad, u.grad, allowed.dx)
    near(ours.gamma.grad, theirs.weight.grad, allowed.dgamma)
    near(ours.beta.grad, theirs.bias.grad, allowed.dbeta)
    near(ours.running_mean, theirs.running_mean, 0.1 * allowed.mean)
    near(ours.running_var, theirs.running_var, 0.1 * allowed.var * 2 + 2e-16 * 2)  # up to m / (m - 1) = 2
    assert y.stride() == t.grad.stride() == torch.empty_like(t).stride()


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.7, 1.0])
def test_the_buffers_follow_torch_over_several_batches(momentum):
    ours, theirs = BatchNorm(3, momentum=momentum).double(), torch.nn.BatchNorm2d(3, momentum=momentum).double()
    for step in range(5):
        x = double(4, 3, 5, 2, seed=step) * (step + 1) + step
        ours(x)
        theirs(x)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=1e-13, atol=0)
    assert not ours.running_mean.requires_grad
    assert ours.running_var.grad_fn is None


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("name", NAMES)
def test_float64_is_within_the_bounds_on_500_cases(name):
    share, index = worst(shares)["float64", name]
    assert share <= 1, make_case(index).tags


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("name", NAMES)
def test_float32_is_within_eight_times_the_bounds_on_500_cases(name):
    share, index = worst(shares)["float32", name]
    print(f"\nfloat32 {name}: worst share of the bound {share:.2g}, case {index}")
    assert share <= ROOM, make_case(index).tags


@pytest.mark.parametrize("layout", ["C", "channels last"])
@pytest.mark.parametrize("offset", [0, 7, -100, 1e4])
@pytest.mark.parametrize("shape", [(32, 64, 7, 7), (32, 16, 14, 14), (64, 100), (2, 8), (50_000, 4), (64, 8, 32, 32)])
def test_float32_is_within_the_bounds_on_arrays_as_nets_have_them(shape, offset, layout):
    found = shares(*draw(shape, np.float32, offset=offset, layout=layout), 1e-5)
    assert max(found.values()) <= 1, found


def test_a_far_mean_does_not_cancel_the_variance():
    """The variance as mean(x^2) - mean(x)^2 is 0 or worse here."""
    x = torch.from_numpy(draw((64, 8, 7, 7), np.float32)[0]) * 0.1 + 1000
    y = BatchNorm(8)(x)
    torch.testing.assert_close(y.var((0, 2, 3), correction=0), torch.ones(8), rtol=2e-3, atol=0)


# --- first derivatives -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_and_their_gradients_are_those_of_differences(shape):
    assert gradcheck(lambda *a: Normalize.apply(*a, 1e-2), inputs(shape))
    assert gradgradcheck(lambda *a: Normalize.apply(*a, 1e-2), inputs(shape))


def test_gradients_of_gradients_with_channels_last_in_memory():
    x, gamma, beta = inputs((3, 2, 2, 3))
    x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    assert gradgradcheck(lambda *a: Normalize.apply(*a, 1e-5), (x, gamma, beta))


def test_the_gradients_do_not_depend_on_create_graph():
    """Kept statistics in one case, computed again in the other."""
    given = inputs((6, 3, 4))
    dy = double(6, 3, 4, seed=9)
    plain, graph = (
        torch.autograd.grad(Normalize.apply(*given, 1e-5), given, dy, create_graph=create) for create in (False, True)
    )
    for a, b in zip(plain, graph, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)
        assert not a.requires_grad
    assert graph[0].requires_grad


@pytest.mark.parametrize("expanded", [True, False])
def test_an_upstream_gradient_in_any_layout(expanded):
    given = inputs((6, 3, 4, 2))
    dy = double(1, 3, 1, 1).expand(6, 3, 4, 2) if expanded else double(2, 4, 3, 6).permute(3, 2, 1, 0)
    for got, wanted in zip(
        torch.autograd.grad(Normalize.apply(*given, 1e-5), given, dy),
        torch.autograd.grad(reference(*given, 1e-5), given, dy),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-13)
        assert got.is_contiguous()


def test_parameters_that_are_frozen_and_an_input_without_gradient():
    norm = BatchNorm(3)
    norm.gamma.requires_grad_(False)
    y = norm(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
    y.square().sum().backward()
    assert norm.gamma.grad is None
    torch.testing.assert_close(norm.beta.grad, 2 * y.detach().sum(0))


# --- second derivatives, and versions in which they are wrong ------------------------------------------


def reference(x, gamma, beta, eps, take=None):
    """The same by ordinary autograd."""
    return F.batch_norm(x, None, None, gamma, beta, training=True, eps=eps)


class SavesNormalized(torch.autograd.Function):
    """Saves x_hat and the inverse standard deviation: constants, to whoever differentiates the backward pass."""

    @staticmethod
    def forward(ctx, x, gamma, beta, eps, take=None):
        axes, shape = (0, *range(2, x.ndim)), (-1, *[1] * (x.ndim - 2))
        var, mean = torch.var_mean(x, axes, correction=0)
        inv_std = torch.rsqrt(var + eps).view(shape)
        x_hat = (x - mean.view(shape)) * inv_std
        ctx.save_for_backward(x_hat, inv_std, gamma)
        return x_hat * gamma.view(shape) + beta.view(shape)

    @staticmethod
    def backward(ctx, dy):
        x_hat, inv_std, gamma = ctx.saved_tensors
        axes, m = (0, *range(2, dy.ndim)), dy.numel() // dy.shape[1]
        dbeta, dgamma = dy.sum(axes), (dy * x_hat).sum(axes)
        spread = lambda v: v.view(inv_std.shape)  # noqa: E731
        dx = spread(gamma) * inv_std * (dy - spread(dbeta) / m - x_hat * spread(dgamma) / m)
        return dx, dgamma, dbeta, None, None


class KeepsStatistics(Normalize):
    """Saves only its inputs, but takes the kept mean and standard deviation also where it is differentiated."""

    @staticmethod
    def backward(ctx, dy):
        (x, gamma), (mean, inv_std) = ctx.saved_tensors, ctx.statistics
        m, shape = dy.numel() // dy.shape[1], (-1, *[1] * (dy.ndim - 2))
        x_hat = (x - mean.view(shape)) * inv_std.view(shape)
        dbeta, dgamma = dy.sum(ctx.axes), (dy * x_hat).sum(ctx.axes)
        dx = (gamma * inv_std).view(shape) * (dy - dbeta.view(shape) / m - x_hat * dgamma.view(shape) / m)
        return dx, dgamma, dbeta, None, None


WRONG = [SavesNormalized, KeepsStatistics]


@pytest.mark.parametrize("wrong", WRONG)
def test_gradcheck_passes_a_function_whose_second_derivatives_are_wrong(wrong):
    assert gradcheck(lambda *a: wrong.apply(*a, 1e-2), inputs((4, 3, 5, 2)))
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        gradgradcheck(lambda *a: wrong.apply(*a, 1e-2), inputs((4, 3, 5, 2)))


class Net(torch.nn.Module):
    """Convolution, linear layer and two normalizers between smooth activations: every second derivative exists."""

    def __init__(self, normalize):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 2, 2)
        self.first, self.second = BatchNorm(2), BatchNorm(3)
        self.hidden, self.out = torch.nn.Linear(8, 3), torch.nn.Linear(3, 1)
        self.normalize = normalize
        for i, p in enumerate(self.parameters()):
            p.data = double(*p.shape, seed=i) / 2

    def forward(self, x):
        h = torch.tanh(self.normalize(self.conv(x), self.first))
        return self.out(torch.tanh(self.normalize(self.hidden(h.flatten(1)), self.second)))


def by(apply):
    return lambda h, norm: apply(h, norm.gamma, norm.beta, norm.eps)


def hessian(net):
    """Loss, gradient and Hessian with respect to all parameters, as one vector and one matrix."""
    x, target = double(6, 1, 3, 3, seed=50), double(6, 1, seed=51)
    flat = torch.cat([p.detach().flatten() for p in net.parameters()]).requires_grad_()
    sizes = [p.numel() for p in net.parameters()]
    named = {n: v.view_as(p) for (n, p), v in zip(net.named_parameters(), flat.split(sizes), strict=True)}
    loss = (functional_call(net, named, (x,)) - target).square().mean()
    (gradient,) = torch.autograd.grad(loss, flat, create_graph=True)
    rows = [torch.autograd.grad(g, flat, retain_graph=True)[0] for g in gradient]
    return loss.detach(), gradient.detach(), torch.stack(rows)


def test_the_hessian_of_a_net_is_the_one_with_torchs_batch_norm():
    right = hessian(Net(by(reference)))
    module = Net(lambda h, norm: norm(h)).double()
    for got, wanted in zip(hessian(module), right, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12 * max(1, float(wanted.abs().max())))
    matrix = right[2]
    assert matrix.abs().max() > 0.1
    torch.testing.assert_close(matrix, matrix.T)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_version_has_the_gradient_and_not_the_hessian(wrong):
    _, gradient, matrix = hessian(Net(by(reference)))
    _, same, other = hessian(Net(by(wrong.apply)))
    torch.testing.assert_close(same, gradient, rtol=1e-10, atol=1e-12)
    assert (other - matrix).abs().max() > 0.01 * matrix.abs().max()


def elementary(x, gamma, beta, eps, take=None):
    """The same from elementary operations, which autograd differentiates as often as asked."""
    axes, shape = (0, *range(2, x.ndim)), (-1, *[1] * (x.ndim - 2))
    xc = x - x.mean(axes).view(shape)
    std = torch.sqrt((xc * xc).mean(axes) + eps)
    return gamma.view(shape) * xc / std.view(shape) + beta.view(shape)


def third(apply):
    """Gradient of the second derivative along one direction."""
    given = inputs((5, 2, 3))
    along = [double(*a.shape, seed=20 + i) for i, a in enumerate(given)]
    value = apply(*given, 1e-2).tanh().square().sum()
    for _ in range(2):
        slopes = torch.autograd.grad(value, given, create_graph=True)
        value = sum((s * v).sum() for s, v in zip(slopes, along, strict=True))
    return torch.autograd.grad(value, given)


def test_third_derivatives_are_right():
    """No comparison with torch's batch_norm here: in torch 2.13 its third derivatives are wrong (pytorch #186256)."""
    wanted = third(elementary)
    for got, right in zip(third(Normalize.apply), wanted, strict=True):
        assert right.abs().max() > 0.1
        torch.testing.assert_close(got, right, rtol=1e-8, atol=1e-10)
    wrong = third(KeepsStatistics.apply)
    assert (wrong[0] - wanted[0]).abs().max() > 0.01 * wanted[0].abs().max()


# --- evaluation ----------------------------------------------------------------------------------------


def trained(channels=3, dtype=torch.float64):
    """A module whose parameters and buffers are none of the initial ones."""
    norm = BatchNorm(channels, eps=1e-3).to(dtype)
    with torch.no_grad():
        norm.gamma.copy_(double(channels, seed=1))
        norm.beta.copy_(double(channels, seed=2))
    for seed in range(3):
        norm(double(8, channels, 4, seed=seed).to(dtype) * 3 + 5)
    return norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 3), *SHAPES])
def test_evaluation_is_the_affine_map_with_running_statistics(shape, dtype):
    norm = trained(dtype=dtype).eval()
    x = double(*shape, seed=4).to(dtype).requires_grad_()
    y = norm(x)
    statistics = norm.running_mean, norm.running_var
    gamma, beta, mean, var = (v.detach().double() for v in (norm.gamma, norm.beta, *statistics))
    right = F.batch_norm(x.detach().double(), mean, var, gamma, beta, training=False, eps=norm.eps)
    allowed = bound_inference(*(a.detach().numpy() for a in (x, norm.gamma, norm.beta, *statistics)), norm.eps)
    assert (np.abs(y.detach().double().numpy() - right.numpy()) <= allowed).all()
    assert y.dtype == dtype

    y.sum().backward()  # each sample on its own: the sum has a gradient, which it has not in training
    slope = (gamma / (var + norm.eps).sqrt()).view(1, -1, *[1] * (x.ndim - 2)).expand_as(x)
    torch.testing.assert_close(x.grad, slope.to(dtype))
    assert norm.gamma.grad is not None
    assert norm.running_mean.grad is None


def test_evaluation_leaves_the_buffers_and_training_changes_them():
    norm = trained().eval()
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    norm(double(8, 3))
    assert all(torch.equal(norm.state_dict()[name], value) for name, value in before.items())
    with torch.no_grad():
        norm.train()(double(8, 3))
    assert not torch.equal(norm.running_mean, before["running_mean"])
    assert not torch.equal(norm.running_var, before["running_var"])


def test_evaluation_has_right_second_derivatives():
    norm = trained().eval()
    assert gradgradcheck(norm, (double(4, 3, 2).requires_grad_(),))


# --- the module ----------------------------------------------------------------------------------------


def test_names_shapes_and_first_values():
    norm = BatchNorm(3)
    values = norm.state_dict()
    assert list(values) == ["gamma", "beta", "running_mean", "running_var"]
    assert [value.tolist() for value in values.values()] == [[1] * 3, [0] * 3, [0] * 3, [1] * 3]
    assert [name for name, _ in norm.named_parameters()] == ["gamma", "beta"]
    assert repr(norm) == "BatchNorm(3, eps=1e-05, momentum=0.1)"


def test_a_saved_state_comes_back():
    norm, file = trained(), io.BytesIO()
    torch.save(norm.state_dict(), file)
    file.seek(0)
    other = BatchNorm(3, eps=1e-3).double()
    other.load_state_dict(torch.load(file))
    x = double(4, 3, 2, seed=7)
    assert torch.equal(other.eval()(x), norm.eval()(x))
    with pytest.raises(RuntimeError, match="size mismatch"):
        BatchNorm(4).load_state_dict(norm.state_dict())


def test_a_deep_copy_goes_its_own_way():
    norm = trained()
    before = norm.running_mean.clone()
    norm(double(8, 3)).sum().backward()
    other = copy.deepcopy(norm)
    kept = norm.running_mean.clone()
    other(double(8, 3, seed=5))
    assert torch.equal(norm.running_mean, kept)
    assert not torch.equal(other.running_mean, kept)
    assert not torch.equal(kept, before)
    with torch.no_grad():
        other.gamma.add_(1)
    assert not torch.equal(norm.gamma, other.gamma)


def test_only_inputs_are_saved():
    norm, x = BatchNorm(3), torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    saved = norm(x).grad_fn.saved_tensors
    assert [s.data_ptr() for s in saved] == [x.data_ptr(), norm.gamma.data_ptr()]


@pytest.mark.parametrize("create_graph", [False, True])
def test_nothing_outlives_the_graph(create_graph):
    """Without the garbage collector: a circle would keep every batch in memory until it runs."""
    norm = BatchNorm(3)
    gc.collect()
    gc.disable()
    try:
        x = torch.randn(8, 3, requires_grad=True)
        y = norm(x)
        loss = y.tanh().sum()
        gradient = torch.autograd.grad(loss, x, create_graph=create_graph)[0]
        watched = [weakref.ref(a) for a in (x, y, loss, y.grad_fn, gradient)]
        del x, y, loss, gradient
        assert [ref() for ref in watched] == [None] * 5
    finally:
        gc.enable()


def test_the_output_may_be_changed_in_place_and_the_input_may_not():
    x, gamma, beta = inputs((6, 3))
    dy = double(6, 3, seed=3)
    wanted = torch.autograd.grad(torch.relu(reference(x, gamma, beta, 1e-5)), (x, gamma, beta), dy)
    got = torch.autograd.grad(torch.relu_(Normalize.apply(x, gamma, beta, 1e-5)), (x, gamma, beta), dy)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)
    h = x * 1
    y = Normalize.apply(h, gamma, beta, 1e-5)
    h.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_net_trains_step_for_step_as_with_torchs_module():
    losses = []
    for make in (BatchNorm, torch.nn.BatchNorm1d):
        layers = torch.nn.Linear(4, 8), make(8), torch.nn.ReLU(), torch.nn.Linear(8, 1)
        net = torch.nn.Sequential(*layers).double()
        for i in (0, 3):
            for j, p in enumerate(layers[i].parameters()):
                p.data = double(*p.shape, seed=10 * i + j)
        x, target = double(32, 4, seed=90), double(32, 1, seed=91)
        sgd, history = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9), []
        for _ in range(30):
            loss = (net(x) - target).square().mean()
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            history.append(float(loss.detach()))
        history.append(float((net.eval()(x) - target).square().mean().detach()))
        losses.append(history)
    assert losses[0][-2] < 0.5 * losses[0][0]
    np.testing.assert_allclose(*losses, rtol=1e-9)


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(channels=0), "channels must be a whole number from 1 up, got 0"),
        (dict(channels=2.0), "got 2.0"),
        (dict(channels=2, eps=-1e-5), "eps must be a number from 0 up, got -1e-05"),
        (dict(channels=2, eps=float("nan")), "got nan"),
        (dict(channels=2, eps=None), "got None"),
        (dict(channels=2, momentum=1.1), "from 0 to 1, got 1.1"),
        (dict(channels=2, momentum=None), "got None"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        BatchNorm(**arguments)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(3), ValueError, r"2 to 5 axes, got shape \(3,\)"),
        (torch.zeros(2, 3, 1, 1, 1, 1), ValueError, "2 to 5 axes"),
        (torch.zeros(4, 2), ValueError, r"3 channels on axis 1, got shape \(4, 2\)"),
        (torch.zeros(4, 5, 3), ValueError, r"3 channels on axis 1, got shape \(4, 5, 3\)"),
        (torch.zeros(4, 3, dtype=torch.int64), TypeError, "must be float32 or float64, got torch.int64"),
        (torch.zeros(4, 3, dtype=torch.float16), TypeError, "got torch.float16"),
        (torch.zeros(4, 3, dtype=torch.float64), TypeError, "x is torch.float64, the parameters are torch.float32"),
    ],
)
def test_input_that_does_not_fit(x, error, message, training):
    norm = BatchNorm(3).train(training)
    with pytest.raises(error, match=message):
        norm(x)
    with pytest.raises(error, match=message):
        check_input(x, 3, torch.float32)
    assert torch.equal(norm.running_mean, torch.zeros(3))  # no half of an update


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1), (0, 3), (4, 3, 0)])
def test_training_needs_two_values_per_channel(shape):
    norm = BatchNorm(3)
    with pytest.raises(ValueError, match="more than one value per channel"):
        norm(torch.zeros(shape))
    assert norm.eval()(torch.zeros(shape)).shape == shape


@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567])
def test_a_constant_channel_needs_eps(value):
    x, gamma, beta = inputs((6, 3, 4))
    x = torch.cat([torch.full((6, 1, 4), value, dtype=torch.float64), x[:, :2].detach()], 1)
    with pytest.raises(ValueError, match=r"eps = 0 needs a positive variance: channels \[0\] are constant"):
        Normalize.apply(x, gamma, beta, 0.0)
    torch.testing.assert_close(Normalize.apply(x, gamma, beta, 1e-5)[:, 0], beta[0].expand(6, 4))
    assert torch.isfinite(Normalize.apply(x[:, 1:], gamma[1:], beta[1:], 0.0)).all()


def test_a_run_that_diverges_raises_nothing():
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    x[0, 1] = float("inf")
    norm = BatchNorm(3)
    y = norm(x)
    assert y[:, 1].isnan().any()
    assert y[:, [0, 2]].isfinite().all()


def test_every_axis_but_that_of_the_channels_is_averaged():
    y = BatchNorm(3)(torch.from_numpy(draw((4, 3, 2, 3, 2), np.float32, offset=3)[0])).detach().numpy()
    np.testing.assert_allclose(y.mean(axes_of(y)), 0, atol=1e-6)
    np.testing.assert_allclose(y.var(axes_of(y)), 1, rtol=1e-4)


# --- group normalization -----------------------------------------------------------------------------------

GROUPED = [(2, 6), (1, 12), (5, 6, 4), (4, 6, 5, 2), (1, 6, 2, 2), (2, 6, 2, 3, 2)]


def affine(norm, seed=30):
    """The same layer in float64 with a scale and a shift that differ from channel to channel."""
    norm = norm.double()
    with torch.no_grad():
        for i, parameter in enumerate(norm.parameters()):
            parameter.copy_(double(*parameter.shape, seed=seed + i))
    return norm


def derivatives(norm, x, dy):
    """Output and gradients of input, scale and shift."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = norm(x)
    scale, shift = norm.parameters()
    return [y.detach(), *torch.autograd.grad(y, (x, scale, shift), dy)]


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("shape", GROUPED)
def test_group_normalization_in_float64_is_torchs(shape, groups):
    x, dy = double(*shape, seed=1) * 3 + 5, double(*shape, seed=2)
    ours, theirs = GroupNorm(shape[1], 1e-3, groups), torch.nn.GroupNorm(groups, shape[1], 1e-3)
    for got, wanted in zip(derivatives(affine(ours), x, dy), derivatives(affine(theirs), x, dy), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


def test_group_normalization_of_memory_with_channels_last():
    x = (double(3, 6, 4, 4) + 2).contiguous(memory_format=torch.channels_last)
    ours, theirs = affine(GroupNorm(6, groups=2)), affine(torch.nn.GroupNorm(2, 6))
    for got, wanted in zip(derivatives(ours, x, x.cos()), derivatives(theirs, x, x.cos()), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 4), (2, 4, 3), (2, 4, 2, 2)])
def test_group_normalization_has_right_first_and_second_derivatives(shape):
    norm = affine(GroupNorm(4, eps=1e-2, groups=2))

    def apply(x, gamma, beta):
        return functional_call(norm, {"gamma": gamma, "beta": beta}, (x,))

    assert gradcheck(apply, inputs(shape))
    assert gradgradcheck(apply, inputs(shape))


def test_groups_of_channels_far_apart_would_be_seen():
    """The group of channel c is c // 2 here and not c % 3, as a wrong reshape has it."""
    x, order = double(4, 6, 5), [0, 3, 1, 4, 2, 5]
    wrong = torch.empty_like(x)
    wrong[:, order] = GroupNorm(6, groups=3).double()(x[:, order])
    right = torch.nn.functional.group_norm(x, 3)
    assert (wrong - right).abs().max() > 0.1


def test_one_group_is_layer_normalization_and_a_group_a_channel_is_instance_normalization():
    x = double(4, 6, 5, 2)
    torch.testing.assert_close(GroupNorm(6, groups=1).double()(x), F.layer_norm(x, x.shape[1:]))
    torch.testing.assert_close(GroupNorm(6, groups=6).double()(x), F.instance_norm(x))


def test_no_sample_of_group_normalization_sees_another_and_evaluation_changes_nothing():
    norm, x = affine(GroupNorm(6, groups=2)), double(5, 6, 4)
    whole = norm(x)
    torch.testing.assert_close(torch.cat([norm(one) for one in x.split(1)]), whole)
    assert torch.equal(norm.eval()(x), whole)
    assert [name for name, _ in norm.named_buffers()] == []
    with_batch = affine(BatchNorm(6))
    assert not torch.allclose(torch.cat([with_batch(x[:2]), with_batch(x[2:])]), with_batch(x))


def test_group_normalization_in_float32_with_a_far_mean():
    x = torch.from_numpy(draw((8, 16, 7, 7), np.float32)[0]) * 0.1 + 1000
    y, right = GroupNorm(16)(x), F.group_norm(x.double(), 8)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), right, rtol=0, atol=5e-3)


def test_names_and_first_values_of_group_normalization():
    norm = GroupNorm(16)
    assert {name: value.unique().tolist() for name, value in norm.state_dict().items()} == {"gamma": [1], "beta": [0]}
    assert repr(norm) == "GroupNorm(16, eps=1e-05, groups=8)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(channels=0), "channels must be a whole number from 1 up, got 0"),
        (dict(channels=8, groups=2.0), "groups must be a whole number from 1 up, got 2.0"),
        (dict(channels=6, groups=4), "groups must divide channels and eps be positive, got 6, 4"),
        (dict(channels=8, eps=0), "groups must divide channels and eps be positive, got 8, 8 and 0"),
        (dict(channels=8, eps=float("inf")), "eps must be a number from 0 up, got inf"),
    ],
)
def test_arguments_out_of_range_for_group_normalization(arguments, message):
    with pytest.raises(ValueError, match=message):
        GroupNorm(**arguments)


@pytest.mark.parametrize("training", [True, False])
def test_a_group_needs_two_values(training):
    norm = GroupNorm(4, groups=4).train(training)
    for shape in ((3, 4), (3, 4, 1, 1), (3, 4, 0)):
        with pytest.raises(ValueError, match=r"more than one value per group, got shape \(3, 4.*and 4 groups"):
            norm(torch.zeros(shape))
    assert torch.equal(norm(torch.zeros(3, 4, 2)), torch.zeros(3, 4, 2))
    with pytest.raises(ValueError, match="4 channels on axis 1"):
        norm(torch.zeros(3, 8, 2))
    with pytest.raises(TypeError, match="x is torch.float64"):
        norm(torch.zeros(3, 4, 2, dtype=torch.float64))


# --- ghost batches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ghost", [2, 3, 12])
@pytest.mark.parametrize("shape", [(12, 3), (12, 3, 4), (12, 3, 2, 2)])
def test_ghost_batches_are_batches_of_their_own(shape, ghost):
    x, dy = double(*shape, seed=1) * 2 + 3, double(*shape, seed=2)
    ours = affine(GhostBatchNorm(3, momentum=0.3, ghost=ghost))
    y, dx, dgamma, dbeta = derivatives(ours, x, dy)
    parts, means, variances = [], [], []
    for one, upstream in zip(x.split(ghost), dy.split(ghost), strict=True):
        alone = affine(torch.nn.BatchNorm1d(3, momentum=1.0))
        parts.append(derivatives(alone, one.reshape(ghost, 3, -1), upstream.reshape(ghost, 3, -1)))
        means.append(alone.running_mean)
        variances.append(alone.running_var)
    torch.testing.assert_close(y, torch.cat([part[0] for part in parts]).view(shape), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(dx, torch.cat([part[1] for part in parts]).view(shape), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(dgamma, sum(part[2] for part in parts), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(dbeta, sum(part[3] for part in parts), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ours.running_mean, 0.3 * torch.stack(means).mean(0))
    torch.testing.assert_close(ours.running_var, 0.7 + 0.3 * torch.stack(variances).mean(0))


def test_one_ghost_batch_is_the_batch_and_evaluation_is_that_of_batch_normalization():
    x = double(6, 3, 4) + 1
    ghost, plain = GhostBatchNorm(3, ghost=6).double(), BatchNorm(3).double()
    torch.testing.assert_close(ghost(x), plain(x))
    two = GhostBatchNorm(3, ghost=3).double()
    assert not torch.allclose(two(x), plain(x))
    two.load_state_dict(plain.state_dict())
    torch.testing.assert_close(two.eval()(x[:5]), plain.eval()(x[:5]))  # no whole part needed
    assert repr(two) == "GhostBatchNorm(3, eps=1e-05, momentum=0.1, ghost=3)"


@pytest.mark.parametrize("samples", [1, 3, 6])
def test_ghost_batches_fill_the_batch(samples):
    norm = GhostBatchNorm(3, ghost=4)
    with pytest.raises(ValueError, match=f"a batch of {samples} samples is no whole number of parts of 4"):
        norm(torch.zeros(samples, 3))
    assert torch.equal(norm.running_mean, torch.zeros(3))


def test_what_ghost_batches_refuse():
    with pytest.raises(ValueError, match="ghost must be a whole number from 1 up, got 0"):
        GhostBatchNorm(3, ghost=0)
    with pytest.raises(ValueError, match="more than one value per channel and part"):
        GhostBatchNorm(3, ghost=1)(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="whole number of parts"):
        GhostBatchNorm(3)(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="3 channels on axis 1"):
        GhostBatchNorm(3)(torch.zeros(16, 4))
    with pytest.raises(ValueError, match="width must be a whole number"):
        check_arguments(0.1, width="3")
