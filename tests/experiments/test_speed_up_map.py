"""The map: what a name stands for, when a net is evaluated and stopped, and what the claims compare."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal

from bnlib.experiments import core, runner
from bnlib.experiments import speed_up_map as experiment
from bnlib.experiments.paired import longest_band, steps_to
from bnlib.experiments.speed_up_map import (
    DEPTHS,
    ENOUGH,
    LOWER,
    OPTIMIZERS,
    PRESETS,
    RATES,
    SIGMOID_INITS,
    TUNED,
    WIDTHS,
    Watch,
    arm_of,
    claims,
)
from bnlib.page.figures import COLORS
from bnlib.scratch import inits
from bnlib.scratch.layers import BatchNorm, ReLU
from bnlib.scratch.network import accuracy, fit, mlp
from bnlib.scratch.optimizers import Adam

SETTING = {"activation": "sigmoid", "depth": 2, "init": "dd", "optimizer": "sgd", "norm": "plain", "lr": 0.3}


def small(steps=60, goal=0.8, rates=(0.1, 1.0), like=False, **setting):
    """One arm, "mine", on few images."""
    settings = (SETTING | setting,)
    plans = {"mine": core.Plan("mnist5k", steps, settings)}
    if like:
        plans["mine-bn"] = core.Plan("mnist5k", steps, like="mine")
    options = {"batch": 64, "images": (200, 300), "goal": goal, "rates": list(rates), "points": 14}
    return core.Config(plans, (31, 32), (3, 4), {"steps_at": len(rates)}, options)


def cell(config=None, seed=31, arm="mine", **setting):
    return runner.one_cell("speed-up-map", config or small(), arm, seed, SETTING | setting)["rows"]


@pytest.fixture(scope="module")
def digits():
    return experiment.images("mnist5k")


# --- arms and their names


def test_every_place_of_the_map_has_an_arm_whose_name_says_its_settings():
    full = PRESETS["full"]
    places = list(itertools.product(DEPTHS, SIGMOID_INITS, OPTIMIZERS, ("plain", "bn")))
    for depth, init, optimizer, norm in places:
        plan = full.arms[arm_of("sigmoid", depth, init, optimizer, norm)]
        assert (plan.dataset, plan.steps) == ("fashion-mnist", 3_000 if depth < 10 else 2_500)
        rates = [setting.pop("lr") for setting in map(dict, plan.settings)]
        assert rates == sorted(rates)
        assert rates == [*LOWER.get(depth, {}).get(optimizer, []), *RATES[optimizer]]
        same = {"activation": "sigmoid", "depth": depth, "init": init, "optimizer": optimizer, "norm": norm}
        assert all(setting | same == setting for setting in plan.settings)
    tuned = [arm for arm, plan in full.arms.items() if plan.like]
    assert len(tuned) == len(DEPTHS) * (len(TUNED) + 2)
    assert len(full.arms) == len(places) + len(tuned) + len(WIDTHS) * len(SIGMOID_INITS) * 2


def test_both_sides_of_a_tuned_ratio_may_choose_among_as_many_settings():
    arms = PRESETS["full"].arms
    for depth in DEPTHS:
        plain, bn, dd = (arms[f"sigmoid-{depth}-{kind}"] for kind in ("plain", "bn", "dd"))
        tried = [[s for arm in plan.like for s in arms[arm].settings] for plan in (plain, bn, dd)]
        more = sum(map(len, LOWER.get(depth, {}).values()))
        assert [len(settings) for settings in tried] == [76 + 4 * more, 76 + 4 * more, 19 + more]
        assert [{s["norm"] for s in settings} for settings in tried] == [{"plain"}, {"bn"}, {"plain"}]
        assert {s["depth"] for settings in tried for s in settings} == {depth}
        assert {s["init"] for s in tried[2]} == {"dd"}
        for norm in ("plain", "bn"):
            again = arms[f"sigmoid-{depth}-{norm}-again"]
            assert again.like == arms[f"sigmoid-{depth}-{norm}"].like
            assert not set(again.seeds) & {*PRESETS["full"].seeds, *PRESETS["full"].tuning_seeds}


def test_arms_of_the_bands_train_at_all_rates():
    full = PRESETS["full"]
    for depth, init, norm in itertools.product(WIDTHS, SIGMOID_INITS, ("plain", "bn")):
        plan = full.arms[f"sigmoid-{depth}-width-{init}-{norm}"]
        (setting,) = plan.settings
        assert (setting["lr"], setting["optimizer"], plan.steps) == (None, "sgd", ENOUGH)
        assert (setting["depth"], setting["init"], setting["norm"]) == (depth, init, norm)
    rates = full.options["rates"]
    assert full.arrays == {"steps_at": len(rates)}
    assert set(RATES["sgd"]) < set(rates)
    assert_allclose(np.diff(np.log10(rates)), 0.5, atol=0.03)  # so that each stands for half a decade


@pytest.mark.parametrize("grid", [*RATES.values()])
def test_rates_are_spaced_by_half_a_decade(grid):
    assert_allclose(np.diff(np.log10(grid)), 0.5, atol=0.03)


def test_every_arm_has_a_line_and_no_two_have_the_same():
    assert list(experiment.ARMS) == list(PRESETS["full"].arms)
    assert len(set(experiment.ARMS.values())) == len(experiment.ARMS)
    assert experiment.ARMS["sigmoid-5-dd-adam-bn"] == (
        "5 layers of 100 sigmoid units, weights and biases set from one batch before step 0, adam, bn"
    )
    assert experiment.ARMS["sigmoid-20-plain-again"].endswith("the best init and optimizer, other seeds")
    assert set(PRESETS["lite"].arms) <= set(PRESETS["full"].arms)


# --- when a net is evaluated and when it stops


def history(*pairs):
    return [{"step": step, "accuracy": accuracy} for step, accuracy in pairs]


def test_evaluations_are_every_five_steps_until_the_goal_and_rarer_where_nothing_happens():
    def steps(last, value, first=False, reached=None):
        watch = Watch(0.8, 1, 200, first=first)
        watch.reached = reached
        return [step for step in range(1, last + 1) if watch.every(step, history((1, value)))]

    assert steps(30, 0.1) == [1, 5, 10, 15, 20, 25, 30]
    assert steps(30, 0.1, first=True) == [*range(1, 21), 25, 30]
    assert steps(200, 0.1)[-6:] == [95, 100, 125, 150, 175, 200]
    assert steps(600, 0.6)[-3:] == [590, 595, 600]
    assert steps(600, 0.9, reached=300)[:3] == [1, 50, 100]


def test_training_stops_some_steps_after_the_goal_was_reached():
    def run_out(least, more, to_the_end=False):
        watch, seen = Watch(0.8, least, more, to_the_end), []
        for step in range(5, 2_001, 5):
            seen += history((step, 0.1 if step < 100 else 0.9))
            if watch.until(seen):
                break
        return watch.reached, seen[-1]["step"]

    assert run_out(1, 200) == (110, 310)  # the mean of .9 at 100, 105 and 110
    assert run_out(1_000, 200) == (110, 1_000)
    assert run_out(1, 200, to_the_end=True) == (110, 2_000)
    assert run_out(2, 0) == (110, 110)


def test_the_goal_is_not_reached_by_fewer_than_three_evaluations():
    watch = Watch(0.8, 1, 0)
    seen = history((1, 0.9), (2, 0.9))
    assert not watch.until(seen[:1])
    assert not watch.until(seen)
    assert watch.until([*seen, *history((3, 0.9))])
    assert watch.reached == 3


def test_a_goal_once_reached_stays_reached():
    watch = Watch(0.8, 1, 50)
    seen = history((10, 0.9), (20, 0.9), (30, 0.9))
    assert not watch.until(seen)
    assert not watch.until([*seen, *history((60, 0.1))])
    assert watch.until([*seen, *history((60, 0.1), (80, 0.1))])
    assert watch.reached == 30


# --- a cell


def test_a_cell_runs_and_is_deterministic():
    config = small(goal=1.0)
    rows = cell(config)
    assert rows == cell(config)
    assert [row["step"] for row in rows] == [*range(1, 21), *range(25, 61, 5)]
    assert rows[-1]["accuracy"] > rows[0]["accuracy"]
    assert "score" in rows[-1]
    assert not any("score" in row for row in rows[:-1])
    assert [row["loss"] for row in rows] != [row["loss"] for row in cell(config, 32)]


@pytest.mark.parametrize(("seed", "part", "count"), [(3, 1, 200), (31, 2, 300)])
def test_tuning_is_on_validation_images_and_confirming_on_test_images(seed, part, count, digits):
    rows, (train, *_), (x, y) = cell(small(goal=1.0), seed), digits, digits[part]
    net = mlp([784, 100, 100, 10], seed)
    images, rng = train[0], np.random.default_rng([seed, 1])
    inits.data_dependent(net, images[rng.choice(len(images), 512, replace=False)])
    common = {"lr": 0.3, "steps": 60, "batch": 64, "seed": seed, "progress": False}
    fit(net, *train, **common, validation=(x[:count], y[:count]))
    assert rows[-1]["accuracy"] == accuracy(net, x[:count], y[:count])


def test_a_tuning_cell_stops_soon_after_the_goal_and_a_tuned_arm_never():
    config = small(400, goal=0.3, like=True)
    ends = {}
    for name, arm, seed in (("tuning", "mine", 3), ("confirming", "mine", 31), ("tuned", "mine-bn", 31)):
        rows = cell(config, seed, arm)
        reached, _ = steps_to(0.3, [r["step"] for r in rows], [r["accuracy"] for r in rows])
        assert rows[-1]["score"] == -reached
        ends[name] = rows[-1]["step"]
    assert ends["tuning"] < 300
    assert ends["confirming"] == ends["tuned"] == 400  # not before step 400
    assert cell(small(600, goal=0.3), 31)[-1]["step"] == 400
    assert cell(small(600, goal=0.3, like=True), 31, "mine-bn")[-1]["step"] == 600


def test_the_score_ranks_those_that_missed_the_goal_below_all_that_reached_it():
    missed = cell(small(goal=1.0))[-1]["score"]
    best = experiment.smooth([row["accuracy"] for row in cell(small(goal=1.0))]).max()
    assert missed == pytest.approx(-60 * (2 - best))
    assert missed < -60 <= cell(small(goal=0.2))[-1]["score"]


def test_a_run_that_is_given_up_has_missed_the_goal():
    whole = cell(small(goal=0.5), 3)
    assert whole[-1]["score"] > -60
    config = small(goal=0.5)
    rows = cell(dataclasses.replace(config, options={**config.options, "limit": 10}), 3)
    assert rows[-1]["step"] == 10
    assert rows[:-1] == whole[: len(rows) - 1]
    assert -120 <= rows[-1]["score"] < -60


def test_a_net_that_diverges_is_at_chance_to_the_end():
    rows = cell(small(60), activation="relu", init="he", lr=1e6)
    assert np.isnan(rows[-1]["loss"])
    assert rows[-1]["step"] == 60
    assert rows[-1]["accuracy"] == pytest.approx(0.1)
    assert rows[-1]["score"] < -60


def test_a_net_at_all_rates_gives_one_row_for_its_band():
    config = small(60, goal=0.3, rates=(1e-4, 0.3, 1.0))
    rows = cell(dataclasses.replace(config, options={**config.options, "images": (300, 0)}), lr=None)
    assert [row["step"] for row in rows[:-1]] == list(range(1, 21))
    assert [set(row) for row in rows[:-1]] == [{"step", "loss", "accuracy"}] * 20
    last = rows[-1]
    assert last["steps_at"][0] is None
    for rate, step in zip((0.3, 1.0), last["steps_at"][1:], strict=True):
        curve = cell(dataclasses.replace(config), lr=rate)
        assert steps_to(0.3, [r["step"] for r in curve], [r["accuracy"] for r in curve]) == (step, True)
    band = longest_band([False, True, True], config.options["rates"])
    assert experiment.summarize(rows) == {"width": band.decades, "inside": False}
    assert [row["loss"] for row in rows[:20]] == [row["loss"] for row in cell(config, lr=1e-4)[:20]]


def test_a_summary_agrees_with_the_curve():
    rows = cell(small(400, goal=0.3))
    summary = experiment.summarize(rows)
    mean = pd.Series([row["accuracy"] for row in rows]).rolling(3).mean()
    assert summary["best"] == pytest.approx(mean.max())
    assert summary["final"] == pytest.approx(mean.iloc[-1])
    for level in experiment.LEVELS:
        above = [row["step"] for row, value in zip(rows, mean, strict=True) if value >= level]
        assert summary[f"reached_{level:.0%}"] == bool(above)
        assert summary[f"steps_{level:.0%}"] == (above[0] if above else 400)


# --- names and functions of one's own


def test_a_function_does_what_the_name_it_stands_for_does():
    def same(net, images, rng):
        inits.data_dependent(net, images[rng.choice(len(images), 512, replace=False)])

    config = small(21)
    for named, own in (
        ({"init": "dd"}, {"init": same}),
        ({"init": "xavier"}, {"init": lambda net, images, rng: None}),
        ({"norm": "bn"}, {"norm": lambda channels: BatchNorm(channels)}),
        ({"optimizer": "adam", "lr": 0.01}, {"optimizer": lambda lr: Adam(lr), "lr": 0.01}),
        ({"activation": "relu"}, {"activation": ReLU}),
    ):
        assert cell(config, **own) == cell(config, **named)


@pytest.mark.parametrize(
    ("setting", "choices"),
    [
        ("init", "gaussian, xavier, he, gain4, dd"),
        ("norm", "plain, bn"),
        ("optimizer", "sgd, momentum, adam"),
        ("activation", "sigmoid, tanh, relu"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(setting, choices):
    with pytest.raises(core.Refused, match=f"^there is no value 'x': choose from {choices}$"):
        cell(**{setting: "x"})


def test_each_named_value_gives_a_run_of_its_own():
    config = small(21)
    settings = [{"init": init} for init in experiment.INITS]
    settings += [{"norm": "bn"}, {"depth": 3}, {"activation": "tanh"}, {"activation": "relu"}]
    settings += [{"optimizer": "momentum"}, {"optimizer": "adam"}]
    runs = [tuple(row["loss"] for row in cell(config, **setting)) for setting in settings]
    assert len(set(runs)) == len(runs)


@pytest.mark.parametrize(
    ("init", "spread"), [("gaussian", 0.05), ("xavier", 0.1), ("he", np.sqrt(0.02)), ("gain4", 0.4)]
)
def test_an_init_gives_the_weights_that_the_page_computes_with(init, spread, digits):
    net = mlp([784, 100, 100, 100, 10], 11)
    experiment.INITS[init](net, digits[0][0], np.random.default_rng(0))
    inner = inits.linears(net)[1:-1]
    assert_allclose([layer.params["weight"].std() for layer in inner], spread, rtol=0.05)
    offsets = [layer.params["bias"] + layer.params["weight"].sum(1) / 2 for layer in inner]
    assert (np.abs(offsets).max() < 1e-5) == (init == "gain4")


def test_the_signal_of_a_layer_keeps_its_bound(digits):
    """What the page derives: on average over the weights at most n v / 16 of the variance is left."""
    batch = digits[0][0][:500].astype(float)

    def factors(init, seed):
        net = mlp([784, *[100] * 6, 10], seed)
        experiment.INITS[init](net, batch, np.random.default_rng([seed, 1]))
        values = net.activations(batch)[1:-1:2]
        signals = np.array([z.var(0).mean() for z in values])
        return signals[1:] / signals[:-1]

    for init, bound in (("gaussian", 1 / 64), ("xavier", 1 / 16), ("gain4", 1.0)):
        mean = np.mean([factors(init, seed) for seed in range(5)], axis=0)
        assert (mean < 1.02 * bound).all(), init
        if init != "gain4":
            assert (mean[2:] > 0.7 * bound).all(), init


def test_a_learners_own_arm_runs_beside_the_lite_ones(monkeypatch):
    lite = PRESETS["lite"]
    short = {arm: dataclasses.replace(plan, steps=25) for arm, plan in lite.arms.items()}
    monkeypatch.setitem(PRESETS, "lite", dataclasses.replace(lite, arms=short))
    seen = []

    def mine(net, images, rng):
        seen.append(images.shape)

    arms = {
        "mine": {"base": "sigmoid-3-dd-sgd-plain", "init": mine, "lr": [0.3, 1.0]},
        "sigmoid-3-xavier-sgd-plain": None,
    }
    found = runner.run("speed-up-map", "lite", arms=arms, seeds=2)
    assert set(seen) == {(3500, 784)}
    assert len(seen) == 2 * 2 + 2
    own, xavier = (found.rows[(found.rows["arm"] == arm) & (found.rows["seed"] == 31)] for arm in arms)
    if found.chosen["mine"]["setting"]["lr"] == found.chosen["sigmoid-3-xavier-sgd-plain"]["setting"]["lr"]:
        assert_array_equal(own["loss"], xavier["loss"])
    assert experiment.claims(found.results()) == []


# --- claims


def steps(*values, reached=(True, True, True)):
    return {"steps_80%": values, "reached_80%": reached}


def cells(arms):
    """A table of confirming cells: arm -> columns, each a list by seed."""
    tables = [pd.DataFrame({"seed": range(11, 14), **columns}).assign(arm=arm) for arm, columns in arms.items()]
    return pd.concat(tables, ignore_index=True).assign(dataset="fashion-mnist", steps=3_000)


def found(arms):
    table = cells(arms).sample(frac=1, random_state=0)
    return {claim.id.removeprefix("speed-up-map-"): claim for claim in claims(table)}


def whole():
    """Confirming cells of all arms of a full run, all numbers alike."""
    full = PRESETS["full"]
    numbers = {"best": 0.8, "width": 1.0, "inside": True, "steps_80%": 100.0, "reached_80%": True}
    rows = [
        {"arm": arm, "seed": seed, "dataset": plan.dataset, "steps": plan.steps, **numbers}
        for arm, plan in full.arms.items()
        for seed in full.confirming(arm)
    ]
    return pd.DataFrame(rows)


def test_a_whole_full_run_gives_every_claim_once():
    listed = claims(whole())
    ids = [claim.id.removeprefix("speed-up-map-") for claim in listed]
    kinds = ("naive", "gaussian", "tuned", "dd", "again", "end", "start")
    assert len(ids) == len(set(ids)) == 9 * len(DEPTHS) + 1 + len(SIGMOID_INITS)
    assert {name.split("-")[0] for name in ids} == {*kinds, "rise", "width"}
    for name, claim in zip(ids, listed, strict=True):
        assert claim.measured.value == pytest.approx(0 if name.startswith(("end", "width")) else 1), name
        assert "{" not in claim.statement
    limits = {name: claim.threshold for name, claim in zip(ids, listed, strict=True) if claim.threshold is not None}
    assert limits == {"naive-3": 2.0, "rise": 1.0} | {f"tuned-{depth}": (0.8, 3.0) for depth in (3, 4, 5, 6)}
    ends = {name: claim.statement for name, claim in zip(ids, listed, strict=True) if name.startswith("end")}
    assert "2,500 steps" in ends["end-10"]
    assert "3,000 steps" in ends["end-6"]


def test_claims_compare_the_right_arm_with_the_right_arm():
    told = found(
        {
            "sigmoid-5-xavier-sgd-plain": steps(1_000, 1_600, 2_000),
            "sigmoid-5-xavier-sgd-bn": steps(500, 400, 250),
            "sigmoid-5-gaussian-sgd-plain": steps(2_000, 2_000, 2_000),
            "sigmoid-5-gaussian-sgd-bn": steps(400, 400, 400),
            "sigmoid-5-dd-sgd-plain": steps(100, 160, 200),
            "sigmoid-5-dd-sgd-bn": steps(250, 200, 125),
            "sigmoid-5-plain": steps(150, 300, 150) | {"best": [0.85, 0.86, 0.87]},
            "sigmoid-5-bn": steps(100, 200, 100) | {"best": [0.84, 0.84, 0.87]},
            "sigmoid-5-dd": steps(120, 240, 120),
            "sigmoid-5-plain-again": steps(300, 600, 300),
            "sigmoid-5-bn-again": steps(50, 100, 50),
        }
    )
    values = {
        **{"naive-5": 4, "gaussian-5": 5, "tuned-5": 1.5, "dd-5": 1.2, "start-5": 10, "start-bn-5": 2},
        **{"again-5-plain": 0.5, "again-5-bn": 2, "end-5": -1},
    }
    assert {name: claim.measured.value for name, claim in told.items()} == pytest.approx(values)
    assert told["tuned-5"].verdict == "agrees"
    assert told["tuned-5"].seeds == (11, 12, 13)
    assert told["naive-5"].verdict == core.REPORT


@pytest.mark.parametrize(
    ("plain", "verdict"), [((250, 250, 250), "agrees"), ((150, 150, 150), "disagrees"), ((150, 180, 240), "mixed")]
)
def test_the_naive_ratio_at_depth_three_has_a_threshold(plain, verdict):
    told = found({"sigmoid-3-xavier-sgd-plain": steps(*plain), "sigmoid-3-xavier-sgd-bn": steps(100, 100, 100)})
    assert told["naive-3"].verdict == verdict


@pytest.mark.parametrize(
    ("plain", "verdict"), [((100, 110, 120), "agrees"), ((400, 410, 420), "disagrees"), ((70, 70, 70), "disagrees")]
)
def test_the_tuned_ratio_holds_within_its_range_only(plain, verdict):
    assert (
        found(
            {"sigmoid-4-plain": steps(*plain) | {"best": 0.8}, "sigmoid-4-bn": steps(100, 100, 100) | {"best": 0.8}}
        )["tuned-4"].verdict
        == verdict
    )


def test_a_level_that_was_missed_makes_a_ratio_a_bound():
    never = steps(3_000, 3_000, 3_000, reached=(False,) * 3)
    some = steps(500, 400, 3_000, reached=(True, True, False))
    names = ("sigmoid-6-xavier-sgd-plain", "sigmoid-6-xavier-sgd-bn")
    told = found(dict(zip(names, (never, steps(500, 400, 250)), strict=True)))["naive-6"].measured
    assert (told.value, told.bound) == (pytest.approx(7.5), "≥")
    told = found(dict(zip(names, (steps(500, 400, 250), some), strict=True)))["naive-6"].measured
    assert told.bound == "≤"
    assert np.isnan(found(dict(zip(names, (never, some), strict=True)))["naive-6"].measured.value)


def rise(deep, deep_bn, flat, flat_bn):
    arms = [arm_of("sigmoid", depth, "xavier", "sgd", norm) for depth in (5, 3) for norm in ("plain", "bn")]
    return found(dict(zip(arms, (deep, deep_bn, flat, flat_bn), strict=True)))["rise"]


def test_the_rise_is_a_ratio_of_ratios_paired_by_seed():
    claim = rise(steps(800, 1_600, 3_000), steps(100, 200, 300), steps(200, 400, 800), steps(100, 100, 200))
    assert claim.measured.value == pytest.approx((4 * 2 * 2.5) ** (1 / 3))  # 8/2, 8/4, 10/4
    assert claim.measured.bound == ""
    assert claim.verdict == "agrees"
    assert rise(steps(100, 100, 100), *[steps(100, 100, 100)] * 2, steps(50, 50, 50)).verdict == "disagrees"


@pytest.mark.parametrize(("which", "bound"), [(0, "≥"), (1, "≤"), (2, "≤"), (3, "≥"), ((0, 2), None), ((0, 3), "≥")])
def test_a_censored_run_makes_the_rise_a_bound_on_its_side(which, bound):
    """More steps in the deep plain net, or in BN's at depth 3, can only raise it; in the other two only lower it."""
    which = {which} if isinstance(which, int) else set(which)
    parts = [
        steps(*[count] * 3, reached=(i not in which, True, True)) for i, count in enumerate((900, 100, 300, 100))
    ]
    measured = rise(*parts).measured
    if bound is None:
        assert np.isnan(measured.value)
    else:
        assert (measured.value, measured.bound) == (pytest.approx(3), bound)


