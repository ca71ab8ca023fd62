"""The nets and layers of the experiment, what is measured of them, and the verdicts that follow."""

import copy
import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal

from bnlib.experiments import further_claims, runner
from bnlib.experiments.core import ANALOGUE, SAME
from bnlib.experiments.further_claims import (
    INITS,
    NORMS,
    Centred,
    Ghost,
    build,
    claims,
    evaluations,
    exact,
    ghost,
    hidden,
    inspect,
    lengths,
    outside,
    share_saturated,
    summarize,
)
from bnlib.experiments.further_rows import grown, grown_alone, largest, mean, over, statements, steps, times
from bnlib.scratch import inits
from bnlib.scratch.batchnorm import batchnorm_backward, batchnorm_forward
from bnlib.scratch.layers import BatchNorm, Linear, Sigmoid

FULL = further_claims.PRESETS["full"]


def short(*arms, steps=40):
    """The lite data with these arms of the full scale, few steps, one rate."""
    plans = {}
    for arm in arms:
        plan = FULL.arms[arm]
        plans[arm] = dataclasses.replace(
            plan, dataset="mnist5k", steps=steps, settings=plan.settings[2:3] or plan.settings
        )
    return dataclasses.replace(further_claims.PRESETS["lite"], arms=plans, seeds=(31, 32))


def cell(arm, seed=31, steps=40, **setting):
    config = short(arm, steps=steps)
    return runner.one_cell("further-claims", config, arm, seed, config.arms[arm].settings[0] | setting)["rows"]


@pytest.fixture
def x():
    return np.random.default_rng(3).normal(size=(160, 784)).astype(np.float32)


# --- layers


def test_constant_statistics_leave_two_parts_of_the_gradient_out(x):
    z, dy = x[:64, :9].astype(float), np.random.default_rng(4).normal(size=(64, 9))
    gamma, beta = np.full(9, 1.5), np.zeros(9)
    _, cache = batchnorm_forward(z, gamma, beta)
    t = torch.tensor(z, requires_grad=True)
    mean, std = t.mean(0).detach(), (t.var(0, correction=0) + 1e-5).sqrt().detach()
    (1.5 * (t - mean) / std * torch.tensor(dy)).sum().backward()
    dx, dgamma, dbeta = outside(dy, cache)
    assert_allclose(dx, t.grad.numpy(), rtol=1e-10)
    assert np.abs(dx - batchnorm_backward(dy, cache)[0]).max() > 1e-3
    assert_allclose(dgamma, batchnorm_backward(dy, cache)[1])
    assert_allclose(dbeta, dy.sum(0))


def test_centring_subtracts_the_batch_mean_and_then_the_running_one(x):
    layer = Centred(9)
    y = layer.forward(x[:64, :9] + 3)
    assert_allclose(y.mean(0), 0, atol=1e-6)
    assert_allclose(y.std(0), x[:64, :9].std(0), rtol=1e-5)
    assert_array_equal(layer.backward(y), y)
    assert_allclose(layer.running.mean, 0.1 * (x[:64, :9] + 3).mean(0), rtol=1e-5)
    assert_allclose(layer.forward(0 * y, training=False)[0], -layer.running.mean, rtol=1e-5)


def test_ghost_batches_are_bn_part_by_part(x):
    z, dy = x[:64, :9].astype(float), np.random.default_rng(4).normal(size=(64, 9))
    rng, parts = np.random.default_rng(5), Ghost(16)
    gamma, beta = rng.normal(size=(2, 9))
    y, cache = parts.forward(z, gamma, beta, 1e-5)
    found, total = parts.backward(dy, cache), [0, 0]
    for k in range(0, 64, 16):
        one, kept = batchnorm_forward(z[k : k + 16], gamma, beta)
        dx, *grads = batchnorm_backward(dy[k : k + 16], kept)
        assert_allclose(y[k : k + 16], one, atol=1e-10)
        assert_allclose(found[0][k : k + 16], dx, atol=1e-10)
        total = [a + b for a, b in zip(total, grads, strict=True)]
    assert_allclose(found[1], total[0])
    assert_allclose(found[2], total[1])
    with pytest.raises(ValueError, match="no parts of 16"):
        parts.forward(z[:60], gamma, beta, 1e-5)
    layer = ghost(9, 16)
    layer.forward(x[:64, :9])
    assert_allclose(layer.running.mean, 0.1 * x[:64, :9].mean(0), atol=1e-6)


