"""Section 4.1: when a net is evaluated, what its probe sees, and that the arms are what their names say."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal

from bnlib import data
from bnlib.experiments import core, runner, sigmoid_mlp
from bnlib.experiments.core import ANALOGUE, SAME
from bnlib.experiments.sigmoid_mlp import HORIZON, Probe, claims, drift, evaluations
from bnlib.scratch import inits
from bnlib.scratch.layers import BatchNorm, Sigmoid
from bnlib.scratch.network import accuracy, fit, mlp
from bnlib.scratch.optimizers import Adam

from .conftest import tiny

SETTING = {"norm": "none", "init": "gaussian", "optimizer": "sgd", "lr": 1.0}


@pytest.fixture
def pictures():
    return np.random.default_rng(0).uniform(size=(1000, 784)).astype(np.float32)


def cell(config, arm="plain", seed=31, **setting):
    return runner.one_cell("sigmoid-mlp", config, arm, seed, SETTING | setting)["rows"]


def cells(**arms):
    """A table of confirming cells: arm -> columns, each a list by seed."""
    tables = []
    for arm, columns in arms.items():
        table = pd.DataFrame({"seed": range(11, 14), **columns})
        tables.append(table.assign(arm=arm.replace("_", "-"), dataset="fashion-mnist", steps=3_000))
    return pd.concat(tables, ignore_index=True)


# --- when


@pytest.mark.parametrize("steps", [1, 7, 20, 21, 63, 165, 166, 170, 220, 500, 2_000, 3_000, 15_000, 50_000])
def test_evaluations_are_dense_at_first_and_end_with_the_run(steps):
    chosen = evaluations(steps)
    assert chosen == sorted(set(chosen))
    assert {type(step) for step in chosen} == {int}
    assert chosen[: min(steps, 20)] == list(range(1, min(steps, 20) + 1))
    assert set(range(25, min(steps, 165) + 1, 5)) <= set(chosen)
    assert set(range(100, min(steps, HORIZON) + 1, 100)) <= set(chosen)
    assert chosen[-1] <= steps
    assert chosen[-1] == steps or steps in (21, 63, 166)  # `fit` adds the last step of these
    late = np.array([step for step in chosen if step > 165])
    assert len(late) < 2 or (late[1:] / late[:-1]).max() < 1.04


def test_every_run_is_evaluated_at_its_last_step():
    rows = cell(tiny(arms={"plain": core.Plan("mnist5k", 43, (SETTING,))}))
    assert [row["step"] for row in rows] == [*range(1, 21), 25, 30, 35, 40, 43]


@pytest.mark.parametrize("steps", [1, 60, 220, 1_000, 3_000, 15_000, 50_000])
def test_probes_are_taken_where_the_net_is_evaluated(steps, pictures):
    taken = Probe(pictures, steps).steps & set(range(1, steps + 1))
    assert taken <= {*evaluations(steps), steps}
    assert {1, *range(100, min(steps, HORIZON) + 1, 100)} <= taken
    if steps >= HORIZON:
        assert steps in taken
        assert len(taken) <= 1 + 30 + 22


# --- what the probe sees


def test_a_probe_agrees_with_a_computation_of_its_own(pictures):
    net = mlp([784, 100, 100, 100, 10], seed=3, norm=BatchNorm)
    net.forward(pictures[:60])  # so that the running statistics are not those of the start
    probe = Probe(pictures, 3_000)
    assert probe(net, 150) == {}
    seen = probe(net, 200)
    lengths = {"p15": 100, "p50": 100, "p85": 100, "saturated": 3, "histogram": 30}
    assert {name: len(values) for name, values in seen.items()} == lengths
    assert {type(v) for values in seen.values() for v in values} == {float}

    x, inputs, outputs = pictures, [], []
    for layer in net.layers:
        y = layer.forward(x, training=False)
        if isinstance(layer, Sigmoid):
            inputs.append(x)
            outputs.append(y)
        x = y
    for name, share in (("p15", 0.15), ("p50", 0.5), ("p85", 0.85)):
        assert_allclose(seen[name], np.quantile(inputs[-1].astype(float), share, axis=0), rtol=1e-5, atol=1e-6)
    assert_allclose(seen["saturated"], [((h <= 0.05) | (h >= 0.95)).mean() for h in outputs], atol=1e-4)
    counts = [np.bincount((10 * h.ravel()).astype(int), minlength=10) for h in outputs]
    assert_allclose(np.reshape(seen["histogram"], (3, 10)), np.array(counts) / outputs[0].size, atol=1e-4)
    assert_allclose(np.reshape(seen["histogram"], (3, 10)).sum(1), 1)


def test_looking_changes_nothing_in_the_run():
    plain = cell(tiny(arms={"plain": core.Plan("mnist5k", 220, (SETTING,))}))
    probed = cell(tiny(arms={"plain": core.Plan("mnist5k", 220, (SETTING,), probed=True)}))
    assert [row["loss"] for row in probed] == [row["loss"] for row in plain]
    assert [row["accuracy"] for row in probed] == [row["accuracy"] for row in plain]
    assert not any("p50" in row for row in plain)
    assert [row["step"] for row in probed if "p50" in row] == [1, 100, 200, 220]
    assert len(probed[-1]["unit_drift"]) == 100


def test_tuning_cells_are_not_probed(live):
    rows = cell(live.config, "mnist-plain", seed=3)
    assert not any("p50" in row for row in rows)
    assert "unit_drift" not in rows[-1]


def test_drift_is_the_range_of_the_medians_over_the_mean_spread():
    rng = np.random.default_rng(0)
    middle, width = rng.normal(size=(6, 100)), rng.uniform(1, 2, (6, 100))
    steps = [1, 100, 200, 300, 3_000, 4_000]
    rows = [
        {"step": step, "p15": (m - w / 2).tolist(), "p50": m.tolist(), "p85": (m + w / 2).tolist()}
        for step, m, w in zip(steps, middle, width, strict=True)
    ]
    for last, used in ((3_000, slice(2, 5)), (4_000, slice(2, 6)), (200, slice(2, 3))):
        direct = [
            (max(middle[used, unit]) - min(middle[used, unit])) / np.mean(width[used, unit]) for unit in range(100)
        ]
        assert_allclose(drift(rows, last), direct, atol=1e-12)


def test_the_drift_of_a_cell_is_the_median_over_its_units(live):
    for arm in ("mnist-plain", "mnist-bn"):
        first = live.results().query("arm == @arm and seed == 31").iloc[0]
        steps, units = live.arrays[arm]["unit_drift"]
        assert steps.tolist() == [220]
        assert first["drift"] == pytest.approx(np.median(units[0]))
        columns = {name: live.arrays[arm][name] for name in ("p15", "p50", "p85")}
        late = columns["p50"][0] >= 200
        spread = (columns["p85"][1] - columns["p15"][1])[late].mean(0)
        assert_allclose(units[0], np.ptp(columns["p50"][1][late], axis=0) / spread)
    assert live.results().query("arm == 'plain'")["drift"].isna().all()


# --- what a net is fed


@pytest.mark.parametrize("name", ["mnist", "mnist5k", "fashion-mnist"])
def test_digits_are_binary_and_clothes_grey(name, monkeypatch):
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 256, (n, 28, 28), dtype=np.uint8) for n in (30, 20, 10)]
    labels = [rng.integers(0, 10, len(part)) for part in parts]
    pairs = [array for pair in zip(parts, labels, strict=True) for array in pair]
    monkeypatch.setattr(sigmoid_mlp, "load", lambda asked: {name: data.Dataset(*pairs)}[asked])
    for (x, y), part, label in zip(sigmoid_mlp.images.__wrapped__(name), parts, labels, strict=True):
        assert x.shape == (len(part), 784)
        assert x.dtype == np.float32
        assert_array_equal(y, label)
        if name == "fashion-mnist":
            assert_allclose(x, part.reshape(len(part), 784) / 255, rtol=1e-6)
        else:
            assert_array_equal(x, part.reshape(len(part), 784) >= 128)


def test_a_confirming_cell_is_measured_on_all_test_images_and_a_tuning_cell_on_validation_images():
    train, validation, test = sigmoid_mlp.images("mnist5k")
    for seed, (x, y) in ((31, test), (3, (validation[0][:200], validation[1][:200]))):
        config = tiny(options=sigmoid_mlp.OPTIONS | {"validation_images": 200})
        rows = cell(config, seed=seed)
        net = mlp([784, 100, 100, 100, 10], seed=seed)
        inits.gaussian(net, 0.1, np.random.default_rng([seed, 1]))
        fit(net, *train, lr=1.0, steps=40, batch=60, seed=seed, validation=(x, y), progress=False)
        assert rows[-1]["accuracy"] == accuracy(net, x, y)


# --- what a cell is reduced to


def test_the_score_counts_the_steps_to_the_goal_and_ranks_those_that_missed_it():
    def rows(*values):
        return [{"step": 10 * (i + 1), "accuracy": value} for i, value in enumerate(values)]

    fast, slow = rows(0.9, 0.9, 0.9, 0.9), rows(0.1, 0.9, 0.9, 0.9)
    near, far = rows(0.7, 0.7, 0.7, 0.7), rows(0.1, 0.1, 0.1, 0.1)
    score = [sigmoid_mlp._score(curve, 0.8) for curve in (fast, slow, near, far)]
    assert score[:2] == [-30, -40]
    assert score[2:] == pytest.approx([-40 * 1.3, -40 * 1.9])
    assert sigmoid_mlp._score(rows(0.1, 0.5, 0.6, 0.7), None) == pytest.approx(0.6)


def test_a_summary_agrees_with_the_curve(live):
    summary = live.results().query("arm == 'bn' and seed == 32").iloc[0]
    curve = live.rows.query("arm == 'bn' and seed == 32 and not tuning")
    mean = curve["accuracy"].rolling(3).mean()
    assert summary["best"] == pytest.approx(mean.max())
    assert summary["final"] == pytest.approx(mean.iloc[-1])
    above = curve["step"][mean >= 0.8]
    assert summary["reached_80%"] == bool(len(above))
    assert summary["steps_80%"] == (above.iloc[0] if len(above) else 60)
    assert not summary["reached_95%"]
    assert summary["steps_95%"] == 60


def test_the_clock_times_both_nets(live):
    clock = live.results().query("arm == 'clock'")
    assert (clock[["plain_ms", "bn_ms"]] > 0).all(axis=None)
    rows = live.rows.query("arm == 'clock' and seed == 31")
    assert rows["step"].tolist() == [100]
    assert clock.iloc[0]["bn_ms"] == rows["bn_ms"].iloc[0]


# --- names and functions of one's own


def test_a_function_does_what_the_name_it_stands_for_does():
    config = tiny()

    def same(net, images, rng):
        inits.data_dependent(net, images[rng.choice(len(images), 512, replace=False)])

    for named, own in (
        ({"init": "dd"}, {"init": same}),
        ({"init": "xavier"}, {"init": lambda net, images, rng: None}),
        ({"norm": "bn"}, {"norm": lambda channels: BatchNorm(channels)}),
        ({"optimizer": "adam", "lr": 0.01}, {"optimizer": lambda lr: Adam(lr), "lr": 0.01}),
    ):
        assert cell(config, **own) == cell(config, **named) != cell(config)


@pytest.mark.parametrize("setting", ["norm", "init", "optimizer"])
def test_unknown_names_are_refused_with_the_known_ones(setting):
    known = {"norm": "none, bn", "init": "gaussian, xavier, gain4, dd", "optimizer": "sgd, momentum, adam"}[setting]
    with pytest.raises(core.Refused, match=f"^there is no value 'x': choose from {known}$"):
        cell(tiny(), **{setting: "x"})


def test_each_named_value_gives_a_run_of_its_own():
    config = tiny(arms={"plain": core.Plan("mnist5k", 20, (SETTING,))})
    runs = [cell(config, norm=norm) for norm in sigmoid_mlp.NORMS]
    runs += [cell(config, init=init) for init in sigmoid_mlp.INITS if init != "gaussian"]
    runs += [cell(config, optimizer=optimizer, lr=0.1) for optimizer in sigmoid_mlp.OPTIMIZERS]
    assert len({tuple(row["loss"] for row in rows) for rows in runs}) == len(runs)


# --- claims


def steps(*values, reached=(True, True, True)):
    return {"steps_80%": values, "reached_80%": reached}


def test_claims_are_only_of_arms_that_were_run(live):
    results = live.results()
    assert claims(results.query("arm == 'plain'")) == []
    found = {claim.id.removeprefix("sigmoid-mlp-") for claim in claims(results.query("arm in ['plain', 'bn']"))}
    assert found == {"speed", "max"}
    whole = {claim.id.removeprefix("sigmoid-mlp-") for claim in claims(results)}
    assert whole == {
        *("speed", "max", "accuracy", "drift", "speed-again", "seconds-plain", "step-cost"),
        *("steps-mnist-80", "steps-mnist-90", "steps-mnist-95", "drift-long"),
    }
    own = results.query("arm in ['plain', 'bn']").assign(arm=lambda t: "my-" + t["arm"])
    assert claims(own) == []


def test_claims_compare_the_right_arm_with_the_right_arm():
    table = cells(
        plain=steps(1_000, 1_600, 2_000) | {"best": [0.8, 0.81, 0.82]},
        bn=steps(500, 400, 250) | {"best": [0.85, 0.86, 0.84]},
        dd=steps(300, 300, 300) | {"best": [0.85, 0.85, 0.85]},
        clock={"plain_ms": [1.0, 2.0, 2.0], "bn_ms": [2.0, 8.0, 4.0]},
    )
    found = {claim.id.removeprefix("sigmoid-mlp-"): claim for claim in claims(table.sample(frac=1, random_state=0))}
    assert found["speed"].measured.value == pytest.approx(4)  # 2, 4 and 8
    assert found["max"].measured.value == pytest.approx(4)
    assert found["speed-dd"].measured.value == pytest.approx((300**3 / (500 * 400 * 250)) ** (1 / 3))
    assert found["max-dd"].measured.value == pytest.approx(0, abs=1e-9)
    assert found["step-cost"].measured.value == pytest.approx((2 * 4 * 2) ** (1 / 3))
    assert found["seconds-plain"].measured.value == pytest.approx(4 * 2 / 4)
    assert found["speed"].seeds == (11, 12, 13)
    assert "3,000 steps" in found["max"].statement


def test_a_level_that_was_missed_makes_the_ratio_a_bound():
    table = cells(plain=steps(3_000, 3_000, 3_000, reached=(False,) * 3), bn=steps(500, 400, 250))
    (speed,) = [claim for claim in claims(table.assign(best=0.8)) if claim.id == "sigmoid-mlp-speed"]
    assert speed.measured.bound == "≥"
    assert speed.measured.value == pytest.approx(7.5)
    assert speed.verdict == "agrees"


@pytest.mark.parametrize(
    ("dataset", "fidelity"), [("mnist", SAME), ("fashion-mnist", ANALOGUE), ("mnist5k", ANALOGUE)]
)
def test_only_mnist_is_the_papers_setting(dataset, fidelity):
    table = cells(mnist_plain={"final": 0.97, "drift": 4.0}, mnist_bn={"final": 0.98, "drift": 1.0})
    levels = {
        f"{kind}_{level}%": value for kind, value in (("steps", 100), ("reached", True)) for level in (80, 90, 95)
    }
    table = table.assign(dataset=dataset, drift_whole=1.0, **levels)
    found = {claim.id: claim for claim in claims(table)}
    assert found["sigmoid-mlp-accuracy"].fidelity == found["sigmoid-mlp-drift"].fidelity == fidelity
    assert found["sigmoid-mlp-accuracy"].measured.value == pytest.approx(1.0)
    assert found["sigmoid-mlp-drift"].measured.value == pytest.approx(4.0)


def test_a_whole_full_run_gives_every_claim_once():
    plans = sigmoid_mlp.PRESETS["full"].arms
    numbers = {"best": 0.8, "final": 0.8, "drift": 1.0, "drift_whole": 1.0, "plain_ms": 1.0, "bn_ms": 1.0}
    numbers |= {f"steps_{level:.0%}": 100.0 for level in sigmoid_mlp.LEVELS}
    numbers |= {f"reached_{level:.0%}": True for level in sigmoid_mlp.LEVELS}
    rows = [
        {"arm": arm, "seed": seed, "dataset": plan.dataset, "steps": plan.steps, **numbers}
        for arm, plan in plans.items()
        for seed in sigmoid_mlp.PRESETS["full"].confirming(arm)
    ]
    found = claims(pd.DataFrame(rows))
    ids = [claim.id for claim in found]
    assert len(ids) == len(set(ids)) == 27
    assert all(claim.measured.value in (pytest.approx(1), pytest.approx(0)) for claim in found)
    assert not any("{" in claim.statement for claim in found)
    assert {claim.id.removeprefix("sigmoid-mlp-") for claim in found if claim.threshold is not None} == {
        *("speed", "max", "accuracy", "drift"),
    }


def test_an_own_arm_is_drawn_beside_the_others(live):
    axes = Figure().subplots()
    rows = live.rows.query("arm == 'bn'")
    sigmoid_mlp.draw(pd.concat([rows, rows.assign(arm="mine")]), axes)
    assert [line.get_label() for line in axes.lines] == ["BN", "mine"]
    assert axes.lines[1].get_color() != axes.lines[0].get_color()
