"""The loss, the training loop, and the two nets the course opens with."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from bnlib import data
from bnlib.scratch.gradcheck import numerical_gradient, scaled_error
from bnlib.scratch.layers import BatchNorm, Linear, ReLU, Sigmoid
from bnlib.scratch.network import Sequential, accuracy, fit, mlp, pixels, sick_net, small_cnn, softmax_cross_entropy
from bnlib.scratch.optimizers import SGD, Adam

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def digits():
    return data.load("mnist5k")


@pytest.fixture
def clouds():
    """Three clouds in the plane: x, labels."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 240)
    centres = np.array([[0, 4], [4, -3], [-4, -3]])
    return (centres[labels] + rng.standard_normal((240, 2))).astype(np.float32), labels


# --- loss ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [0, 1, 30, 1e4, 1e30])
def test_softmax_cross_entropy_agrees_with_torch_also_for_huge_logits(scale, dtype):
    logits = (scale * RNG.standard_normal((20, 7))).astype(dtype)
    labels = RNG.integers(0, 7, 20)
    before = logits.tobytes(), labels.tobytes()
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        loss, dlogits = softmax_cross_entropy(logits, labels)
    assert (logits.tobytes(), labels.tobytes()) == before

    t = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    theirs = torch.nn.functional.cross_entropy(t, torch.tensor(labels))
    theirs.backward()
    tolerance = 64 * np.finfo(dtype).eps
    assert type(loss) is float
    assert dlogits.dtype == dtype
    assert_allclose(loss, theirs.item(), rtol=tolerance)
    assert scaled_error(dlogits, t.grad.numpy()) < tolerance * max(1, min(scale, 30))


def test_softmax_cross_entropy_gradient_by_centred_differences():
    logits, labels = RNG.standard_normal((4, 3)), np.array([0, 2, 2, 1])
    _, dlogits = softmax_cross_entropy(logits, labels)
    numerical = numerical_gradient(lambda v: softmax_cross_entropy(v, labels)[0], logits)
    assert scaled_error(dlogits, numerical) < 1e-8
    assert_allclose(dlogits.sum(1), 0, atol=1e-16)
    assert_allclose(softmax_cross_entropy(np.zeros((4, 3)), labels)[0], np.log(3))


# --- network ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [Sigmoid, ReLU])
def test_the_gradients_of_a_whole_net_agree_with_torch(activation):
    net = mlp([5, 6, 4, 3], seed=2, activation=activation, norm=BatchNorm)
    for layer in net.layers:
        layer.params = {name: RNG.standard_normal(param.shape) for name, param in layer.params.items()}
    x, labels = RNG.standard_normal((9, 5)), RNG.integers(0, 3, 9)
    loss, dlogits = softmax_cross_entropy(net.forward(x), labels)
    dx = net.backward(dlogits)

    squash = {Sigmoid: torch.sigmoid, ReLU: torch.relu}[activation]
    t = {
        (i, key): torch.tensor(v, requires_grad=True) for i, n in enumerate(net.layers) for key, v in n.params.items()
    }
    first = h = torch.tensor(x, requires_grad=True)
    for i, layer in enumerate(net.layers):
        if isinstance(layer, Linear):
            h = torch.nn.functional.linear(h, t[i, "weight"], t[i, "bias"])
        elif isinstance(layer, BatchNorm):
            h = torch.nn.functional.batch_norm(h, None, None, t[i, "gamma"], t[i, "beta"], training=True)
        else:
            h = squash(h)
    theirs = torch.nn.functional.cross_entropy(h, torch.tensor(labels))
    theirs.backward()
    assert_allclose(loss, theirs.item(), rtol=1e-13)
    assert scaled_error(dx, first.grad.numpy()) < 1e-11
    for (i, key), tensor in t.items():
        if key == "bias" and i + 1 < len(net.layers):
            # The transform subtracts the mean, and with it the bias in front of it: its gradient is zero.
            assert np.abs(net.layers[i].grads[key]).max() < 1e-14
        else:
            assert scaled_error(net.layers[i].grads[key], tensor.grad.numpy()) < 1e-11, (i, key)


