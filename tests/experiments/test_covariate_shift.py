"""Noise behind BN, Definition 2.1, changed images: what is done, what is measured, and claims that can fail."""

import dataclasses

import numpy as np
import pytest
from matplotlib.figure import Figure

from bnlib.data import load
from bnlib.experiments import covariate_shift as experiment
from bnlib.experiments import record, runner
from bnlib.experiments.core import Plan, Refused, grid
from bnlib.experiments.covariate_shift import (
    KINDS,
    LEVELS,
    Shaken,
    build,
    changed,
    claims,
    errors,
    estimated,
    linear_problem,
    moves,
    summarize,
    units_of,
)
from bnlib.scratch.inits import linears
from bnlib.scratch.layers import BatchNorm, ReLU
from bnlib.scratch.network import pixels
from bnlib.theory.covariate_shift import loss_and_gradients, relative_shift, shifted_gradient

FULL = experiment.PRESETS["full"]
IMAGES = load("mnist5k").pairs(pixels)[0][0][:600]


def config(arms=("noise-sgd-none", "noise-sgd-bn", "noise-sgd-noisy", "noise-sgd-none-slow"), steps=60, hidden=3):
    """The full config with few arms, two rates and short runs."""
    plans = {}
    for arm in arms:
        plan = FULL.arms[arm]
        setting = tuple(s | {"lr": lr} for s in plan.settings[:1] for lr in (0.03, 0.1))
        plans[arm] = dataclasses.replace(plan, steps=steps, settings=setting)
    options = FULL.options | {"hidden": hidden}
    return dataclasses.replace(FULL, arms=plans, seeds=(11, 12), tuning_seeds=(1,), options=options)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    arms = (*config().arms, "linear-gaussian-fixed-none", "linear-gaussian-fixed-bn", "real-bn")
    made = config(arms)
    short = {"linear-gaussian-fixed-none": 30, "linear-gaussian-fixed-bn": 30, "real-bn": 40}
    plans = {a: dataclasses.replace(p, steps=short.get(a, p.steps), seeds=None) for a, p in made.arms.items()}
    for arm in ("linear-gaussian-fixed-none", "linear-gaussian-fixed-bn"):
        plans[arm] = dataclasses.replace(plans[arm], settings=FULL.arms[arm].settings)
    made = dataclasses.replace(made, arms=plans)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BNLIB_CELLS", str(tmp_path_factory.mktemp("cells")))
        patch.setattr(record, "RESULTS", tmp_path_factory.mktemp("results"))
        patch.setitem(experiment.PRESETS, "full", made)
        yield runner.run("covariate-shift", "full", progress=False)


# --- the noise


def test_noise_has_the_size_that_was_asked_for():
    x = np.random.default_rng(0).standard_normal((400, 300)).astype(np.float32)
    layer = Shaken(0.5, np.random.default_rng(1))
    a = layer.forward(x)
    assert a.dtype == np.float32
    shift = a.mean(0) - (layer.factor * x).mean(0)
    assert np.abs(shift).max() < 0.52
    assert shift.std() == pytest.approx(1 / np.sqrt(12), rel=0.1)
    of_unit = layer.factor.mean(0)
    assert of_unit.min() > 0.97
    assert of_unit.max() < 1.28
    assert (layer.factor - of_unit).std() == pytest.approx(0.1, rel=0.05)
    assert not np.array_equal(a, layer.forward(x))
    assert layer.forward(x, training=False) is x
    assert layer.backward(x) is x  # after evaluation nothing is scaled


@pytest.mark.parametrize("own_units", [False, True])
def test_the_gradient_passes_through_the_factor(own_units):
    """The output is linear in x where the statistics are held: its derivative is the factor."""
    rng = np.random.default_rng(2)
    x, dy = rng.normal(3, 2, (50, 4)), rng.normal(size=(50, 4))
    layer = Shaken(0.5, np.random.default_rng(3), own_units)
    a = layer.forward(x)
    dx = layer.backward(dy)
    np.testing.assert_allclose(dx, dy * layer.factor)
    if own_units:
        shifted = (a - x.mean(0) - layer.factor * (x - x.mean(0))) / x.std(0)
        assert np.abs(shifted).max() < 0.6
    else:
        assert np.abs(a - layer.factor * x).max() < 0.6


