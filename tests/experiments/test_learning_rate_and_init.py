"""Learning rates and initial weights: what a band is, what a cell trains, and what the claims compare."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal

from bnlib.experiments import core, ledger, record, runner
from bnlib.experiments import learning_rate_and_init as experiment
from bnlib.experiments.learning_rate_and_init import (
    FEW,
    METHODS,
    REST,
    SCALES,
    Split,
    band,
    build,
    claims,
    name,
    rates,
)
from bnlib.scratch import inits
from bnlib.scratch.layers import BatchNorm
from bnlib.scratch.network import accuracy, fit
from bnlib.scratch.optimizers import SGD, Adam

SETTING = {"norm": "none", "init": "he", "optimizer": "sgd", "scale": 1.0, "layers": "hidden"}
THREE = [0.001, 0.1, 10.0]


def small(steps=40, grid=THREE, **setting):
    """One arm, "mine", at three rates."""
    plans = {"mine": core.Plan("mnist5k", steps, (SETTING | setting,))}
    options = {"batch": 64, "evaluations": [25, 30, 35, 40], "rates": dict.fromkeys(("sgd", "adam", "split"), grid)}
    return core.Config(plans, (31, 32), (3,), experiment.ARRAYS, options)


def cell(config=None, seed=31, **setting):
    config = config or small()
    return runner.one_cell("learning-rate-and-init", config, "mine", seed, SETTING | setting)["rows"]


@pytest.fixture(scope="module")
def digits():
    return experiment.images("mnist5k")


# --- the band


def test_rates_are_spaced_evenly_and_end_where_they_should():
    assert rates(-2, 1) == [0.01, 0.0316, 0.1, 0.316, 1.0, 3.16, 10.0]
    assert rates(-1, 1, 1) == [0.1, 1.0, 10.0]
    for preset in experiment.PRESETS.values():
        for grid in preset.options["rates"].values():
            steps = np.diff(np.log10(grid))
            assert_allclose(steps, steps.mean(), atol=1e-3)
            assert len(grid) <= experiment.ARRAYS["accuracies"]


@pytest.mark.parametrize(
    ("accuracies", "low", "high", "width", "edge"),
    [
        ([0.1, 0.85, 0.9, 0.95, 0.84, 0.1], -1.5, -0.5, 1.5, False),
        ([0.1, 0.1, 0.9, 0.1, 0.1, 0.1], -1.0, -1.0, 0.5, False),
        ([0.9, 0.1, 0.9, 0.9, 0.1, 0.1], -1.0, -0.5, 1.0, False),  # a usable end outside the band
        ([0.1, 0.9, 0.1, 0.9, 0.1, 0.1], -1.5, -1.5, 0.5, False),  # the first of two equal ones
        ([0.9, 0.9, 0.1, 0.1, 0.1, 0.1], -2.0, -1.5, 1.0, True),
        ([0.1, 0.1, 0.1, 0.1, 0.9, 0.9], 0.0, 0.5, 1.0, True),
        ([0.9] * 6, -2.0, 0.5, 3.0, True),
    ],
)
def test_a_band_is_the_longest_run_of_usable_rates(accuracies, low, high, width, edge):
    found = band(rates(-2, 1)[:6], accuracies)
    assert (found["low"], found["high"], found["width"], found["edge"]) == (low, high, width, edge)
    assert found["center"] == (low + high) / 2


def test_no_usable_rate_is_no_band():
    found = band(rates(-2, 1), [0.84] * 7)
    assert (found["width"], found["edge"]) == (0.0, False)
    assert np.isnan([found["low"], found["high"], found["center"]]).all()


def test_the_level_and_the_spacing_count():
    assert band([0.01, 0.1, 1.0], [0.5, 0.6, 0.4], level=0.5)["width"] == 2.0
    assert band([0.01, 0.1, 1.0], [0.5, 0.6, 0.4], level=0.6)["width"] == 1.0


# --- the nets


def test_only_the_weights_that_are_named_are_scaled():
    for layers, last in (("hidden", 1.0), ("all", 30.0)):
        one, other = (inits.linears(build(7, None, scale, layers)) for scale in (1.0, 30.0))
        assert len(one) == 6
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_allclose(b.params["weight"], (last if i == 5 else 30.0) * a.params["weight"], rtol=1e-6)
            assert a.params["weight"].std() == pytest.approx(np.sqrt(2 / a.params["weight"].shape[1]), rel=0.05)
            assert not b.params["bias"].any()


def test_the_weights_are_the_same_with_and_without_bn():
    for a, b in zip(inits.linears(build(7)), inits.linears(build(7, BatchNorm)), strict=True):
        assert_array_equal(a.params["weight"], b.params["weight"])


def test_what_a_scale_does_to_the_first_outputs(digits):
    (images, _), *_ = digits

    def outputs(scale, method):
        net = build(7, (lambda units: BatchNorm(units, eps=0.0)) if method == "bn" else None, scale)
        if method == "dd":
            experiment.INITS["dd"](net, images, np.random.default_rng(0))
        return net.forward(images[:64])

    for scale in (0.01, 100.0):
        assert_allclose(outputs(scale, "bn"), outputs(1.0, "bn"), atol=1e-4)
        assert_allclose(outputs(scale, "dd"), outputs(1.0, "dd"), atol=1e-3)
        assert_allclose(outputs(scale, "plain") / scale**5, outputs(1.0, "plain"), atol=1e-4)


def test_split_gives_the_hidden_weights_their_own_rate(digits):
    (images, labels), *_ = digits
    net = build(7, BatchNorm)
    before = [{key: param.copy() for key, param in layer.params.items()} for layer in net.layers]
    net.forward(images[:64])
    net.backward(np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32), to_input=False)
    Split(5.0).step(net)
    hidden = inits.linears(net)[:-1]
    for layer, old in zip(net.layers, before, strict=True):
        for key, param in layer.params.items():
            rate = 5.0 if layer in hidden and key == "weight" else REST
            assert_allclose(param, old[key] - rate * layer.grads[key], rtol=1e-6)


def test_with_a_rate_of_their_own_scaled_weights_do_the_same(digits):
    """The theorem behind the claim: ten times the weights, a hundred times the rate, where eps is 0."""

    def norm(units):
        return BatchNorm(units, eps=0.0)

    one = cell(small(21, [0.1] * 3, optimizer="split"), norm=norm, optimizer="split")
    other = cell(small(21, [10.0] * 3, optimizer="split"), norm=norm, optimizer="split", scale=10.0)
    assert_allclose([row["loss"] for row in other], [row["loss"] for row in one], rtol=1e-3)
    unscaled = cell(small(21, [0.1] * 3, optimizer="split"), norm=norm, optimizer="split", scale=10.0)
    assert abs(unscaled[-1]["loss"] - one[-1]["loss"]) > 0.05


# --- a cell


def test_a_cell_is_measured_at_the_first_steps_and_at_its_evaluations():
    rows = cell()
    assert [row["step"] for row in rows] == [*range(1, 21), 25, 30, 35, 40]
    assert [row["step"] for row in rows if "accuracies" in row] == [25, 30, 35, 40]
    assert [row["step"] for row in rows if "rates" in row] == [40]
    assert rows[-1]["rates"] == THREE
    assert [row["step"] for row in cell(small(22)) if "accuracies" in row] == [22]


@pytest.mark.parametrize("seed", [31, 3])
def test_a_cell_trains_one_net_at_each_rate(seed, digits):
    rows, (train, validation, test) = cell(seed=seed), digits
    losses, ends = [], []
    for lr in THREE:
        net = build(seed)
        held_out = validation if seed == 3 else test
        options = {"steps": 40, "validation": held_out, "batch": 64, "every": 1, "seed": seed, "progress": False}
        with np.errstate(all="ignore"):
            found = fit(net, *train, lr=lr, optimizer=SGD, **options)
        losses.append([row["loss"] for row in found] + [np.inf] * (40 - len(found)))
        ends.append(accuracy(net, *held_out) if found[-1]["step"] == 40 else 0.1)
    losses = np.where(np.isfinite(losses), losses, np.inf)
    assert not np.isfinite(losses[2]).all()  # the largest rate diverges
    assert ends[2] == 0.1
    assert_allclose([row["loss"] for row in rows[:20]], np.median(losses, 0)[:20], rtol=1e-5)
    assert rows[-1]["accuracies"] == ends
    assert rows[-1]["width"] == band(THREE, ends)["width"]


def test_where_half_of_the_rates_have_diverged_there_is_no_loss():
    rows = cell(small(30, [0.1, 1e3, 1e4]))
    assert np.isfinite(rows[0]["loss"])
    assert np.isnan([row["loss"] for row in rows[10:]]).all()
    assert rows[-1]["accuracies"][1:] == [0.1, 0.1]


def test_the_summary_takes_the_mean_of_the_last_three_evaluations():
    rows = [{"step": 1, "loss": 2.3}]
    for step, accuracies in enumerate(([0.9, 0.9], [0.8, 0.86], [0.9, 0.85], [0.85, 0.81]), 2):
        rows.append({"step": step, "loss": 1.0, "accuracies": accuracies, "width": 0.0})
    rows[-1]["rates"] = [0.1, 1.0]
    summary = experiment.summarize(rows)
    assert summary["final"] == [0.85, 0.84]
    assert summary["width"] == summary["score"] == 1.0
    assert summary["edge"]


def test_a_function_does_what_the_name_it_stands_for_does():
    def same(net, images, rng):
        inits.data_dependent(net, images[rng.choice(len(images), 512, replace=False)])

    config = small(21)
    for named, own in (
        ({"init": "dd"}, {"init": same}),
        ({"norm": "bn"}, {"norm": lambda channels: BatchNorm(channels)}),
        ({"optimizer": "adam"}, {"optimizer": lambda lr: Adam(lr)}),
        ({"norm": "bn", "optimizer": "split"}, {"norm": "bn", "optimizer": Split}),
    ):
        assert cell(config, **own) == cell(config, **named) != cell(config)


@pytest.mark.parametrize(
    ("setting", "choices"),
    [("norm", "none, bn"), ("init", "he, dd"), ("optimizer", "sgd, adam, split"), ("layers", "hidden, all")],
)
def test_unknown_names_are_refused_with_the_known_ones(setting, choices):
    with pytest.raises(core.Refused, match=f"^there is no value 'x': choose from {choices}$"):
        cell(**{setting: "x"})


def test_each_named_value_gives_a_run_of_its_own():
    config = small(21)
    settings = [{}, {"norm": "bn"}, {"init": "dd"}, {"optimizer": "adam"}, {"scale": 0.1}]
    settings += [{"norm": "bn", "optimizer": "split"}, {"scale": 0.1, "layers": "all"}]
    runs = [tuple(row["loss"] for row in cell(config, **setting)) for setting in settings]
    assert len(set(runs)) == len(runs)


# --- arms and recorded file


def test_every_arm_has_one_setting_and_a_line():
    full = experiment.PRESETS["full"]
    assert len(full.arms) == 2 * 3 * len(SCALES) + len(FEW) + 3 * (len(FEW) - 1)
    assert set(full.arms) == set(experiment.ARMS) == set(experiment.LOOKS)
    assert len(set(experiment.ARMS.values())) == len(full.arms)
    assert len({tuple(plan.settings[0].items()) for plan in full.arms.values()}) == len(full.arms)
    for preset in experiment.PRESETS.values():
        for arm, plan in preset.arms.items():
            (setting,) = plan.settings
            assert (setting["norm"], setting["init"]) == METHODS[arm.split("-")[0]]
            assert arm.endswith(f"-{setting['scale']:g}")
            assert (setting["layers"] == "all") == ("-all-" in arm)
            assert setting["optimizer"] == arm.split("-")[1]
    assert len(full.seeds) >= 3


def test_a_run_is_recorded_and_read_again(monkeypatch):
    full = experiment.PRESETS["full"]
    arms = {
        arm: dataclasses.replace(full.arms[arm], steps=40) for arm in ("plain-sgd-1", "bn-sgd-1", "plain-sgd-100")
    }
    config = dataclasses.replace(full, arms=arms, seeds=(31, 32), options=small().options)
    monkeypatch.setitem(experiment.PRESETS, "full", config)
    run = runner.run("learning-rate-and-init", "full")
    assert record.save(run).stat().st_size < 20_000
    loaded = record.load("learning-rate-and-init")
    assert ledger.stale("learning-rate-and-init") == []
    assert ledger.entries(loaded) == ledger.entries(run)
    assert set(loaded.results()["seed"]) == {31, 32}
    assert loaded.results()["final"].tolist() == run.results()["final"].tolist()
    steps, measured = loaded.arrays["bn-sgd-1"]["accuracies"]
    assert steps.tolist() == [25, 30, 35, 40]
    assert measured.shape == (4, 3)
    axes = Figure().subplots()
    experiment.draw(loaded.rows, axes)
    assert len(axes.lines) == 3
    assert axes.lines[0].get_xdata().tolist() == [25, 30, 35, 40]


# --- claims


def cells(**arms):
    """A table of confirming cells: arm -> columns, each a list by seed."""
    tables = []
    for arm, columns in arms.items():
        method, optimizer, scale = arm.rsplit("_", 2)
        table = pd.DataFrame({"seed": range(11, 14), "edge": False, **columns})
        arm = f"{method.replace('_', '-')}-{optimizer}-{scale}"
        tables.append(table.assign(arm=arm, scale=float(scale), dataset="mnist5k", steps=400))
    return pd.concat(tables, ignore_index=True)


def whole(width, low=lambda method, optimizer, scale: -2.0):
    """Cells of all arms: the width from the method, the low end from method, optimizer and scale."""
    rows = []
    for arm, plan in experiment.PRESETS["full"].arms.items():
        (setting,) = plan.settings
        method = arm.split("-")[0]
        start = low(method, setting["optimizer"], setting["scale"])
        end = {"low": start, "high": start + 1, "center": start + 0.5}
        common = {"arm": arm, "scale": setting["scale"], "dataset": "mnist5k", "steps": 400, "edge": False}
        rows += [{**common, **end, "seed": seed, "width": width[method]} for seed in (11, 12, 13)]
    return pd.DataFrame(rows)


def found(table):
    return {claim.id.removeprefix("learning-rate-and-init-"): claim for claim in claims(table)}


def test_a_whole_full_run_gives_every_claim_once():
    listed = claims(whole({"plain": 1.0, "dd": 2.0, "bn": 3.0}))
    assert len({claim.id for claim in listed}) == len(listed) == 27
    told = {claim.id.removeprefix("learning-rate-and-init-"): claim for claim in listed}
    assert {name for name, claim in told.items() if claim.threshold is not None} == {"width-plain", "slope-split"}
    for label, claim in told.items():
        if label.startswith(("width", "mean", "all")):
            assert claim.measured.value == pytest.approx(1.0 if "dd" in label else 2.0), label
        if label.startswith("high"):
            assert claim.measured.value == 0
        if label.startswith("scales"):
            assert claim.measured.value == 9


def test_slopes_are_those_of_the_logarithms():
    def low(method, optimizer, scale):
        return {"sgd": 1.5, "adam": 1.0, "split": 2.0}[optimizer] * np.log10(scale) - 2

    told = found(whole({"plain": 1.0, "dd": 2.0, "bn": 3.0}, low))
    for label, value in (("slope-low", 1.5), ("slope-high", 1.5), ("slope-low-adam", 1.0), ("slope-split", 2.0)):
        assert told[label].measured.value == pytest.approx(value)
    assert told["slope-split"].verdict == "agrees"


def test_a_scale_without_a_band_is_left_out_of_the_slope_and_of_the_count():
    table = whole({"plain": 0.0, "dd": 2.0, "bn": 3.0}, lambda method, optimizer, scale: 2 * np.log10(scale))
    gone = (table["arm"] == "bn-sgd-100") & (table["seed"] == 12)
    table.loc[gone, ["low", "high", "center"]] = np.nan
    table.loc[gone, "width"] = 0.0
    told = found(table)
    assert told["slope-low"].measured.value == pytest.approx(2.0)
    assert told["scales-bn"].measured.value == pytest.approx(9 - 1 / 3)
    assert told["scales-plain"].measured.value == 0
    bands = table["arm"].str.startswith("bn-sgd")
    told = found(table.assign(low=table["low"].where(~bands | (table["scale"] == 1.0))))
    assert np.isnan(told["slope-low"].measured.value)


def test_an_end_that_is_not_inside_the_grid_is_left_out_of_the_slope():
    table = whole({"plain": 0.0, "dd": 2.0, "bn": 3.0}, lambda method, optimizer, scale: 2 * np.log10(scale))
    last = (table["arm"] == "bn-split-100") & (table["seed"] == 12)
    table.loc[last, "center"] = 0.0
    assert found(table)["slope-split"].measured.value < 1.9
    assert found(table.assign(edge=last))["slope-split"].measured.value == pytest.approx(2.0)


def test_widths_are_paired_and_compared_the_right_way_round():
    table = cells(bn_sgd_1={"width": [3.0, 3.5, 2.5]}, plain_sgd_1={"width": [2.0, 2.0, 1.5]}).assign(high=0.0)
    told = found(table.sample(frac=1, random_state=0))
    assert set(told) == {"width-plain", "high-plain"}
    assert told["width-plain"].measured.value == pytest.approx((1 + 1.5 + 1) / 3)
    assert told["width-plain"].verdict == "agrees"
    assert found(table.assign(width=5 - table["width"]))["width-plain"].verdict == "disagrees"


def test_the_highest_rates_are_compared_as_logarithms():
    table = cells(
        bn_sgd_1={"width": 3.0, "high": [0.5, 0.5, 0.0]}, plain_sgd_1={"width": 2.0, "high": [-1.0, -0.5, -1.0]}
    )
    assert found(table)["high-plain"].measured.value == pytest.approx((1.5 + 1 + 1) / 3)
    table.loc[table["seed"] == 12, "high"] = np.nan
    assert np.isnan(found(table)["high-plain"].measured.value)


@pytest.mark.parametrize(("open_end", "bound"), [("bn", "≥"), ("plain", "≤"), ("both", "")])
def test_a_band_that_touches_an_end_of_the_grid_makes_a_bound(open_end, bound):
    table = cells(bn_sgd_1={"width": 3.0}, plain_sgd_1={"width": 2.0}).assign(high=0.0)
    open_ = table["arm"].str.startswith(open_end) if open_end != "both" else True
    told = found(table.assign(edge=(table["seed"] == 12) & open_))["width-plain"]
    assert told.measured.bound == bound
    assert np.isnan(told.measured.value) == (open_end == "both")


def test_claims_are_only_of_arms_that_were_run():
    lite = whole({"plain": 1.0, "dd": 2.0, "bn": 3.0})
    lite = lite[lite["arm"].isin(experiment.PRESETS["lite"].arms)]
    assert set(found(lite)) == {"width-plain", "width-dd", "high-plain", "high-dd"}
    assert claims(lite.assign(arm="my-" + lite["arm"])) == []
    assert name("bn", "sgd", 0.01) == "bn-sgd-0.01"