@pytest.mark.parametrize(
    "build",
    [
        lambda: mlp([5, 6, 4, 3]),
        lambda: mlp([5, 6, 4, 3], norm=BatchNorm),
        lambda: mlp([5, 3]),
        lambda: Sequential([BatchNorm(5), *mlp([5, 4, 3]).layers]),  # the first layer is no Linear
    ],
)
def test_backward_fills_the_same_grads_without_the_gradient_of_the_input(build):
    net = build()
    _, dlogits = softmax_cross_entropy(net.forward(RNG.standard_normal((9, 5))), RNG.integers(0, 3, 9))
    assert net.backward(dlogits).shape == (9, 5)
    full = [layer.grads.copy() for layer in net.layers]
    for layer in net.layers:
        layer.grads = {}
    net.backward(dlogits, to_input=False)
    assert any(full)
    for layer, grads in zip(net.layers, full, strict=True):
        assert layer.grads.keys() == grads.keys() == layer.params.keys()
        for name, grad in grads.items():
            assert_array_equal(layer.grads[name], grad)


def test_backward_and_fit_skip_the_gradient_of_the_input_in_the_first_linear_layer(clouds):
    def asked(dy):
        raise AssertionError("asked for the gradient of its input")

    rng = np.random.default_rng(0)
    net = Sequential([Linear(2, 4, rng), Sigmoid(), Linear(4, 3, rng)])
    net.layers[0].backward = asked
    _, dlogits = softmax_cross_entropy(net.forward(clouds[0]), clouds[1])
    with pytest.raises(AssertionError, match="asked"):
        net.backward(dlogits)
    assert net.backward(dlogits, to_input=False) is None
    assert fit(net, *clouds, lr=0.5, steps=200, validation=clouds)[-1]["accuracy"] > 0.9


def test_a_first_layer_of_ones_own_is_asked_for_its_backward_pass(clouds):
    class Mine(Linear):
        def backward(self, dy):
            self.called = True
            return super().backward(dy)

    rng = np.random.default_rng(0)
    net = Sequential([Mine(2, 4, rng), Sigmoid(), Linear(4, 3, rng)])
    fit(net, *clouds, lr=0.5, steps=1, validation=clouds)
    assert net.layers[0].called


def test_activations_are_the_inputs_and_outputs_of_every_layer(clouds):
    net = mlp([2, 5, 3], norm=BatchNorm)
    net.forward(clouds[0])
    outputs = net.activations(clouds[0])
    assert [a.shape[1] for a in outputs] == [2, 5, 5, 5, 3]
    assert outputs[0] is clouds[0]
    assert_array_equal(outputs[-1], net.forward(clouds[0], training=False))
    assert net.layers[1].running.count == 1  # looking is not training
    assert np.abs(net.activations(clouds[0], training=True)[2].mean(0)).max() < 1e-6


def test_sgd_moves_every_parameter_against_its_gradient_in_place():
    net = mlp([3, 4, 2], norm=BatchNorm)
    params = [(layer, name, p, p.copy()) for layer in net.layers for name, p in layer.params.items()]
    _, dlogits = softmax_cross_entropy(net.forward(RNG.standard_normal((6, 3)).astype(np.float32)), np.arange(6) % 2)
    net.backward(dlogits)
    SGD(0.25).step(net)
    assert len(params) == 6
    for layer, name, param, before in params:
        assert layer.params[name] is param
        assert param.dtype == np.float32
        assert_allclose(param, before - 0.25 * layer.grads[name], rtol=1e-6, atol=1e-12)


def test_accuracy_is_a_share_in_evaluation_mode():
    class Echo:
        modes = []

        def forward(self, x, training=True):
            self.modes.append(training)
            return x

    logits = np.array([[3, 1, 0], [0, 1, 5], [0, 9, 1], [2, 1, 0.0]])
    assert accuracy(Sequential([Echo()]), logits, np.array([0, 2, 1, 2])) == 0.75
    assert Echo.modes == [False]


