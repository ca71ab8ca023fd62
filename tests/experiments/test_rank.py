"""The experiment on rank: what a layer is made of, starts that keep or destroy it, and claims that can fail."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from bnlib.experiments import rank as experiment
from bnlib.experiments import runner
from bnlib.experiments.core import REPORT, SAME, Refused
from bnlib.experiments.rank import ARMS, DEEPEST, DEPTHS, TRAINED, batch, build, claims, looked, summarize, untrained
from bnlib.nets import inits
from bnlib.nets.images import images
from bnlib.nets.norms import BatchNorm
from bnlib.theory.rank import cosines, layer, lyapunov, random_weights, rank, relu_stable_rank

FULL = experiment.PRESETS["full"]


def is_trained(arm):
    return FULL.arms[arm].dataset != "generated"


def short(layers=25, steps=22, **changes):
    """The full config with few layers or steps and two rates."""
    plans = {
        arm: dataclasses.replace(plan, steps=steps, settings=plan.settings[1:3])
        if is_trained(arm)
        else dataclasses.replace(plan, steps=layers)
        for arm, plan in FULL.arms.items()
    }
    return dataclasses.replace(FULL, arms=plans, tuning_seeds=(1,), **changes)


def cell(arm, seed=11, config=None, **setting):
    config = config or short()
    return runner.one_cell("rank", config, arm, seed, config.arms[arm].settings[0] | setting)["rows"]


def digits():
    (x, labels), *_ = images("mnist5k")
    return x.flatten(1), labels


# --- untrained nets


def test_a_cluster_has_a_centre_and_isotropic_inputs_have_none():
    cluster = batch(np.random.default_rng(1), "cluster", 2_000, 50)
    assert_allclose(cluster.std(0), experiment.SPREAD, rtol=0.1)
    assert np.abs(cluster.mean(0)).mean() > 0.5
    isotropic = batch(np.random.default_rng(1), "isotropic", 2_000, 50)
    assert np.abs(isotropic.mean(0)).max() < 0.1
    assert_allclose(cluster - cluster.mean(0), experiment.SPREAD * (isotropic - isotropic.mean(0)), atol=1e-12)


@pytest.mark.parametrize(
    ("arm", "relu", "norm"), [("linear-none", False, {}), ("relu-bn", True, {"mean": True, "scale": True})]
)
def test_a_row_is_the_rank_behind_its_layer(arm, relu, norm):
    rows = cell(arm, seed=3)
    h, rng = batch(np.random.default_rng([3, 1]), "cluster", 32, 128), np.random.default_rng([3, 0])
    for row in rows[:4]:
        h = layer(h, random_weights(rng, 128, 128, relu=relu), relu=relu, **norm)
        assert (row["loss"], row["count"], row["gap"]) == pytest.approx(rank(h))
    assert [row["step"] for row in rows][:21] == [*range(1, 21), 21]
    assert rows[-1]["step"] == 25
    assert ("volume" in rows[0]) == (arm == "linear-none")


def test_bn_makes_the_same_of_the_cluster_and_of_isotropic_inputs():
    for net in ("linear", "relu"):
        one, other = cell(f"{net}-bn"), cell(f"{net}-isotropic-bn")
        assert_allclose([row["loss"] for row in one], [row["loss"] for row in other], rtol=1e-9)


def test_orthogonal_weights_keep_the_rank_of_a_linear_net_only():
    start = rank(batch(np.random.default_rng([11, 1]), "cluster", 32, 128)).stable
    assert_allclose([row["loss"] for row in cell("linear-orthogonal")], start, rtol=1e-9)
    relu = [row["loss"] for row in cell("relu-orthogonal")]
    assert relu[-1] < 1.06 < relu[0]
    assert cell("relu-mirrored")[-1]["count"] == 32


@pytest.mark.parametrize("depth", [1, 20, 25, 100, 200])
def test_the_layers_looked_at_hold_the_first_and_the_last(depth):
    chosen = sorted(looked(depth))
    assert chosen[: min(depth, 20)] == list(range(1, min(depth, 20) + 1))
    assert chosen[-1] == depth
    assert len(chosen) <= 40
    assert depth < 100 or {50, 100} <= {*chosen}


# --- trained nets


def test_mirrored_nets_are_linear_before_training_and_keep_the_cosines_of_their_blocks():
    x, _ = digits()
    net = build(10, "mirrored", None, 4, x).double()
    h, first = x[:20].double(), None
    with torch.no_grad():
        for part in list(net)[:-1]:
            h = part(h)
            if h.shape[1] == 100:
                z = (h[:, :50] - h[:, 50:]).numpy()
                first = z if first is None else first
    assert_allclose(cosines(z), cosines(first), atol=1e-6)


def test_the_starts_do_what_their_line_says():
    x, labels = digits()
    seen = {
        name: untrained(build(10, init["init"], init.get("start"), 11, x), x, labels, 32)
        for name, (init, _) in TRAINED.items()
    }
    assert seen["mirrored"]["count"] == seen["tenth"]["count"] == seen["bn"]["count"] == seen["dd"]["count"] == 32
    assert seen["thousandth"]["count"] == 2  # one direction, behind a ReLU its positive and its negative part
    assert seen["bn-twins"]["count"] <= 8
    assert seen["bn"]["stable"] > 2 * seen["he"]["stable"]
    assert abs(seen["thousandth"]["growth"]) < 0.2  # so the rank is destroyed and not the gradient
    assert seen["bn"]["growth"] > 0.3
    net = build(10, "he", "dd", 11, x)
    z = x[:512]
    with torch.no_grad():
        for part in list(net)[:4]:
            z = part(z)
    for found in (build(10, "he", "bn", 11, x), build(10, "twins", "bn", 11, x)):
        assert sum(isinstance(module, BatchNorm) for module in found.modules()) == 10
    assert not any(isinstance(module, BatchNorm) for module in net.modules())


def test_growth_is_the_ratio_of_two_gradients():
    x, labels = digits()
    net = build(3, "he", None, 5, x).double()
    loss = torch.nn.functional.cross_entropy(net(x[:256].double()), labels[:256])
    grads = torch.autograd.grad(loss, [part.weight for part in inits.layers(net)])
    expected = float(torch.log10(grads[1].norm() / grads[2].norm()))
    assert untrained(build(3, "he", None, 5, x), x, labels, 32)["growth"] == pytest.approx(expected)


def test_a_start_of_ones_own_takes_the_place_of_the_arms():
    seen = []

    def own(rng, sizes):
        seen.append(tuple(sizes))
        return experiment.INITS["he"](rng, sizes)

    assert cell("orthogonal-10", init=own, lr=0.01) == cell("he-10", lr=0.01)
    assert seen[0] == (784, *[100] * 10)
    with pytest.raises(ValueError, match="weights must be"):
        cell("he-10", init=lambda rng, sizes: [np.ones((3, 3))] * 10)
    with pytest.raises(Refused, match="no init 'mirror'"):
        cell("he-10", init="mirror")


def test_a_rate_that_diverges_is_a_result():
    rows = cell("he-10", lr=1e10)
    assert np.isnan(rows[-1]["loss"])
    assert summarize(rows)["right"] == 10


def test_every_trained_arm_has_as_many_rates_and_no_seed_is_used_twice():
    assert {len(FULL.arms[arm].settings) for arm in ARMS if is_trained(arm)} == {5}
    assert set(FULL.arms) == set(ARMS)
    assert {f"{name}-{depth}" for depth in DEPTHS for name in TRAINED if depth < 64 or name in DEEPEST} <= set(ARMS)
    assert len(FULL.seeds) == 5


# --- claims


def table(changes=()):
    """Cells of all arms as the claims want them; a change is (arm, column, values)."""
    columns = {"stable": 3.0, "apart": 0.3, "count": 20, "count_first": 32, "stable_first": 1.1, "count_least": 20}
    columns |= {"volume": lyapunov(128, 32).sum(), "right": 80.0, "growth": 0.1}
    rows = [
        {"arm": arm, "seed": seed, "dataset": plan.dataset, "steps": plan.steps, **columns}
        for arm, plan in FULL.arms.items()
        for seed in FULL.seeds
    ]
    frame = pd.DataFrame(rows)
    frame.loc[frame["arm"].isin(["linear-none", "relu-none"]), "count"] = 3
    for arm, column, values in changes:
        frame.loc[frame["arm"] == arm, column] = values
    return {claim.id.removeprefix("rank-"): claim for claim in claims(frame)}


THRESHOLDS = {
    **{f"count-first-{net}": (31, None) for net in ("linear", "relu")},
    **{f"count-last-{net}": (None, 6) for net in ("linear", "relu")},
    **{f"count-bn-{net}": (16, None) for net in ("linear", "relu")},
    "relu-theory": (0.92, 1.08),
    "volume": (0.95, 1.05),
}


def test_thresholds_are_those_fixed_beforehand_and_training_is_report_only():
    found = table()
    assert {name: claim.threshold for name, claim in found.items() if claim.threshold is not None} == THRESHOLDS
    assert {found[name].verdict for name in THRESHOLDS} == {"agrees", "reproduced"}
    assert {name for name, claim in found.items() if claim.fidelity == SAME} == {"volume"}
    assert {claim.verdict for name, claim in found.items() if name.startswith("train")} == {REPORT}
    assert not any("{" in claim.statement for claim in found.values())
    assert sum(name.startswith("train") for name in found) == 8 + 8 + 4


@pytest.mark.parametrize(
    ("arm", "column", "values", "claim"),
    [
        ("linear-none", "count_first", [32, 32, 30, 32, 32], "count-first-linear"),
        ("relu-none", "count", [3, 3, 7, 3, 3], "count-last-relu"),
        ("linear-bn", "count_least", [20, 20, 20, 20, 15], "count-bn-linear"),
        ("relu-bn", "stable", 0.9 * relu_stable_rank(32), "relu-theory"),
        ("linear-none", "volume", 1.1 * lyapunov(128, 32).sum(), "volume"),
    ],
)
def test_a_claim_can_fail_by_one_seed_where_the_worst_counts(arm, column, values, claim):
    good, bad = table(), table([(arm, column, values)])
    assert {name for name in good if good[name].verdict != bad[name].verdict} == {claim}


def test_the_order_of_the_arms_is_that_of_ranks():
    arms = [f"{name}-10" for name in TRAINED]
    places = {arm: place for place, arm in enumerate(arms)}
    changes = [(arm, "count", 2 * place) for arm, place in places.items()]
    changes += [(arm, "right", 10 + place**2) for arm, place in places.items()]
    assert table(changes)["order-count-10"].measured.value == pytest.approx(1)
    changes += [(arm, "right", 90 - place**2) for arm, place in places.items()]
    found = table(changes)["order-count-10"].measured
    assert (found.value, *found.spread) == pytest.approx((-1, -1, -1))


def test_a_difference_is_paired_by_seed():
    found = table([("mirrored-32", "right", [81, 82, 83, 84, 85]), ("he-32", "right", [51, 52, 53, 54, 55])])
    measured = found["train-kept-32"].measured
    assert (measured.value, *measured.spread) == pytest.approx((30, 30, 30))


# --- the record


def test_a_record_gives_the_same_claims(kept, monkeypatch):
    arms = ("linear-none", "linear-bn", "relu-none", "relu-bn", "he-10", "mirrored-10", "bn-10", "bn-twins-10")
    config = short(seeds=(11, 12))
    config = dataclasses.replace(config, arms={arm: config.arms[arm] for arm in arms})
    monkeypatch.setitem(experiment.PRESETS, "full", config)
    live = runner.run("rank", "full", progress=False)
    again = kept(live)
    for column in ("loss", "count"):
        axes = Figure().subplots()
        experiment.draw(again.rows, axes, column)
        assert [line.get_label() for line in axes.lines] == [look["label"] for look in experiment.LOOKS.values()]