@pytest.mark.parametrize(("place", "kinds"), [("before", "LBA"), ("after", "LAB")])
def test_the_norm_stands_where_it_is_asked_for(place, kinds):
    net = build("sigmoid", 3, "bn", place, 0)
    letters = {Linear: "L", BatchNorm: "B", Sigmoid: "A"}
    assert "".join(letters[type(layer)] for layer in net.layers) == 3 * kinds + "L"
    plain = build("sigmoid", 3, "none", place, 0)
    assert not any(isinstance(layer, BatchNorm) for layer in plain.layers)
    for one, other in zip(inits.linears(net), inits.linears(plain), strict=True):
        assert_array_equal(one.params["weight"], other.params["weight"])


# --- what is measured


def test_hidden_gives_the_inputs_and_outputs_of_each_nonlinearity(x):
    net = build("relu", 3, "bn", "after", 0)
    before = copy.deepcopy(net)
    parts = hidden(net, x)
    assert len(parts) == 3
    for part in parts:
        assert_array_equal(part["h"], np.maximum(part["y"], 0))
    for one, other in zip(parts[:-1], parts[1:], strict=True):
        assert_array_equal(one["z"], other["y"])  # the norm is after: nothing stands between
        h = (one["h"] - one["h"].mean(0)) / np.sqrt(one["h"].var(0) + 1e-5)
        assert_allclose(one["z"], h @ one["weight"].T, atol=1e-4)
    for layer, old in zip(net.layers, before.layers, strict=True):
        if isinstance(layer, BatchNorm):
            assert layer.running.count == old.running.count == 0


def test_inspection_of_a_net_agrees_with_a_way_of_its_own(x):
    net = build("sigmoid", 3, "bn", "before", 0)
    found = inspect(net, x, 2, np.random.default_rng(0))
    singular = []
    for part in hidden(net, x)[:-1]:
        for i in range(2):
            slopes = part["h"][i] * (1 - part["h"][i])
            j = np.diag(1 / part["z"].std(0)) @ part["weight"] @ np.diag(slopes) @ np.diag(part["y"].std(0))
            singular.append(np.linalg.svd(j, compute_uv=False))
    singular = np.concatenate(singular)
    assert found["near_one"] == pytest.approx(np.mean((singular >= 0.5) & (singular <= 2)))
    assert found["rms"] == pytest.approx(np.sqrt((singular**2).mean()), rel=1e-4)
    assert found["saturated"] == share_saturated(net, x) == [0, 0, 0]
    assert set(found) > {"amplified", "stuck", "u_skew", "wu_zeros", "explained", "correlation", "linear_near_one"}
    assert "near_one" not in inspect(build("sigmoid", 3, "bn", "after", 0), x, 2, np.random.default_rng(0))


def test_wide_weights_saturate_sigmoids_and_bn_does_not_care(x):
    for norm, low, high in (("none", 0.5, 1.0), ("bn", 0.0, 0.01)):
        net = build("sigmoid", 3, norm, "before", 0)
        INITS["wide"](net, x, np.random.default_rng(1))
        assert low <= np.mean(share_saturated(net, x)) <= high


@pytest.mark.parametrize("norm", ["none", "bn"])
def test_a_change_is_amplified_by_the_ratio_of_relative_changes(x, norm):
    net = build("relu", 3, norm, "before", 0)
    found = further_claims._amplified(net, x, hidden(net, x), np.random.default_rng(7))
    first = inits.linears(net)[0].params["weight"]
    step = np.random.default_rng(7).normal(size=first.shape)
    moved = first + 1e-3 * np.linalg.norm(first) * step / np.linalg.norm(step)
    paths = []
    for weight in (first, moved):
        h, path = x.astype(float), []
        for w in (weight, *(layer.params["weight"] for layer in inits.linears(net)[1:-1])):
            z = h @ w.T
            path.append(z if norm == "none" else (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5))
            h = np.maximum(path[-1], 0)
        paths.append(path)
    changes = [np.linalg.norm(b - a) / np.linalg.norm(a - a.mean(0)) for a, b in zip(*paths, strict=True)]
    assert found == pytest.approx(changes[-1] / changes[0], rel=0.02)
    assert changes[0] == pytest.approx(1e-3, rel=0.5)


