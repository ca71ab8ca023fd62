"""What the functions refuse, and that the message says what was expected and what came."""

import re

import numpy as np
import pytest
import torch

from bnlib.scratch.batchnorm import (
    RunningStatistics,
    batchnorm_backward,
    batchnorm_backward_staged,
    batchnorm_forward,
    batchnorm_inference,
    fold,
)
from bnlib.scratch.checks import check_eps, count

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 3, 4))
ONES, ZEROS = np.ones(3), np.zeros(3)
WEIGHT = RNG.standard_normal((3, 2, 5))


def raises(error, *parts):
    """``pytest.raises`` whose message holds every one of ``parts``, in this order."""
    return pytest.raises(error, match="(?s)" + ".*".join(re.escape(str(part)) for part in parts))


# Every function that takes x, called with nothing but x changed.
TAKES_X = {
    "forward": lambda x: batchnorm_forward(x, ONES, ZEROS),
    "inference": lambda x: batchnorm_inference(x, ONES, ZEROS, ZEROS, ONES),
    "update": lambda x: RunningStatistics(channels=3).update(x),
}
TRAINS = {name: TAKES_X[name] for name in ("forward", "update")}
BACKWARDS = [batchnorm_backward, batchnorm_backward_staged]
EPS_CALLS = {
    "forward": lambda eps: batchnorm_forward(X, ONES, ZEROS, eps),
    "inference": lambda eps: batchnorm_inference(X, ONES, ZEROS, ZEROS, ONES, eps),
    "fold": lambda eps: fold(WEIGHT, None, ONES, ZEROS, ZEROS, ONES, eps),
}


def test_values_per_channel_are_counted_over_the_batch_and_the_spatial_axes():
    assert [count(np.empty(shape)) for shape in [(6, 3), (6, 3, 4), (2, 3, 4, 5)]] == [6, 24, 40]


@pytest.mark.parametrize("call", TAKES_X.values(), ids=TAKES_X)
class TestInput:
    @pytest.mark.parametrize("shape", [(), (3,)])
    def test_rank(self, call, shape):
        with raises(ValueError, "(N, C, *spatial)", shape):
            call(np.ones(shape))

    @pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4), (6, 3, 0), (6, 0)])
    def test_empty(self, call, shape):
        with raises(ValueError, "empty", shape):
            call(np.ones(shape))

    @pytest.mark.parametrize("shape", [(6, 2), (6, 4, 4), (3, 6)])
    def test_channels(self, call, shape):
        with raises(ValueError, (shape[1],), shape, (3,)):
            call(RNG.standard_normal(shape))

    @pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "bool", "float16", "longdouble", "complex128"])
    def test_dtype(self, call, dtype):
        with raises(TypeError, "float32 or float64", np.dtype(dtype)):
            call(np.ones((6, 3), dtype))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_not_finite(self, call, value, dtype):
        x = np.ones((6, 3), dtype)
        x[2, 1] = value
        with raises(ValueError, "(6, 3)", "1 NaN or infinite"):
            call(x)


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1), (1, 3, 1, 1), (1, 3, 1, 1, 1)])
def test_one_value_per_channel_is_refused_in_training_as_torch_does(shape):
    for call in TRAINS.values():
        with raises(ValueError, "more than one value per channel", shape):
            call(np.ones(shape))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        torch.nn.functional.batch_norm(torch.ones(shape), None, None, training=True)
    assert TAKES_X["inference"](np.ones(shape)).shape == shape  # evaluation takes a single sample


@pytest.mark.parametrize("position", range(2))
@pytest.mark.parametrize("name", ["gamma", "beta"])
class TestAffine:
    def call(self, name, value, position):
        affine = {"gamma": ONES, "beta": ZEROS, name: value}
        return [
            lambda: batchnorm_forward(X, **affine),
            lambda: batchnorm_inference(X, **affine, mean=ZEROS, var=ONES),
        ][position]()

    @pytest.mark.parametrize("shape", [(), (1,), (4,), (3, 1), (6, 3, 4)])
    def test_shape(self, name, position, shape):
        with raises(ValueError, name, (3,), X.shape, shape):
            self.call(name, np.ones(shape), position)

    def test_dtype(self, name, position):
        with raises(TypeError, name, "float16"):
            self.call(name, np.ones(3, np.float16), position)
        with raises(TypeError, name, "int64"):
            self.call(name, np.ones(3, np.int64), position)

    def test_not_finite(self, name, position):
        with raises(ValueError, name, "2 NaN or infinite"):
            self.call(name, np.array([np.nan, 1, np.inf]), position)


@pytest.mark.parametrize("name", ["mean", "var"])
def test_statistics_must_fit_the_channels(name):
    statistics = {"mean": ZEROS, "var": ONES}
    for call in (
        lambda **given: batchnorm_inference(X, ONES, ZEROS, **given),
        lambda **given: fold(WEIGHT, None, ONES, ZEROS, **given),
    ):
        with raises(ValueError, name, (3,), (2,)):
            call(**{**statistics, name: np.ones(2)})
        with raises(TypeError, name, "float16"):
            call(**{**statistics, name: np.ones(3, np.float16)})
        with raises(ValueError, name, "NaN"):
            call(**{**statistics, name: np.full(3, np.nan)})


