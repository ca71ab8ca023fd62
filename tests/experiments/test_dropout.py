"""Dropout and BN: what a cell trains and on what, what is measured in it, and what the claims compare."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal

from bnlib.data import load
from bnlib.experiments import core, runner
from bnlib.experiments import dropout as experiment
from bnlib.experiments.dropout import CASES, PRESETS, Decaying, build, claims, evaluate, repaired, variance_shift
from bnlib.page.figures import COLORS
from bnlib.scratch import inits
from bnlib.scratch.layers import BatchNorm, Dropout, Linear, ReLU
from bnlib.scratch.network import Sequential, mlp, softmax_cross_entropy
from bnlib.scratch.noise import BatchNoise
from bnlib.scratch.optimizers import Momentum
from bnlib.theory.dropout import shift_of_weights

FULL = PRESETS["full"]


def small(steps=30, evaluations=(25,), **setting):
    """One arm, "mine", on 200 of 3,500 digits."""
    plan = core.Plan("mnist5k", steps, (setting,))
    return core.Config({"mine": plan}, (31, 32), (3,), options={"batch": 64, "evaluations": list(evaluations)})


def cell(config=None, seed=31, **setting):
    config = config or small()
    setting = {"samples": 200, "horizon": config.arms["mine"].steps} | setting
    return runner.one_cell("dropout", config, "mine", seed, setting)["rows"]


def kinds(net):
    return [type(layer) for layer in net.layers]


# --- the plan


def test_each_kind_of_net_gets_as_many_cells():
    for case in CASES:

        def tried(*names, case=case):
            return sum(len(FULL.arms[f"{case}-{name}"].settings) for name in names)

        dropouts = [f"dropout-{rate:g}" for rate in experiment.DROPPED]
        counts = [tried("none"), tried("bn"), tried("decay"), tried("bn-decay"), tried(*dropouts)]
        counts += [tried(*(f"bn-{name}" for name in dropouts))]
        if CASES[case][3]:
            counts += [tried("quiet"), tried("noise")]
        assert set(counts) == {24}


def test_each_arm_is_what_its_name_says():
    for arm, plan in FULL.arms.items():
        case = next(c for c in CASES if arm.startswith(f"{c}-"))
        kind, (dataset, samples, steps, noise) = arm.removeprefix(f"{case}-"), CASES[case]
        assert (plan.dataset, plan.steps) == (dataset, steps)
        for s in plan.settings:
            assert (s["samples"], s["horizon"]) == (samples, steps)
            assert s["norm"] == ("bn" if kind.startswith("bn") or kind == "quiet" else "none")
            assert (s.get("dropout", 0) > 0) == ("dropout" in kind or "0.5" in kind)
            assert kind.endswith(f"-{s['dropout']:g}") if "dropout" in s else True
            assert ("decay" in s) == ("decay" in kind)
            assert s.get("statistics", "batch") == ("all" if kind == "quiet" else "batch")
            assert s.get("noise", "none") == (noise if kind == "noise" else "none")
            assert s.get("place", "after") == (kind.split("-")[1] if "last" in kind or "before" in kind else "after")
        if plan.like:
            assert set(plan.others) <= set(FULL.arms)
            assert all(other.startswith(case) for other in plan.others)
            assert plan.change == ({"again": True} if kind.endswith("again") else {})
    assert set(experiment.ARMS) == set(FULL.arms) == {a for a in experiment.LOOKS if a in FULL.arms}


def test_the_grids_are_spaced_evenly_and_as_wide_for_all():
    for norm, grids in experiment.RATES.items():
        for rates in grids.values():
            assert_allclose(np.diff(np.log10(rates)), np.log10(rates[-1] / rates[0]) / (len(rates) - 1), atol=3e-3)
        assert (grids["dropout"][0], grids["dropout"][-1]) == (grids["alone"][0], grids["alone"][-1])
        other = experiment.RATES["none"]
        assert_allclose(grids["alone"], np.multiply(other["alone"], np.sqrt(10) if norm == "bn" else 1), rtol=5e-3)
        assert_allclose(grids["decay"], np.multiply(other["decay"], np.sqrt(10) if norm == "bn" else 1), rtol=5e-3)


# --- what a cell is fed


def test_training_images_are_drawn_anew_for_each_seed_and_held_out_ones_are_not():
    data = load("mnist5k")
    x, labels, held_out = experiment.images("mnist5k", 200, 31, tuning=False)
    assert x.shape == (200, 784)
    assert x.dtype == np.float32
    assert len(np.unique(x, axis=0)) == 200
    assert_array_equal(held_out[1], data.y_test)
    assert_array_equal(experiment.images("mnist5k", 200, 31, tuning=True)[2][1], data.y_val)
    again, other = (experiment.images("mnist5k", 200, seed, tuning=False) for seed in (31, 32))
    assert_array_equal(again[0], x)
    assert not np.array_equal(other[0], x)
    assert_array_equal(other[2][0], held_out[0])
    pool = ((data.x_train.reshape(-1, 784) / 255 - 0.13) / 0.31).astype(np.float32)
    place = {row.tobytes(): i for i, row in enumerate(pool)}
    assert_array_equal(labels, data.y_train[[place[row.tobytes()] for row in x]])


def test_clothes_have_their_own_scale_and_too_many_samples_are_refused():
    grey = np.arange(784, dtype=np.uint8).reshape(1, 28, 28)
    assert_allclose(experiment._pixels("fashion-mnist", grey)[0], (grey.ravel() / 255 - 0.286) / 0.353, rtol=1e-5)
    with pytest.raises(ValueError, match="samples must be from 1 to 3500"):
        experiment.images("mnist5k", 3_501, 31, tuning=False)


# --- the nets


def test_arms_of_one_seed_have_the_same_weights():
    nets = [build([7, 1]), build([7, 1], experiment.NORMS["bn"]), build([7, 1], dropout=0.5)]
    nets += [build([7, 1], noise=((0.1, 0.1), (0.1, 0.1)))]
    for net in nets:
        for one, other in zip(inits.linears(nets[0]), inits.linears(net), strict=True):
            assert_array_equal(one.params["weight"], other.params["weight"])
    weight = inits.linears(nets[0])[1].params["weight"]
    assert weight.std() == pytest.approx(np.sqrt(2 / 256), rel=0.02)
    assert not np.array_equal(inits.linears(build([7, 11]))[1].params["weight"], weight)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("after", [Linear, BatchNorm, ReLU, Dropout] * 2 + [Linear]),
        ("last", [Linear, BatchNorm, ReLU] * 2 + [Dropout, Linear]),
        ("before", [Linear, Dropout, BatchNorm, ReLU] * 2 + [Linear]),
    ],
)
def test_dropout_stands_in_its_place(place, expected):
    assert kinds(build([7, 1], BatchNorm, 0.5, place)) == expected
    assert kinds(build([7, 1], BatchNorm, 0.0, place)) == [Linear, BatchNorm, ReLU] * 2 + [Linear]


def test_noise_stands_where_bn_would():
    net = build([7, 1], noise=((0.1, 0.2), (0.3, 0.4)))
    assert kinds(net) == [Linear, BatchNoise, ReLU] * 2 + [Linear]
    assert [(net.layers[i].shift, net.layers[i].scale) for i in (1, 4)] == [(0.1, 0.2), (0.3, 0.4)]


# --- the optimizer


def test_the_rate_falls_on_a_straight_line_to_zero():
    net = build([7, 1])
    for layer in net.layers:
        layer.grads = {key: np.zeros_like(param) for key, param in layer.params.items()}
    optimizer, seen = Decaying(0.4, 4), []
    for _ in range(6):
        optimizer.step(net)
        seen.append(optimizer.lr)
    assert_allclose(seen, [0.4, 0.3, 0.2, 0.1, 0, 0])


def test_decay_pulls_on_the_weights_of_linear_layers_alone():
    net, twin = (build([7, 1], BatchNorm) for _ in range(2))
    rng = np.random.default_rng(0)
    for one, other in zip(net.layers, twin.layers, strict=True):
        for key, param in one.params.items():
            param += rng.normal(size=param.shape).astype(np.float32)
            other.params[key][:] = param
            one.grads[key] = rng.normal(size=param.shape).astype(np.float32)
            pull = 0.01 * param if isinstance(one, Linear) and key == "weight" else 0
            other.grads[key] = one.grads[key] + pull
    Decaying(0.1, 1_000, decay=0.01).step(net)
    Momentum(0.1).step(twin)
    for one, other in zip(net.layers, twin.layers, strict=True):
        for key, param in one.params.items():
            assert_allclose(param, other.params[key], atol=1e-6)


# --- a cell


def test_a_cell_is_measured_at_its_evaluations_and_at_the_end():
    rows = cell()
    assert [row["step"] for row in rows] == [*range(1, 21), 25, 30]
    assert [row["step"] for row in rows if "accuracy" in row] == [25, 30]
    assert [set(row) for row in rows[:20]] == [{"step", "loss"}] * 20
    assert set(rows[-1]) >= {"train_accuracy", "train_loss", "score", "accuracy", "test_loss"}
    tuned = cell(seed=3)
    assert [row["step"] for row in tuned if "accuracy" in row] == [30]


@pytest.mark.parametrize("seed", [31, 3])
@pytest.mark.parametrize("norm", ["none", "bn"])
def test_a_cell_agrees_with_a_loop_of_its_own(seed, norm):
    rows = cell(seed=seed, norm=norm, lr=0.05, decay=0.01)
    x, labels, held_out = experiment.images("mnist5k", 200, seed, tuning=seed == 3)
    net = mlp(experiment.SIZES, 0, ReLU, BatchNorm if norm == "bn" else None)
    inits.he(net, np.random.default_rng([seed, 1]))
    rng, order, velocity, losses = np.random.default_rng(seed), np.empty(0, int), {}, []
    for step in range(30):
        if len(order) < 64:
            order = rng.permutation(200)
        chosen, order = order[:64], order[64:]
        loss, dlogits = softmax_cross_entropy(net.forward(x[chosen]), labels[chosen])
        losses.append(loss)
        net.backward(dlogits)
        for i, layer in enumerate(net.layers):
            for key, param in layer.params.items():
                grad = layer.grads[key] + (0.01 * param if key == "weight" else 0)
                velocity[i, key] = 0.9 * velocity.get((i, key), 0) + grad
                param -= 0.05 * (1 - step / 30) * velocity[i, key]
    assert_allclose([row["loss"] for row in rows[:20]], losses[:20], rtol=1e-3)
    for part, (images, names) in (("accuracy", held_out), ("train_accuracy", (x, labels))):
        logits = net.forward(images, training=False)
        assert rows[-1][part] == pytest.approx((logits.argmax(1) == names).mean(), abs=0.011)
    logits = net.forward(held_out[0], training=False)
    assert rows[-1]["test_loss"] == pytest.approx(softmax_cross_entropy(logits, held_out[1])[0], rel=1e-2)
    assert rows[-1]["score"] == rows[-1]["accuracy"]


def test_measuring_more_often_changes_nothing():
    few, many = cell(small(30, (25,)), norm="bn", dropout=0.5), cell(small(30, range(21, 30)), norm="bn", dropout=0.5)
    assert few[-1] == many[-1]
    assert [row["loss"] for row in few[:20]] == [row["loss"] for row in many[:20]]


def test_pairs_share_the_images_and_the_second_run_of_an_a_a_row_does_too():
    seen = []
    for setting in ({}, {"again": True}):
        rows = cell(**setting)
        seen.append([row["loss"] for row in rows[:20]])
    assert seen[0] != seen[1]
    assert cell()[-1]["train_accuracy"] == cell()[-1]["train_accuracy"]


def test_each_named_value_gives_a_run_of_its_own():
    settings = [{}, {"norm": "bn"}, {"norm": "bn", "statistics": "all"}, {"noise": "mnist"}, {"noise": "fashion"}]
    settings += [{"dropout": 0.2}, {"dropout": 0.5}, {"dropout": 0.5, "place": "last"}, {"decay": 0.1}]
    settings += [{"dropout": 0.5, "place": place, "norm": "bn"} for place in experiment.PLACES]
    runs = [tuple(row["loss"] for row in cell(small(21), **setting)) for setting in settings]
    assert len(set(runs)) == len(runs)


def test_a_function_does_what_the_name_it_stands_for_does():
    own = cell(small(21), norm=lambda units: BatchNorm(units))
    assert_allclose([row["loss"] for row in own], [row["loss"] for row in cell(small(21), norm="bn")], rtol=1e-3)
    pair = cell(small(21), noise=experiment.NOISES["mnist"])
    assert pair == cell(small(21), noise="mnist")


@pytest.mark.parametrize(
    ("setting", "choices"),
    [
        ("norm", "none, bn"),
        ("statistics", "batch, all"),
        ("place", "after, last, before"),
        ("noise", "none, mnist, fashion"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(setting, choices):
    with pytest.raises(core.Refused, match=f"^there is no value 'x': choose from {choices}$"):
        cell(**{setting: "x"})


def test_a_run_that_diverges_is_at_chance():
    rows = cell(lr=1e6)
    assert np.isnan(rows[-1]["loss"])
    assert (rows[-1]["step"], rows[-1]["accuracy"], rows[-1]["score"]) == (30, 0.1, 0.1)
    assert experiment.summarize(rows)["gap"] == 0


def test_the_schedule_does_not_depend_on_where_the_run_is_cut():
    """The ledger reruns the first 20 steps of a cell and compares their losses."""
    whole, cut = cell(small(30)), cell(small(21), horizon=30)
    assert [row["loss"] for row in cut[:20]] == [row["loss"] for row in whole[:20]]


def test_summaries_are_of_the_last_row():
    rows = cell(norm="bn", dropout=0.5)
    summary = experiment.summarize(rows)
    assert summary["gap"] == rows[-1]["train_accuracy"] - rows[-1]["accuracy"]
    assert {"repaired", "repaired_loss", "noise_sizes", "shift", "formula", "shift_start", "formula_start"} < set(
        summary
    )
    assert "shift" not in experiment.summarize(cell(norm="bn", dropout=0.5, place="last"))
    assert "repaired" not in experiment.summarize(cell(dropout=0.5))
    assert "repaired" not in experiment.summarize(cell(norm="bn", seed=3))


# --- what is measured in it


@pytest.fixture(scope="module")
def trained():
    """A net with BN and dropout 0.5 after each ReLU, its 200 images and the held-out pair."""
    x, labels, held_out = experiment.images("mnist5k", 200, 31, tuning=False)
    net, optimizer, rng = build([31, 1], BatchNorm, 0.5), Decaying(0.1, 60), np.random.default_rng(0)
    for _ in range(60):
        chosen = rng.choice(200, 64, replace=False)
        _, dlogits = softmax_cross_entropy(net.forward(x[chosen]), labels[chosen])
        net.backward(dlogits, to_input=False)
        optimizer.step(net)
    return net, x, held_out


def test_accuracy_and_loss_are_those_of_one_pass(trained):
    net, x, _ = trained
    labels = np.arange(200) % 10
    logits = net.forward(x, training=False).astype(float)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    right, loss = evaluate(net, np.tile(x, (4, 1)), np.tile(labels, 4))
    assert right == (logits.argmax(1) == labels).mean()
    assert loss == pytest.approx(-np.log(probabilities[np.arange(200), labels]).mean(), rel=1e-5)


def test_a_repaired_net_has_the_statistics_of_its_features_without_dropout(trained):
    net, x, _ = trained
    before = net.layers[5].running.var.copy()
    fixed = repaired(net, x)
    assert_array_equal(net.layers[5].running.var, before)
    assert [layer.rate for layer in net.layers if isinstance(layer, Dropout)] == [0.5, 0.5]
    plain = Sequential([layer for layer in fixed.layers if not isinstance(layer, Dropout)])
    values = x
    for layer in plain.layers:
        if isinstance(layer, BatchNorm):
            assert_allclose(layer.running.mean, values.mean(0), rtol=1e-3, atol=1e-4)
            assert_allclose(layer.running.var, values.var(0, ddof=1), rtol=1e-3)
        values = layer.forward(values)
    assert (before > 1.2 * fixed.layers[5].running.var).mean() > 0.9  # what the repair is for
    assert_allclose(fixed.forward(x, training=False), values, atol=0.2)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_shift_is_that_of_our_formulas(trained, rate):
    net, x, _ = trained
    net = Sequential(list(net.layers))
    net.layers[3] = Dropout(rate, np.random.default_rng(9))
    state = net.layers[3].rng.bit_generator.state
    shifts = [variance_shift(net, x, np.random.default_rng(seed)) for seed in range(40)]
    assert net.layers[3].rng.bit_generator.state == state
    first, values = Sequential(net.layers[:3]), x
    features = first.forward(values)
    weight = net.layers[4].params["weight"]
    exact, outputs = shift_of_weights(weight, features, 1 - rate), (features @ weight.T).var(0, dtype=float)
    expected = (exact * outputs).sum() / outputs.sum()  # over all units: weighted with their variance
    assert np.mean([measured for measured, _ in shifts]) == pytest.approx(expected, rel=0.01)
    second = (features.astype(float) ** 2).mean(0)
    direct = (second / (1 - rate) - features.mean(0, dtype=float) ** 2).sum() / features.var(0, dtype=float).sum()
    assert shifts[0][1] == pytest.approx(direct, rel=1e-5)


def test_at_the_start_the_formula_for_random_weights_holds():
    x = experiment.images("mnist5k", 1_000, 31, tuning=False)[0]
    for rate in (0.1, 0.5):
        net = build([31, 1], BatchNorm, rate)
        measured, formula = variance_shift(net, x, np.random.default_rng(0))
        assert measured == pytest.approx(formula, rel=0.08)
        assert formula == pytest.approx({0.1: 1.164, 0.5: 2.467}[rate], rel=0.15)
    net = build([31, 1], BatchNorm, 0.5, "before")
    measured, formula = variance_shift(net, x, np.random.default_rng(0))
    assert measured == pytest.approx(formula, rel=0.08)
    assert 2 <= formula < 2.467


@pytest.mark.parametrize("net", [build([31, 1], BatchNorm), build([31, 1], dropout=0.5)])
def test_without_dropout_before_bn_there_is_no_shift(net):
    assert variance_shift(net, np.ones((4, 784), np.float32), None) is None
    assert variance_shift(build([31, 1], BatchNorm, 0.5, "last"), np.ones((4, 784), np.float32), None) is None


def test_nets_with_bn_report_their_noise():
    for norm, there in (("bn", True), ("none", False)):
        assert ("noise_sizes" in cell(norm=norm)[-1]) == there
    sizes = np.array(cell(norm="bn")[-1]["noise_sizes"])
    assert sizes.shape == (2, 2)
    assert sizes[0, 0] == pytest.approx(np.sqrt((1 - 64 / 200) / 64), rel=0.15)


# --- claims


def table(case, **arms):
    """Confirming cells of a case: kind -> columns, three seeds."""
    parts = [
        pd.DataFrame({"seed": range(11, 14), **columns}).assign(arm=f"{case}-{kind.replace('_', '-')}")
        for kind, columns in arms.items()
    ]
    return pd.concat(parts, ignore_index=True).assign(dataset="fashion-mnist", steps=600)


def found(case="fashion-500", **arms):
    cells = table(case, **arms).sample(frac=1, random_state=0)
    return {claim.id.removeprefix(f"dropout-{case}-"): claim for claim in claims(cells)}


def level(*values):
    return {
        "accuracy": values,
        "gap": 0.1,
        "test_loss": 0.5,
        "repaired": values,
        "repaired_loss": 0.6,
        "noise_sizes": [[[0.1, 0.1]] * 2] * 3,
    }


def test_bn_is_compared_with_the_best_dropout_and_with_the_best_decay():
    told = found(
        none=level(0.78, 0.78, 0.78),
        decay=level(0.785, 0.785, 0.785),
        dropout=level(0.79, 0.79, 0.79),
        bn=level(0.80, 0.79, 0.78),
    )
    values = {name: told[name].measured.value for name in ("helps", "bn", "bn-decay", "bn-none")}
    assert values == pytest.approx({"helps": 1, "bn": 0, "bn-decay": 0.5, "bn-none": 1})
    assert told["bn"].seeds == (11, 12, 13)


@pytest.mark.parametrize(
    ("dropout", "bn", "verdict", "threshold"),
    [
        ((0.79, 0.79, 0.79), (0.79, 0.79, 0.788), "agrees", -0.5),
        ((0.79, 0.79, 0.79), (0.792, 0.79, 0.78), "mixed", -0.5),  # lower end below -0.5, upper end above
        ((0.79, 0.79, 0.79), (0.77, 0.771, 0.772), "disagrees", -0.5),
        ((0.79, 0.78, 0.77), (0.79, 0.79, 0.79), "report only", None),  # dropout is no help: nothing is replaced
        ((0.78, 0.78, 0.78), (0.70, 0.70, 0.70), "report only", None),
    ],
)
def test_a_case_counts_only_where_dropout_helps(dropout, bn, verdict, threshold):
    told = found(none=level(0.78, 0.78, 0.78), dropout=level(*dropout), bn=level(*bn))
    claim = told["replaces"]
    assert (claim.verdict, claim.threshold) == (verdict, threshold)
    assert ("no verdict" in claim.statement) == (threshold is None)
    assert claim.measured.value == claim.measured.spread[0] == told["bn"].measured.spread[0]


def test_the_noise_is_taken_away_and_put_where_no_bn_is():
    gaps = {"gap": [0.2, 0.2, 0.2], "test_loss": 0.5}
    told = found(
        none=level(0.78, 0.78, 0.78),
        bn=level(0.80, 0.80, 0.80) | {"noise_sizes": [[[0.1, 0.08], [0.02, 0.06]]] * 3},
        quiet=level(0.79, 0.79, 0.79) | gaps,
        noise=level(0.785, 0.785, 0.785) | gaps,
    )
    values = {name: told[name].measured.value for name in ("quiet", "quiet-none", "noise", "quiet-gap", "noise-gap")}
    assert values == pytest.approx({"quiet": 1, "quiet-none": 1, "noise": 0.5, "quiet-gap": -10, "noise-gap": 10})
    sizes = [told[name].measured.value for name in ("shift-1", "scale-1", "shift-2", "scale-2")]
    assert sizes == pytest.approx([0.1, 8, 0.02, 6])


def test_shift_and_repair():
    shift = {"shift_start": [2.4, 2.5, 2.6], "formula_start": 2.5, "shift": 1.8, "formula": 2.2}
    told = found(
        "fashion-5000",
        bn=level(0.8, 0.8, 0.8) | {"repaired": 0.8},
        **{"bn_dropout_0.5": level(0.7, 0.7, 0.7) | shift | {"repaired": 0.72}},
        **{"bn_before_0.5": level(0.6, 0.6, 0.6) | shift | {"repaired": 0.7}},
        **{"bn_last_0.5": level(0.75, 0.75, 0.75) | {"repaired": 0.75}},
    )
    name = "bn-dropout-50"
    assert told[f"start-{name}"].measured.value == pytest.approx(2.5)
    assert told[f"start-formula-{name}"].measured.value == pytest.approx(1)
    assert told[f"start-formula-{name}"].verdict == "reproduced"
    assert told[f"end-{name}"].measured.value == pytest.approx(1.8)
    assert told[f"end-formula-{name}"].measured.value == pytest.approx(2.2)
    repairs = {other: told[f"repair-{other}"].measured.value for other in ("bn", name, "bn-before-50", "bn-last-50")}
    assert told[f"repair-{name}-loss"].measured.value == pytest.approx(0.1)
    assert repairs == pytest.approx({"bn": 0, name: 2, "bn-before-50": 10, "bn-last-50": 0})
    assert told["last"].measured.value == pytest.approx(5)
    assert told["before"].measured.value == pytest.approx(-10)
    assert told[name].measured.value == pytest.approx(-10)


def test_a_seed_that_diverged_has_no_noise():
    told = found(bn=level(0.8, 0.8, 0.1) | {"noise_sizes": [[[0.1, 0.08]] * 2, [[0.2, 0.08]] * 2, np.nan]})
    assert told["shift-1"].measured.value == pytest.approx(0.15)


def whole():
    """Confirming cells of all arms of a full run, all numbers alike."""
    numbers = {"accuracy": 0.8, "gap": 0.1, "test_loss": 0.5, "repaired": 0.8, "repaired_loss": 0.5}
    numbers |= {"shift_start": 1.0, "formula_start": 1.0, "shift": 1.0, "formula": 1.0}
    rows = [
        {"arm": arm, "seed": seed, "dataset": plan.dataset, "steps": plan.steps, **numbers}
        | {"noise_sizes": [[0.1, 0.1], [0.1, 0.1]]}
        for arm, plan in FULL.arms.items()
        for seed in FULL.confirming(arm)
    ]
    return pd.DataFrame(rows)


def test_a_whole_full_run_gives_every_claim_once():
    listed = claims(whole())
    ids = [claim.id.removeprefix("dropout-") for claim in listed]
    assert len(ids) == len(set(ids))
    for case, (dataset, *_, noise) in CASES.items():
        mine = {name.removeprefix(f"{case}-") for name in ids if name.startswith(f"{case}-")}
        assert {"helps", "replaces", "bn", "bn-decay", "bn-none", "both-dropout", "both-decay"} < mine
        assert {"again-none", "again-bn", "gap-bn", "loss-bn", "repair-bn-dropout-50"} < mine
        assert ({"quiet", "noise", "quiet-gap", "noise-loss"} <= mine) == bool(noise)
        assert ({"last", "before", "start-bn-before-50", "end-formula-bn-dropout-10"} <= mine) == (not noise)
        assert ({"shift-1", "scale-2"} <= mine) == bool(noise)
        assert {claim.dataset for claim in listed if f"-{case}-" in claim.id} == {dataset}
    assert not any("{" in claim.statement for claim in listed)
    for name, claim in zip(ids, listed, strict=True):
        ranged = "start-formula" in name
        assert claim.threshold == ((0.97, 1.03) if ranged else None), name  # here dropout is no help anywhere
        shift = "-start-" in name or "-end-" in name or name == "fashion-5000-bn-dropout-50"
        assert claim.paper == ("li2019" if shift else "ioffe2015")
        assert len(claim.seeds) == 10


def test_claims_are_only_of_arms_that_were_run():
    cells = whole()
    lite = cells[cells["arm"].isin(PRESETS["lite"].arms)]
    names = {claim.id.removeprefix("dropout-mnist-1000-") for claim in claims(lite)}
    assert {"bn-none", "dropout-20", "bn-dropout-20"} <= names
    assert not names & {"helps", "replaces", "bn"}
    assert claims(lite.assign(arm="my-" + lite["arm"])) == []


# --- figure and learner


def test_draw_tells_the_arms_apart_and_shows_only_confirming_cells():
    arms = [f"fashion-500-{kind}" for kind in ("none", "dropout-0.5", "bn", "quiet", "noise")] + ["mine"]
    rows = [
        {"arm": arm, "seed": seed, "tuning": seed == 1, "step": step, "accuracy": 0.5 if seed > 1 else 9.0}
        for arm in arms
        for seed in (1, 11, 12)
        for step in (1, 10)
    ]
    rows += [{"arm": arms[0], "seed": 11, "tuning": False, "step": 5, "accuracy": None}]
    axes = Figure().subplots()
    experiment.draw(pd.DataFrame(rows), axes)
    colors = [COLORS[name] for name in ("none", "dropout", "batchnorm", "variant", "none", "variant")]
    assert [line.get_color() for line in axes.lines] == colors
    assert axes.lines[-1].get_label() == "mine"
    assert all((line.get_ydata() == 0.5).all() for line in axes.lines)
    styles = {(line.get_color(), str(line.get_linestyle())) for line in axes.lines[:5]}
    assert len(styles) == 5


def test_a_learners_own_arm_runs_beside_the_lite_ones(monkeypatch):
    lite = PRESETS["lite"]
    short = {arm: dataclasses.replace(plan, steps=21) for arm, plan in lite.arms.items()}
    monkeypatch.setitem(PRESETS, "lite", dataclasses.replace(lite, arms=short))
    seen = []

    def mine(units):
        seen.append(units)
        return BatchNorm(units, momentum=0.5)

    arms = {"mine": {"base": "mnist-1000-bn", "norm": mine, "lr": [0.03, 0.1]}, "mnist-1000-bn": None}
    run = runner.run("dropout", "lite", arms=arms, seeds=1)
    assert seen.count(256) == 2 * (2 * 2 + 1)
    assert set(run.rows["arm"]) == set(arms)