def test_exact_statements_hold_for_another_layer(x):
    rows = exact(np.abs(np.random.default_rng(9).normal(size=(400, 784))), 40, 0.1, np.random.default_rng(2))
    last = rows[-1]
    names = ("still", "linear", "true", "identity", "moments", "staged", "fold", "both", "rows_rms")
    assert max(last[name] for name in names) < 1e-12
    assert last["rank"] == 59
    assert last["divided_half"] > 1 > last["divided_more"]
    assert last["unbiased"] == pytest.approx(1, abs=0.03)
    assert 0.6 < last["rows_near"] < 0.78
    assert [row["step"] for row in rows] == [*range(1, 21), 40]


def test_a_false_statement_would_be_seen(monkeypatch, x):
    monkeypatch.setattr(further_claims, "ignored", lambda u, t, lr, n, d=False: np.cumsum(np.ones((n + 1, 3)), 0))
    monkeypatch.setattr(further_claims, "batchnorm_inference", lambda z, *rest: z)
    monkeypatch.setattr(further_claims, "batchnorm_backward", lambda dy, cache: (dy, dy.sum(0), dy.sum(0)))
    last = exact(np.abs(np.random.default_rng(9).normal(size=(400, 784))), 40, 0.1, np.random.default_rng(2))[-1]
    assert min(last[name] for name in ("still", "linear", "fold", "staged")) > 1e-3


# --- cells


def test_a_probed_cell_looks_at_the_start_on_the_way_and_at_the_end():
    rows = cell("relu-before-high")
    assert [row["step"] for row in rows] == [*range(1, 21), *evaluations(40)]
    assert all(len(row["saturated"]) == 5 for row in rows if "accuracy" in row)
    summary = summarize(rows)
    assert {"start_near_one", "end_near_one", "dim", "dim_again", "end_first", "end_last", "best"} <= set(summary)
    assert "saturated" not in summary
    assert summary["growth"] > 1
    assert summary["score"] == summary["best"]
    again = cell("relu-before-high")
    assert again == rows


def test_a_tuning_cell_measures_only_its_score():
    summary = summarize(cell("relu-before-high", seed=3))
    assert not any(key.startswith(("start_", "end_", "dim")) for key in summary)


def test_a_run_that_diverges_ends_at_chance():
    rows = cell("relu-none-high", lr=1e4)
    assert rows[-1]["diverged"]
    assert rows[-1]["step"] == 40
    assert rows[-1]["accuracy"] == summarize(rows)["best"] == 0.1
    assert "end_near_one" not in rows[-1]


def test_speed_is_rewarded_where_it_is_asked_for():
    quick, slow = (
        {"step": 100, "accuracy": 0.9},
        {"step": 900, "accuracy": 0.9},
    )
    rows = [dict(quick, step=k) for k in (80, 90, 100)] + [dict(slow, step=1000)]
    assert further_claims._score(rows, "speed") == pytest.approx(1.9)
    assert further_claims._score(rows, "high") == pytest.approx(0.9)
    low = [dict(row, accuracy=0.5) for row in rows]
    assert further_claims._score(low, "speed") == further_claims._score(low, "high") == 0.5


def test_scale_and_samples_are_obeyed():
    config = short("growth-none-1-0.01", "batch-64-bn-800", steps=22)
    assert lengths(build("relu", 5, "none", "before", 0)).shape == (5,)
    grown_rows = runner.one_cell(
        "further-claims", config, "growth-none-1-0.01", 31, {"lr": 1e-9, "scale": 3.0, "init": "he"}
    )["rows"]
    assert grown_rows[-1]["growth"] == pytest.approx(1, abs=1e-4)
    seen = {}
    with pytest.MonkeyPatch.context() as patch:
        fit = further_claims.fit
        patch.setattr(
            further_claims, "fit", lambda net, x, y, **rest: seen.update(n=len(x)) or fit(net, x, y, **rest)
        )
        cell("batch-64-bn-800", steps=22, samples=512)
    assert seen["n"] == 512