@pytest.mark.parametrize("norm", [None, BatchNorm])
def test_mlp_is_linear_norm_activation_and_ends_in_linear(norm):
    net = mlp([8, 5, 4, 3], activation=ReLU, norm=norm)
    hidden = ["Linear", "ReLU"] if norm is None else ["Linear", "BatchNorm", "ReLU"]
    assert [type(layer).__name__ for layer in net.layers] == [*hidden, *hidden, "Linear"]


@pytest.mark.parametrize("build", [lambda norm, seed: mlp([8, 5, 4, 3], seed=seed, norm=norm), sick_net])
def test_the_same_seed_gives_the_same_weights_with_and_without_norm(build):
    def weights(norm, seed):
        return [layer.params["weight"] for layer in build(norm, seed).layers if isinstance(layer, Linear)]

    for plain, normed, other in zip(weights(None, 3), weights(BatchNorm, 3), weights(None, 4), strict=True):
        assert_array_equal(plain, normed)
        assert np.abs(plain - other).max() > 0


# --- fit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [None, BatchNorm])
def test_fit_learns_and_repeats_itself_to_the_last_bit(clouds, norm):
    def history(seed):
        net = mlp([2, 8, 3], seed=5, norm=norm)
        return fit(net, *clouds, lr=0.5, steps=101, batch=32, every=25, validation=clouds, seed=seed)

    first = history(0)
    assert [row["step"] for row in first] == [25, 50, 75, 100, 101]
    assert all(set(row) == {"step", "loss", "accuracy"} for row in first)
    assert first[-1]["accuracy"] > 0.95
    assert first[-1]["loss"] < first[0]["loss"]
    assert history(0) == first
    assert history(1) != first


def test_fit_uses_every_sample_once_an_epoch_and_changes_no_data(clouds):
    class Spy(Linear):
        seen = []

        def forward(self, x, training=True):
            if training:
                self.seen.append(x.copy())
            return super().forward(x, training)

    x, labels = clouds
    before = x.tobytes(), labels.tobytes()
    net = Sequential([Spy(2, 3, np.random.default_rng(0))])
    fit(net, x, labels, lr=0.1, steps=14, batch=32, validation=(x[:50], labels[:50]))
    assert (x.tobytes(), labels.tobytes()) == before
    assert {len(batch) for batch in Spy.seen} == {32}
    for epoch in (Spy.seen[:7], Spy.seen[7:]):  # 240 samples give 7 batches of 32; 16 are left out
        rows = np.concatenate(epoch)
        assert len(np.unique(rows, axis=0)) == 224
    assert np.abs(np.concatenate(Spy.seen[:7]) - np.concatenate(Spy.seen[7:])).max() > 0


@pytest.mark.parametrize(
    ("every", "evaluated"),
    [
        ([3, 10], [3, 10, 12]),
        ((10, 3, 10), [3, 10, 12]),
        ({3, 10, 12}, [3, 10, 12]),
        (range(3, 12, 4), [3, 7, 11, 12]),
        (np.array([3, 10]), [3, 10, 12]),
        ((step for step in (3, 10)), [3, 10, 12]),
        ([5, 99], [5, 12]),  # steps that never come
        ([], [12]),
        (5, [5, 10, 12]),
        (np.int64(6), [6, 12]),
        (99, [12]),
    ],
)
def test_fit_evaluates_after_the_steps_it_is_given_and_after_the_last(clouds, every, evaluated):
    def history(every):
        return fit(mlp([2, 6, 3], norm=BatchNorm), *clouds, lr=0.5, steps=12, every=every, validation=clouds)

    rows = history(every)
    assert [row["step"] for row in rows] == evaluated
    assert rows == [row for row in history(1) if row["step"] in evaluated]  # looking does not change the training