def test_a_negative_variance_is_refused():
    with raises(ValueError, "var must not be negative", -0.25):
        batchnorm_inference(X, ONES, ZEROS, ZEROS, np.array([1, -0.25, 1]))
    with raises(ValueError, "var must not be negative", -0.25):
        fold(WEIGHT, None, ONES, ZEROS, ZEROS, np.array([1, -0.25, 1]))


@pytest.mark.parametrize("call", EPS_CALLS.values(), ids=EPS_CALLS)
@pytest.mark.parametrize("eps", [-1e-5, np.nan, np.inf, None, np.array([1e-5, 1e-5])])
def test_eps_must_be_a_number_from_0_up(call, eps):
    with raises(ValueError, "eps must be a number from 0 up", repr(eps)):
        call(eps)


@pytest.mark.parametrize("eps", [0, 0.0, 1e-5, np.float32(0.5), np.float64(0.5)])
def test_eps_is_taken_from_python_and_numpy_numbers(eps):
    assert check_eps(eps) == eps
    assert type(check_eps(eps)) is float
    for call in EPS_CALLS.values():
        call(eps)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4 + 0.1, -np.pi])
@pytest.mark.parametrize("m", [2, 3, 10, 999])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_eps_0_with_a_constant_channel_names_the_channel(dtype, m, value):
    # The mean of equal values is often rounded: the variance must come out as zero all the same.
    x = RNG.standard_normal((m, 3)).astype(dtype)
    x[:, 1] = value
    with raises(ValueError, "eps = 0", "[1]", "constant"):
        batchnorm_forward(x, ONES, ZEROS, eps=0)
    y, _ = batchnorm_forward(x, ONES, ZEROS + 2, eps=1e-12)
    assert (y[:, 1] == 2).all()


def test_eps_0_with_a_variance_of_0_is_refused_in_evaluation():
    var = np.array([1, 0.0, 1])
    with raises(ValueError, "eps = 0", "[1]"):
        batchnorm_inference(X, ONES, ZEROS, ZEROS, var, eps=0)
    with raises(ValueError, "eps = 0", "[1]"):
        fold(WEIGHT, None, ONES, ZEROS, ZEROS, var, eps=0)


@pytest.mark.parametrize("momentum", [-0.1, 1.1, 10, np.nan, np.inf])
def test_momentum_out_of_range(momentum):
    with raises(ValueError, "from 0 to 1, or None", momentum):
        RunningStatistics(momentum)


def test_a_refused_batch_leaves_the_running_statistics_alone():
    running = RunningStatistics()
    running.update(X)
    before = running.mean.copy(), running.var.copy(), running.count
    for bad in (np.ones((1, 3)), np.full((6, 3), np.nan), np.ones((6, 2))):
        with pytest.raises(ValueError, match="shape"):
            running.update(bad)
    assert running.count == before[2]
    np.testing.assert_array_equal(running.mean, before[0])
    np.testing.assert_array_equal(running.var, before[1])


@pytest.mark.parametrize("backward", BACKWARDS)
def test_dy_must_fit(backward):
    _, cache = batchnorm_forward(X, ONES, ZEROS)
    for shape in [(6, 3), (6, 3, 1), (6, 3, 5), (3,), ()]:  # some of these would broadcast, and be wrong
        with raises(ValueError, "dy", X.shape, shape):
            backward(np.ones(shape), cache)
    with raises(TypeError, "dy", "int64"):
        backward(np.ones(X.shape, np.int64), cache)
    with raises(TypeError, "dy", "float16"):
        backward(np.ones(X.shape, np.float16), cache)
    with raises(ValueError, "dy", X.size, "NaN"):
        backward(np.full(X.shape, np.nan), cache)


def test_fold_with_a_wrong_weight_or_bias():
    stats = (ONES, ZEROS, ZEROS, ONES)
    for shape in [(), (3,)]:
        with raises(ValueError, "weight must be (out, in)", shape):
            fold(np.ones(shape), None, *stats)
    with raises(ValueError, (4,), (3,)):  # (in, out) handed in for (out, in)
        fold(np.ones((4, 3)), None, *stats)
    with raises(ValueError, "bias", (3,), (2,)):
        fold(WEIGHT, np.ones(2), *stats)
    with raises(TypeError, "weight", "int64"):
        fold(np.ones((3, 2), np.int64), None, *stats)
    with raises(TypeError, "weight", "float16"):
        fold(np.ones((3, 2), np.float16), None, *stats)
    with raises(ValueError, "weight", "6 NaN"):
        fold(np.full((3, 2), np.nan), None, *stats)
    with raises(TypeError, "bias", "int64"):
        fold(WEIGHT, np.ones(3, np.int64), *stats)