def test_norms_and_arms_have_words():
    assert set(further_claims.ARMS) == set(FULL.arms)
    assert set(NORMS) == {"none", "bn", "outside", "centred", "ghost"}
    assert {plan.steps for arm, plan in FULL.arms.items() if arm.startswith("sigmoid")} == {1_200}
    rates = {len(plan.settings) for arm, plan in FULL.arms.items() if arm.startswith(("sigmoid", "relu", "deep"))}
    assert rates == {0, 7}  # arms that take another's setting have none of their own


# --- claims


def table():
    """Cells as a full run gives them, all with the same numbers."""
    names = {name for s in statements() for name in s.arms}
    columns = {}
    for when in ("start", "end"):
        for key in ("u_skew", "u_kurtosis", "wu_skew", "wu_kurtosis", "amplified", "rms"):
            columns[f"{when}_{key}"] = 1.0
        for key in ("u_zeros", "wu_zeros", "near_one", "linear_near_one", "explained", "correlation"):
            columns[f"{when}_{key}"] = 0.5
        for key in ("saturated_mean", "first", "last", "stuck"):
            columns[f"{when}_{key}"] = 0.1
    columns |= dict.fromkeys(
        ("still", "linear", "true", "identity", "moments", "staged", "fold", "both", "rows_rms"), 1e-15
    )
    columns |= {"divided_half": 2.0, "divided_more": 0.5, "rank": 59, "unbiased": 1.0, "rows_near": 0.68}
    columns |= {"best": 0.8, "growth": 1.1, "diverged": False, "bright": 0.8, "dim": 0.6, "dim_again": 0.7}
    columns |= {"steps_80%": 100.0, "reached_80%": True, "steps_85%": 200.0, "reached_85%": True}
    columns |= {"bn_ms": 1.0, "whiten_ms": 4.0, "dataset": "fashion-mnist", "steps": 1_200}
    return pd.DataFrame([{"arm": arm, "seed": seed, **columns} for arm in sorted(names) for seed in (11, 12, 13)])


def verdicts(cells):
    return {claim.id.removeprefix("further-claims-"): claim.verdict for claim in claims(cells)}


def test_every_statement_gives_a_claim_of_an_arm_that_exists():
    assert {arm for s in statements() for arm in s.arms} <= set(FULL.arms)
    found = claims(table())
    assert len({claim.id for claim in found}) == len(found) == len(list(statements()))
    assert {claim.paper for claim in found} == {"ioffe2015", "hoffer2017"}
    assert not any("{" in claim.statement for claim in found)
    assert {c.fidelity for c in found} == {SAME, ANALOGUE}


def test_thresholds_stand_as_they_were_fixed():
    fixed = {s.name: s.threshold for s in statements() if s.threshold is not None}
    exact_ones = ("ignored-still", "ignored-linear", "ignored-true", "identity", "moments", "gradient", "fold")
    assert all(fixed.pop(name) == (None, 1e-12) for name in (*exact_ones, "jacobian-white", "jacobian-rows"))
    near = {name for name in fixed if name.startswith(("jacobian-", "linear-"))}
    assert {fixed.pop(name) for name in near} == {90.0}
    assert len(near) == 9
    assert all(
        fixed.pop(n) == 1.0 for n in [n for n in fixed if n.startswith(("skew", "kurtosis", "growth", "ampl"))]
    )
    assert all(fixed.pop(n) == 0.0 for n in [n for n in fixed if n.startswith("zeros")])
    assert fixed == {
        **{f"ignored-net-{kind}": 0.5 for kind in ("outside", "centred")},
        **{f"stuck-{net}-before": (None, 1.0) for net in ("sigmoid", "deep")},
        **{f"place-{net}-after-80": 1.0 for net in ("sigmoid", "relu")},
        **{f"place-{net}-after-high": 0.0 for net in ("sigmoid", "relu")},
        **dict.fromkeys(("saturation-depth", "saturation-depth-dd", "saturation-last", "saturation-bn"), 0.0),
        **dict.fromkeys(("saturation-wide", "saturation-deep"), 1.0),
        **{"saturation-moves": 10.0, "ignored-divide": 1.0, "unbiased": (0.98, 1.02), "rank": (None, 99.0)},
        **{"batch-passes": 0.5, "batch-updates": (None, 0.5), "batch-ghost": 0.0},
    }