def test_nets_differ_only_in_what_their_arm_says():
    nets = {kind: build(kind, 11, IMAGES, hidden=3) for kind in KINDS}
    for kind, net in nets.items():
        norm, init, noise = KINDS[kind]
        same = [
            np.array_equal(a.params["weight"], b.params["weight"])
            for a, b in zip(linears(net), linears(nets["none"]), strict=True)
        ]
        assert all(same) == (init == "he")
        assert sum(isinstance(layer, BatchNorm) for layer in net.layers) == 3 * (norm == "bn")
        shaken = [i for i, layer in enumerate(net.layers) if isinstance(layer, Shaken)]
        assert len(shaken) == (0 if noise is None else 3 if noise[1] == "all" else 1)
        assert all(isinstance(net.layers[i + 1], ReLU) for i in shaken)
        if shaken:
            assert {net.layers[i].n_mu for i in shaken} == {noise[0]}
            assert net.layers[shaken[-1]].own_units == (norm == "none")
    with pytest.raises(Refused, match="no arm 'noise'.*did you mean noisy"):
        build("noise", 11, IMAGES)


def test_units_are_looked_at_behind_bn_and_the_net_is_left_as_it_is():
    net = build("bn", 11, IMAGES, hidden=3)
    before = net.layers[1].running.mean
    a, u = units_of(net, IMAGES, 1, np.random.default_rng(0))
    assert a.shape == u.shape == (600, 100)
    np.testing.assert_allclose(a.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(u.std(0)[u.std(0) > 0.5], 1, atol=1e-3)
    assert net.layers[1].running.mean is before
    noisy = build("noisy", 11, IMAGES, hidden=3)
    state = noisy.layers[2].rng.bit_generator.state
    first, second = (units_of(noisy, IMAGES, 1, np.random.default_rng(seed)) for seed in (0, 1))
    assert noisy.layers[2].rng.bit_generator.state == state
    assert 0.2 < moves(first, second)["moved"] < 0.45  # 1/3 by eq-cs-moments


def test_moves_are_changes_of_means():
    rng = np.random.default_rng(0)
    a, u = rng.normal(0, 2, (100, 3)), rng.normal(size=(100, 3))
    found = moves((a, u), (a + [1.0, -1.0, 4.0], u + 0.5))
    assert found["moved"] == pytest.approx(2)
    assert found["std"] == pytest.approx(2 / 2, rel=0.2)
    assert found["left"] == pytest.approx(0.5)


# --- the linear net


@pytest.mark.parametrize(("norm", "optimizer"), [("none", "sgd"), ("bn", "sgd"), ("none", "adam")])
def test_the_linear_net_takes_the_steps_that_it_says(norm, optimizer):
    setting = {"init": "orthogonal", "optimizer": optimizer, "norm": norm, "lr": 0.01}
    made = dataclasses.replace(FULL, arms={"linear-x": Plan("generated", 3, grid(**setting))})
    rows = runner.one_cell("covariate-shift", made, "linear-x", 11, setting)["rows"]
    weights, x, target = linear_problem(11, "orthogonal")
    whole = np.square(target).mean()
    loss, gradients = loss_and_gradients(weights, x, target, norm == "bn", 1e-5)
    assert rows[0]["loss"] == pytest.approx(loss / whole)
    step = gradients if optimizer == "sgd" else [np.sign(g) for g in gradients]
    later = [w - 0.01 * g for w, g in zip(weights, step, strict=True)]
    moved = shifted_gradient(weights, later, 12, x, target, norm == "bn", 1e-5)
    close = {"rel": 1e-6} if optimizer == "sgd" else {"rel": 1e-2}  # Adam's epsilon
    assert rows[0]["relative"] == pytest.approx(relative_shift(gradients[12], moved), **close)
    assert rows[1]["loss"] == pytest.approx(
        loss_and_gradients(later, x, target, norm == "bn", 1e-5)[0] / whole, **close
    )


def test_orthogonal_weights_are_orthogonal():
    for w in linear_problem(1, "orthogonal")[0]:
        np.testing.assert_allclose(w @ w.T, np.eye(10), atol=1e-12)
    with pytest.raises(Refused, match="no init 'he'"):
        linear_problem(1, "he")


def test_a_run_that_diverges_is_a_result():
    setting = {"init": "gaussian", "optimizer": "sgd", "norm": "none", "lr": 1e6}
    made = dataclasses.replace(FULL, arms={"linear-x": Plan("generated", 50, grid(**setting))})
    rows = runner.one_cell("covariate-shift", made, "linear-x", 11, setting)["rows"]
    assert np.isnan(rows[-1]["loss"])
    assert summarize(rows)["score"] == -1e9


def test_a_diverged_net_counts_as_guessing():
    rows = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": float("nan")}]
    told = summarize(rows)
    assert told["area"] == pytest.approx((3 + 199 * np.log(10)) / 200)
    assert told["end"] == pytest.approx(np.log(10))


def test_the_shift_at_a_loss_is_the_mean_before_it():
    rows = [{"step": i + 1, "loss": 1 - i / 40, "relative": float(i), "cosine": 1.0} for i in range(30)]
    told = summarize(rows)
    assert told["at_0.9"] == pytest.approx(np.mean(range(5)))  # reached at i = 4
    assert told["at_0.5"] == pytest.approx(np.mean(range(11, 21)))
    assert np.isnan(told["at_0.2"])
    assert told["relative"] == pytest.approx(14.5)
    assert len([key for key in told if key.startswith("at_")]) == len(LEVELS)


# --- changed images


def test_images_are_changed_as_said():
    grey = np.linspace(0, 1, 11)[None].repeat(3, 0)
    np.testing.assert_allclose(changed(grey, "contrast", None)[0, [0, 5, 10]], [0.35, 0.5, 0.65])
    noisy = changed(np.full((200, 100), 0.5), "noise", np.random.default_rng(0))
    assert noisy.min() >= 0
    assert noisy.max() <= 1
    assert 0.24 < noisy.std() < 0.3  # cut at 0 and 1
    with pytest.raises(Refused, match="no change 'blur'"):
        changed(grey, "blur", None)


def test_statistics_taken_again_are_those_of_the_images():
    net = build("bn", 11, IMAGES, hidden=2)
    net.forward(IMAGES)
    again = estimated(net, 0.3 * IMAGES + 2)
    assert net.layers[1].running.mean is not again.layers[1].running.mean
    z = again.layers[0].forward(0.3 * IMAGES + 2)
    np.testing.assert_allclose(again.layers[1].running.mean, z.mean(0), rtol=1e-6)
    labels = net.forward(IMAGES, training=True).argmax(1)
    assert errors(again, 0.3 * IMAGES + 2, labels) < 10  # but for eps the net no longer sees the change
    assert errors(net, 0.3 * IMAGES + 2, labels) > 30


# --- the whole


def test_claims_can_fail(live):
    cells = live.results().copy()
    found = {claim.id: claim for claim in claims(cells)}
    assert found["covariate-shift-noisy-wins"].threshold == 9.0
    for area, verdict in ((0.5, "agrees"), (0.9, "disagrees")):
        cells.loc[cells["arm"] == "noise-sgd-none", "area"] = 1.0
        cells.loc[cells["arm"] == "noise-sgd-noisy", "area"] = area
        changed_claims = {claim.id: claim for claim in claims(cells)}
        assert changed_claims["covariate-shift-noisy-wins"].verdict == verdict
        assert changed_claims["covariate-shift-area-sgd-noisy-none"].measured.value == pytest.approx(area)
    assert {c.verdict for name, c in found.items() if name != "covariate-shift-noisy-wins"} == {"report only"}


def test_the_noise_moves_units_and_learning_does_not_matter(live):
    cells = live.results().set_index("arm")
    assert cells.loc["noise-sgd-noisy", "drawn"].between(0.28, 0.38).all()
    assert cells.loc["noise-sgd-bn", "drawn"].max() < 1e-6
    assert cells.loc["noise-sgd-bn", "moved"].max() < 0.1


def test_the_slow_arm_takes_a_tenth_of_the_rate(live):
    rate = live.chosen["noise-sgd-none"]["setting"]["lr"]
    assert live.chosen["noise-sgd-none-slow"]["setting"]["lr"] == pytest.approx(rate / 10)


def test_a_record_gives_the_same_claims(live, kept):
    kept(live, rel=1e-2)


def test_draw_shows_three_arms(live):
    axes = Figure().subplots()
    experiment.draw(live.rows, axes)
    assert sorted(line.get_label() for line in axes.lines) == ["BN", "BN and noise", "no BN"]