def bands(plain, bn, open_plain=False, open_bn=False):
    """Cells of the arms of one start: widths over the depths, three seeds alike."""
    arms = {}
    for norm, widths, open_end in (("plain", plain, open_plain), ("bn", bn, open_bn)):
        for depth, decades in zip(WIDTHS, widths, strict=True):
            arms[f"sigmoid-{depth}-width-dd-{norm}"] = {"width": decades, "inside": not (open_end and depth == 6)}
    return found(arms)["width-dd"]


def test_the_width_is_a_mean_over_the_depths():
    claim = bands((1.0, 1.0, 0.5, 0.5), (2.0, 2.5, 2.0, 2.5))
    assert claim.measured.value == pytest.approx(2.25 - 0.75)
    assert claim.measured.bound == ""
    assert claim.unit == "decades"
    assert bands((2.0, 2.5, 2.0, 2.5), (1.0, 1.0, 0.5, 0.5)).measured.value == pytest.approx(-1.5)


def test_a_band_that_touches_an_end_of_the_grid_makes_a_bound():
    wide, narrow = (2.0,) * 4, (1.0,) * 4
    assert bands(narrow, wide, open_bn=True).measured.bound == "≥"
    assert bands(narrow, wide, open_plain=True).measured.bound == "≤"
    assert np.isnan(bands(narrow, wide, True, True).measured.value)