def test_fit_steps_with_the_optimizer_it_is_given(clouds):
    class Spy(SGD):
        made, stepped = [], []

        def __init__(self, lr):
            self.made.append(lr)
            super().__init__(lr)

        def step(self, net):
            self.stepped.append((self, net))
            super().step(net)

    def history(**options):
        net = mlp([2, 6, 3])
        return net, fit(net, *clouds, lr=0.125, steps=9, every=1, validation=clouds, **options)

    net, rows = history(optimizer=Spy)
    assert Spy.made == [0.125]
    assert len(Spy.stepped) == 9
    assert len({id(optimizer) for optimizer, _ in Spy.stepped}) == 1  # one object, or it would forget
    assert all(stepped is net for _, stepped in Spy.stepped)
    assert rows == history()[1]  # plain SGD is what one gets without asking


def test_fit_hands_the_gradients_of_the_batch_to_the_optimizer(clouds):
    net = mlp([2, 6, 3])
    start = [(p, p.copy()) for layer in net.layers for p in layer.params.values()]
    fit(net, *clouds, lr=0.125, steps=1, optimizer=Adam, validation=clouds)
    for param, before in start:
        assert_allclose(np.abs(param - before), 0.125, rtol=1e-3)  # Adam's first step is lr for every parameter


def test_fit_adds_the_entries_of_the_probe_to_each_row(clouds):
    net, seen = mlp([2, 6, 3]), []

    def probe(probed, step):
        assert probed is net
        seen.append(step)
        entries = {"bias": probed.layers[-1].params["bias"].tolist(), "again": accuracy(probed, *clouds)}
        return entries if step > 3 else {}

    rows = fit(net, *clouds, lr=0.5, steps=12, every=[3, 7], validation=clouds, probe=probe)
    assert seen == [3, 7, 12]
    plain = fit(mlp([2, 6, 3]), *clouds, lr=0.5, steps=12, every=[3, 7], validation=clouds)
    assert [{key: row[key] for key in ("step", "loss", "accuracy")} for row in rows] == plain
    assert rows[0] == plain[0]
    assert [row.keys() - plain[0].keys() for row in rows[1:]] == [{"bias", "again"}] * 2
    assert all(row["again"] == row["accuracy"] for row in rows[1:])  # the net after the step, as the accuracy has it
    assert rows[-1]["bias"] == net.layers[-1].params["bias"].tolist()
    assert rows[1]["bias"] != rows[2]["bias"]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_fit_does_not_probe_a_net_that_has_diverged(clouds):
    seen = []
    net = mlp([2, 16, 16, 3], activation=ReLU)
    rows = fit(
        *(net, *clouds),
        lr=1e30,
        steps=50,
        every=1,
        validation=clouds,
        probe=lambda net, step: seen.append(step) or {},
    )
    assert np.isnan(rows[-1]["loss"])
    assert seen == [row["step"] for row in rows[:-1]]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("every", [1, 50])
@pytest.mark.parametrize("norm", [None, BatchNorm])
@pytest.mark.parametrize("lr", [1e20, 1e30, 1e39])
def test_fit_records_divergence_as_a_row_and_stops(clouds, norm, lr, every):
    net = mlp([2, 16, 16, 3], activation=ReLU, norm=norm)
    history = fit(net, *clouds, lr=lr, steps=50, every=every, validation=clouds)
    *_, last = history
    assert np.isnan(last["loss"])
    assert last["accuracy"] == 1 / 3
    assert last["step"] < 50
    assert all(np.isfinite(row["loss"]) for row in history[:-1])


def test_fit_refuses_what_does_not_fit(clouds):
    x, labels = clouds
    net = mlp([2, 4, 3])
    with pytest.raises(ValueError, match=r"\(240, 2\).*\(239,\)"):
        fit(net, x, labels[:-1], lr=0.1, steps=1, validation=clouds)
    with pytest.raises(ValueError, match="at least batch = 241"):
        fit(net, x, labels, lr=0.1, steps=1, batch=241, validation=clouds)
    with pytest.raises(ValueError, match=r"\(N, 2\).*\(64, 1\)"):
        fit(net, x[:, :1], labels, lr=0.1, steps=1, validation=clouds)


