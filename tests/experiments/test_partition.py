"""The experiment on the partition: its starts and interventions, what is measured, and that each claim can fail."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from bnlib.experiments import partition, runner
from bnlib.experiments.core import ANALOGUE, REPORT, SAME, Refused
from bnlib.experiments.partition import (
    ARMS,
    STARTS,
    TRAINED,
    away,
    build,
    claims,
    evaluations,
    farthest,
    largest,
    layers_of,
    margin,
    spiral,
    start,
    summarize,
    weights_of,
)
from bnlib.scratch.layers import BatchNorm
from bnlib.theory.partition import fold_batch, nearest, preactivations

FULL = partition.PRESETS["full"]
SIZES = (2, 24, 24, 24, 2)


def short(steps=25, **changes):
    """The full config with few steps, two rates and small nets."""
    plans = {
        arm: dataclasses.replace(
            plan, steps=steps if "lr" in plan.settings[0] else plan.steps, settings=plan.settings[2:4]
        )
        if len(plan.settings) > 1
        else plan
        for arm, plan in FULL.arms.items()
    }
    options = FULL.options | {"hidden": (6, 6, 6), "samples": 128, "batches": 40, "sizes": (8, 16, 32, 64, 128)}
    return dataclasses.replace(FULL, arms=plans, options=options, tuning_seeds=(1, 2), **changes)


def cell(arm, seed=11, config=FULL, **setting):
    return runner.one_cell("partition", config, arm, seed, config.arms[arm].settings[0] | setting)["rows"]


# --- data and starts


def test_the_spiral_is_standardized_then_shifted_and_has_two_arms():
    x, labels = spiral(np.random.default_rng(0), 4_000, 3.0)
    assert_allclose(x.mean(0), 3)
    assert_allclose(x.std(0), 1)
    centred = x - 3
    assert_allclose(spiral(np.random.default_rng(0), 4_000)[0], centred, atol=1e-12)
    assert abs(labels.mean() - 0.5) < 0.03
    radius = np.linalg.norm(centred, axis=1) / 2  # std 1 in the plane: a disk of radius 2
    angle = np.angle(centred @ [1, 1j]) - np.pi * (3 * radius + labels)
    inside = radius > 0.2
    assert np.cos(angle)[inside].mean() > 0.9
    assert np.mean(np.square(radius) < 0.5) == pytest.approx(0.5, abs=0.03)  # evenly over the disk


def test_the_starts_do_what_their_line_says():
    x = spiral(np.random.default_rng(1), 512, 3.0)[0]
    weights = weights_of(5, SIZES)[:-1]
    found = {init: start(init, x, weights, 5) for init in STARTS}
    for init in ("zero", "random", "centre", "centre-away"):
        for (weight, _), given in zip(found[init], weights, strict=True):
            assert_allclose(weight, given)
    assert all((bias == 0).all() for _, bias in found["zero"])
    for weight, bias in found["random"]:
        assert 0.8 * weight.shape[1] ** -0.5 < np.abs(bias).max() < weight.shape[1] ** -0.5
    for z in preactivations(x, found["centre"]):
        assert_allclose(z.mean(0), 0, atol=1e-12)
    for z in preactivations(x, found["bn-init"]):
        assert_allclose(z.mean(0), 0, atol=1e-12)
        assert_allclose(z.std(0), 1, atol=1e-3)
    for z in preactivations(x, found["centre-away"]):
        assert_allclose(z.mean(0) / z.std(0), away(24), rtol=1e-9)
        assert ((z > 0).mean(0) > 0.98)[::2].all()
        assert ((z > 0).mean(0) < 0.02)[1::2].all()


def test_he_weights_are_the_same_for_all_starts_and_norms():
    x = spiral(np.random.default_rng(1), 64, 3.0)[0]
    plain, bn = (build(SIZES, 7, "zero", norm, x, float) for norm in (None, "bn"))
    for one, other, weight in zip(partition.linears(plain), partition.linears(bn), weights_of(7, SIZES), strict=True):
        assert_allclose(one.params["weight"], weight)
        assert_allclose(other.params["weight"], weight)
    assert weights_of(7, (400, 300, 2))[0].std() == pytest.approx(np.sqrt(2 / 400), rel=0.02)


@pytest.mark.parametrize(("norm", "moved"), [("bn", 3), ("bn-away", 1), ("bn-held", 0)])
def test_beta_starts_off_the_data_and_is_held_where_the_arm_says(norm, moved):
    """Off the data a shift of layer 1 or 2 is a shift of its whole output, which the next mean takes away."""
    config = short()
    x, labels = spiral(np.random.default_rng(2), 64, 3.0)
    net = build((2, 6, 6, 6, 2), 3, "zero", norm, x, float)
    norms = [layer for layer in net.layers if isinstance(layer, BatchNorm)]
    first = away(6) if norm != "bn" else np.zeros(6)
    for layer in norms:
        assert_allclose(layer.params["beta"], first)
    partition._train(config, "bn-shifted", net, [(x, labels)] * 3, 1, 1.0)
    still = [np.allclose(layer.params["beta"], first) for layer in norms]
    assert still == [True] * (3 - moved) + [False] * moved
    assert not any(np.allclose(layer.params["gamma"], 1) for layer in norms)


def test_unknown_starts_and_norms_are_refused():
    with pytest.raises(Refused, match="did you mean centre"):
        cell("map-zero-shifted", init="center")
    with pytest.raises(Refused, match="there is no norm 'batch'"):
        cell("zero-shifted", norm="batch", lr=0.1)


def test_a_start_of_ones_own_is_used():
    seen = []

    def own(x, weights):
        seen.append((x.shape, [w.shape for w in weights]))
        return start("centre", x, weights, 11)

    mine, ours = (cell("zero-shifted", config=short(), init=init, lr=0.03) for init in (own, "centre"))
    assert mine == ours
    assert seen == [((128, 2), [(6, 2), (6, 6), (6, 6)])]


# --- what is measured


def test_a_map_measures_the_net_of_its_depth():
    rows = cell("map-bn-init-shifted", seed=1, config=short())
    x = spiral(np.random.default_rng([1, 10]), 128, 3.0)[0]
    layers = fold_batch(x, weights_of(1, (2, 6, 6, 6, 2))[:-1], eps=1e-5)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert_allclose([row["loss"] for row in rows], [nearest(x, layers[:d]).mean() for d in (1, 2, 3)], rtol=1e-9)
    assert rows[0]["regions"] == 12
    assert rows[0]["cutting"] == 1
    assert max(row["excess_error"] for row in rows) < 1e-12
    plain = cell("map-zero-shifted", seed=1, config=short())
    z = x @ weights_of(1, (2, 6, 6, 6, 2))[0].T
    assert plain[0]["excess"] == pytest.approx((np.square(z).mean(0) / z.var(0)).mean())
    off = cell("map-centre-away-shifted", seed=1, config=short())
    assert off[0]["excess"] == pytest.approx(10)


@pytest.mark.filterwarnings("ignore:divide by zero")  # the law of the whole data set is 0
def test_jitter_is_taken_without_replacement_and_follows_its_law():
    config = short()
    config = dataclasses.replace(config, options=config.options | {"batches": 400})
    rows = cell("jitter", seed=3, config=config)
    assert [row["size"] for row in rows] == [8, 16, 32, 64, 128]
    assert all(row["loss"] == pytest.approx(1, abs=0.12) for row in rows[:-1])
    assert rows[-1]["move_3"] < 1e-9  # the whole data set
    moves = [[row[f"move_{k}"] for row in rows] for k in (1, 2, 3)]
    assert all(move == sorted(move, reverse=True) for move in moves)
    sides = [row["sides_3"] for row in rows]
    assert 0 == sides[-1] < sides[0] < 0.5


def test_folded_layers_of_a_net_with_bn_are_the_net_on_its_training_set():
    x = spiral(np.random.default_rng(2), 64, 3.0)[0]
    net = build((2, 6, 6, 6, 2), 3, "zero", "bn-away", x, float)
    hidden = np.maximum(preactivations(x, layers_of(net, x))[-1], 0)
    last = net.layers[-1].params
    assert_allclose(hidden @ last["weight"].T + last["bias"], net.forward(x, training=True), atol=1e-9)


def test_the_margin_is_the_distance_to_where_the_answer_changes():
    x, labels = spiral(np.random.default_rng(4), 40)
    net = build((2, 6, 6, 6, 2), 3, "centre", None, x, float)
    net.layers[-1].params["bias"][:] = [0.1, -0.1]  # else no class wins where all units of layer 3 are off
    answer = net.forward(x).argmax(1)
    way = np.linspace(0, 4, 1_000)
    rays = np.stack([np.cos(t := np.linspace(0, 2 * np.pi, 180, endpoint=False)), np.sin(t)], 1)
    walked, right = [], x[answer == labels]
    for point, label in zip(right, answer[answer == labels], strict=True):
        around = point + way[:, None, None] * rays
        other = (net.forward(around.reshape(-1, 2)).argmax(1) != label).reshape(1_000, 180).any(1)
        border = 4 - np.abs(point - x.mean(0)).max()
        walked.append(min(way[other.argmax()] if other.any() else np.inf, border))
    assert margin(net, x, x, labels) == pytest.approx(np.mean(walked), rel=0.02)


def test_a_rate_that_diverges_is_a_result():
    rows = cell("zero-shifted", seed=1, config=short(), lr=1e200)
    assert np.isnan(rows[-1]["loss"])
    summary = summarize(rows)
    assert (summary["score"], summary["error"], summary["train_loss"]) == (0.5, 50, np.inf)


@pytest.mark.parametrize("steps", [1, 20, 25, 300, 1_000])
def test_evaluations_hold_the_first_steps_and_the_last(steps):
    chosen = evaluations(steps)
    assert chosen[: min(steps, 20)] == list(range(1, min(steps, 20) + 1))
    assert chosen[-1] == steps
    assert chosen == sorted(set(chosen))


def test_every_trained_arm_has_the_same_rates_and_no_seed_is_used_twice():
    rates = {tuple(s["lr"] for s in FULL.arms[arm].settings) for arm in TRAINED}
    assert len(rates) == 1
    assert len(FULL.seeds) == 10
    assert set(FULL.arms) == set(ARMS)


# --- claims


def table(**changes):
    """Cells of all arms as the claims want them; a change is (arm, column) -> values."""
    columns = {"distance": 1.0, "regions": 10.0, "cutting": 0.5, "excess_error": 1e-15, "train_loss": 0.1}
    columns |= {"error": 5.0, "margin": 0.2}
    jittered = {f"{key}_{size}": 1.0 for size in (8, 16, 32, 64, 128, 256) for key in ("place", "deep_2", "deep_3")}
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "dataset": plan.dataset,
            "steps": plan.steps,
            **columns,
            **jittered,
            "sides_3_32": 9.0,
        }
        for arm, plan in FULL.arms.items()
        for seed in FULL.seeds
    ]
    frame = pd.DataFrame(rows)
    for place, value in (("shifted", 0.2), ("centred", 0.6)):
        frame.loc[frame["arm"] == f"map-bn-init-{place}", "distance"] = value
    frame.loc[frame["arm"] == "zero-shifted", "error"] = 30.0
    for (arm, column), values in changes.get("changes", {}).items():
        frame.loc[frame["arm"] == arm, column] = values
    return {claim.id.removeprefix("partition-"): claim for claim in claims(frame)}


THRESHOLDS = {
    "least-squares": (None, 1e-12),
    "distance-shifted-zero": (None, 0.35),
    "distance-shifted-random": (None, 0.35),
    "distance-centred-zero": (None, 0.7),
    "distance-centred-random": (None, 0.7),
    "jitter-place": (0.85, 1.15),
    "jitter-layer-2": (0.85, 1.15),
    "jitter-layer-3": (0.85, 1.15),
    "error-centre": 10.0,
}


def test_thresholds_are_those_fixed_beforehand_and_margins_are_report_only():
    found = table()
    assert {name: claim.threshold for name, claim in found.items() if claim.threshold is not None} == THRESHOLDS
    assert {name for name, claim in found.items() if claim.fidelity == SAME} == {"least-squares", "jitter-place"}
    assert {found[name].verdict for name in found if name.startswith("margin")} == {REPORT}
    assert not any("{" in claim.statement for claim in found.values())
    held = {name: found[name].verdict for name in THRESHOLDS}
    assert set(held.values()) == {"agrees", "reproduced"}
    assert {claim.fidelity for claim in found.values()} == {SAME, ANALOGUE}


@pytest.mark.parametrize(
    ("arm", "column", "value", "claim"),
    [
        ("map-bn-init-shifted", "excess_error", 1e-9, "least-squares"),
        ("map-random-shifted", "distance", 0.5, "distance-shifted-random"),
        ("map-zero-centred", "distance", 0.8, "distance-centred-zero"),
        ("jitter", "place_256", 0.8, "jitter-place"),
        ("jitter", "deep_2_64", 1.2, "jitter-layer-2"),
        ("jitter", "deep_3_32", 1.2, "jitter-layer-3"),
        ("centre-shifted", "error", 25.0, "error-centre"),
    ],
)
def test_a_claim_can_fail(arm, column, value, claim):
    good, bad = table(), table(changes={(arm, column): value})
    changed = {name for name in good if good[name].verdict != bad[name].verdict}
    assert claim in changed
    assert changed <= set(THRESHOLDS)
    assert bad[claim].verdict in ("disagrees", "not reproduced", "partly", "mixed")


def test_a_ratio_is_paired_by_seed():
    seeds = np.arange(1.0, 11)
    found = table(changes={("bn-shifted", "margin"): 2 * seeds, ("centre-shifted", "margin"): seeds})
    assert found["margin-centre"].measured.value == pytest.approx(2)
    assert found["margin-centre"].measured.spread == pytest.approx((2, 2))


def test_the_worst_counts_and_the_range_is_told():
    part = pd.DataFrame({"a": [0.9, 1.1], "b": [0.8, 0.8]})
    value, spread, _ = farthest("a", "b")(part)
    assert (value, *spread) == pytest.approx((0.8, 0.8, 1.0))
    assert largest("a")(part, part) == (1.1, (0.9, 1.1), "")


# --- the record


def test_a_record_gives_the_same_claims(kept, monkeypatch):
    arms = (
        "map-bn-init-shifted",
        "map-zero-shifted",
        "zero-shifted",
        "centre-shifted",
        "bn-shifted",
        "bn-held-shifted",
    )
    config = short(seeds=(11, 12))
    config = dataclasses.replace(config, arms={arm: config.arms[arm] for arm in arms})
    monkeypatch.setitem(partition.PRESETS, "full", config)
    live = runner.run("partition", "full", progress=False)
    again = kept(live)
    axes = Figure().subplots()
    partition.draw(again.rows, axes)
    assert [line.get_label() for line in axes.lines] == [
        partition.LOOKS[arm]["label"] for arm in arms if arm in partition.LOOKS
    ]


def test_digits_start_as_the_arm_says():
    config = dataclasses.replace(
        FULL, arms={arm: dataclasses.replace(plan, steps=2) for arm, plan in FULL.arms.items()}
    )
    rows = {arm: cell(arm, config=config, lr=0.01) for arm in partition.DIGITS}
    assert len({row[0]["loss"] for row in rows.values()}) == 3
    assert all(row[-1]["step"] == 2 and 0 <= row[-1]["error"] <= 100 for row in rows.values())