def test_claims_are_only_of_arms_that_were_run():
    table = whole()
    lite = table[table["arm"].isin(PRESETS["lite"].arms)]
    kinds = {claim.id.removeprefix("speed-up-map-").rsplit("-", 1)[0] for claim in claims(lite)}
    assert kinds == {"naive", "tuned", "dd", "end", "start", "start-bn", "rise"}
    assert claims(lite.assign(arm="my-" + lite["arm"])) == []


# --- figure and recorded file


def test_draw_tells_the_arms_apart_and_shows_only_confirming_cells():
    arms = ["sigmoid-5-xavier-sgd-plain", "sigmoid-5-dd-sgd-plain", "sigmoid-5-xavier-sgd-bn", "sigmoid-5-dd-sgd-bn"]
    arms += ["mine", "sigmoid-5-dd"]
    rows = [
        {"arm": arm, "seed": seed, "tuning": seed == 1, "step": step, "accuracy": 0.5 if seed > 1 else 9.0}
        for arm in arms
        for seed in (1, 11, 12)
        for step in (1, 10)
    ]
    axes = Figure().subplots()
    experiment.draw(pd.DataFrame(rows), axes)
    start = ", started from data"
    assert [line.get_label() for line in axes.lines] == [
        *("no BN", f"no BN{start}", "BN", f"BN{start}", "mine", f"no BN{start}")
    ]
    plain, dd, bn, bn_dd, mine, _ = axes.lines
    assert {plain.get_color(), dd.get_color()} == {COLORS["none"]}
    assert {bn.get_color(), bn_dd.get_color()} == {COLORS["batchnorm"]}
    assert mine.get_color() == COLORS["variant"]
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines[:5]}) == 5
    assert all((line.get_ydata() == 0.5).all() for line in axes.lines)