@pytest.mark.parametrize(
    ("arm", "column", "value", "claim", "verdict"),
    [
        ("exact", "fold", 1e-6, "fold", "not reproduced"),
        ("exact", "unbiased", 0.75, "unbiased", "not reproduced"),
        ("sigmoid-none-high", "end_saturated_mean", 0.3, "saturation-moves", "agrees"),
        ("deep-before", "end_stuck", 0.0, "stuck-deep-before", "agrees"),
        ("relu-after", "steps_80%", 90.0, "place-relu-after-80", "disagrees"),
        ("sigmoid-after-high", "best", 0.85, "place-sigmoid-after-high", "disagrees"),
        ("relu-before-high", "start_near_one", 0.95, "jacobian-relu-before-start", "agrees"),
        ("relu-before-high", "end_amplified", 2.0, "amplified-relu-end", "disagrees"),
        ("growth-before-1-0.3", "growth", 9.0, "growth-1", "mixed"),
        ("batch-1024-bn-50", "best", 0.7, "batch-passes", "agrees"),
    ],
)
def test_a_number_turns_its_own_verdict(arm, column, value, claim, verdict):
    cells = table()
    cells.loc[cells["arm"] == arm, column] = value
    before, after = verdicts(table()), verdicts(cells)
    assert after[claim] == verdict != before[claim]


def test_how_numbers_are_taken():
    part = pd.DataFrame({"a": [1.0, 2.0, 4.0], "b": [1.0, 1.0, 1.0]})
    assert mean("a", 3)(part) == (7.0, (3.0, 12.0), "")
    assert largest("a")(part) == (4.0, (1.0, 4.0), "")
    assert over("a", "b")(part).value == pytest.approx(400 / 3)
    assert over("b")(part, part).value == 0
    assert times("a", "b")(part).value == pytest.approx(2)
    reached = pd.DataFrame({"steps_80%": [10.0, 10.0], "reached_80%": [True, False]})
    assert steps("80%")(reached, reached.assign(**{"reached_80%": True})).bound == "≥"


def test_growth_of_a_run_that_diverged_is_a_bound():
    good = pd.DataFrame({"growth": [1.1, 1.2], "diverged": [False, False]})
    bad = pd.DataFrame({"growth": [50.0, 60.0], "diverged": [True, False]})
    assert grown(good, good) == (1.0, (1.0, 1.0), "")
    assert grown(bad, good).bound == grown_alone(bad).bound == "≥"
    assert grown(bad, good).value > 1
    assert grown_alone(good).bound == ""


# --- the record


def test_a_record_gives_the_same_claims(kept, monkeypatch):
    small = short("exact", "relu-before-high", "deep-none")
    monkeypatch.setitem(further_claims.PRESETS, "full", small)
    live = runner.run("further-claims", "full", progress=False)
    again = kept(live)
    assert np.shape(again.arrays["deep-none"]["saturated"][1]) == (len(evaluations(40)), 6)


def test_draw_shows_the_arms_of_its_looks():
    rows = pd.DataFrame(
        [
            {"arm": arm, "seed": seed, "tuning": False, "step": step, "accuracy": 0.5}
            for arm in ("relu-before-high", "relu-none", "exact")
            for seed in (1, 2)
            for step in (10, 20)
        ]
    )
    axes = Figure().subplots()
    further_claims.draw(rows, axes)
    assert [line.get_label() for line in axes.lines] == ["ReLU, BN before"]