@pytest.mark.parametrize(
    ("building", "progress", "shown"),
    [("", None, True), ("1", None, False), ("1", True, True), ("", False, False)],
)
def test_fit_shows_progress_but_not_on_built_pages(clouds, capsys, monkeypatch, building, progress, shown):
    monkeypatch.setenv("BNLIB_BUILD", building)
    fit(mlp([2, 4, 3]), *clouds, lr=0.1, steps=3, validation=clouds, progress=progress)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("lr 0.1" in err) == shown


# --- the sick net ----------------------------------------------------------------------------------


def test_pixels_are_float32_vectors_near_mean_0_and_variance_1(digits):
    x = pixels(digits.x_train)
    assert x.shape == (len(digits.x_train), 784)
    assert x.dtype == np.float32
    assert abs(x.mean()) < 0.05
    assert abs(x.std() - 1) < 0.05


@pytest.mark.parametrize("seed", range(3))
def test_the_sick_net_does_not_learn_and_batchnorm_heals_it(digits, seed):
    x, validation = pixels(digits.x_train), (pixels(digits.x_val), digits.y_val)
    final = {}
    for norm, steps in ((None, 100), (BatchNorm, 200)):
        net = sick_net(norm, seed)
        final[norm] = fit(net, x, digits.y_train, lr=0.3, steps=steps, validation=validation, seed=seed)[-1]
    assert final[None]["accuracy"] < 0.2
    assert final[None]["loss"] > 2.2  # chance is log 10 = 2.30
    assert final[BatchNorm]["accuracy"] > 0.8


def test_accuracy_goes_through_many_samples_in_pieces():
    class Echo:
        def forward(self, x, training):
            assert len(x) <= 500
            return x

    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(1203, 4)), rng.integers(0, 4, 1203)
    assert accuracy(Sequential([Echo()]), logits, labels) == np.mean(logits.argmax(1) == labels)


@pytest.mark.parametrize("norm", [None, BatchNorm])
def test_the_small_cnn_learns_real_digits_in_seconds(norm, digits):
    train, validation = (pixels(x).reshape(-1, 1, 28, 28) for x in (digits.x_train, digits.x_val))
    net = small_cnn(norm)
    history = fit(
        net, train, digits.y_train, lr=0.1, steps=150, validation=(validation, digits.y_val), progress=False
    )
    assert history[-1]["accuracy"] > 0.9
    assert (norm is None) == (not any(isinstance(layer, BatchNorm) for layer in net.layers))
    first = [np.array(layer.params["weight"]) for layer in small_cnn(norm).layers if "weight" in layer.params]
    for weight, other in zip(
        first, (layer.params["weight"] for layer in small_cnn().layers if "weight" in layer.params), strict=True
    ):
        assert_array_equal(weight, other)


def test_a_first_convolution_leaves_out_the_gradient_of_its_input():
    net = small_cnn()
    x = np.random.default_rng(0).normal(size=(3, 1, 28, 28)).astype(np.float32)
    dy = np.ones_like(net.forward(x))
    assert net.backward(dy, to_input=False) is None
    grads = net.layers[0].grads["weight"]
    net.forward(x)
    assert net.backward(dy).shape == x.shape
    assert_array_equal(net.layers[0].grads["weight"], grads)


def test_a_function_says_when_to_evaluate_and_another_when_to_stop(clouds):
    asked = []

    def every(step, history):
        asked.append((step, len(history)))
        return step in (2, 3, 7)

    options = {"lr": 0.1, "steps": 10, "validation": clouds, "batch": 20, "progress": False}
    whole = fit(mlp([2, 5, 3]), *clouds, every=every, **options)
    assert [row["step"] for row in whole] == [2, 3, 7, 10]  # the last step is always one
    assert asked == [(1, 0), (2, 0), (3, 1), *((step, 2) for step in (4, 5, 6, 7)), (8, 3), (9, 3)]
    short = fit(mlp([2, 5, 3]), *clouds, every=every, until=lambda history: len(history) == 3, **options)
    assert short == whole[:3]
