"""Least squares and halfspaces: what is measured agrees with loops of its own, and each claim can fail."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from bnlib.experiments import length_direction, runner
from bnlib.experiments.core import SAME
from bnlib.experiments.length_direction import (
    ARMS,
    GRIDS,
    RATES,
    WORDS,
    claims,
    evaluations,
    least,
    most,
    problem,
    sample,
    summarize,
)
from bnlib.theory.halfspaces import METHODS, Gaussian
from bnlib.theory.length_direction import best_length, effective_weights, gap, norm, optimum

FULL = length_direction.PRESETS["full"]
SMALL = {"d": 4, "problems": 2, "starts": 3, "sample": 500}
STEPS = {2: 25, 10: 25, 100: 25, 1000: 25}


def short(**changes):
    arms = length_direction.plans(STEPS, 800, 25)
    return dataclasses.replace(FULL, arms=arms, options=SMALL, **changes)


def cell(arm, seed=11, config=None, **setting):
    config = config or short()
    return runner.one_cell("length-direction", config, arm, seed, config.arms[arm].settings[0] | setting)["rows"]


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A run of `short` with two seeds as the full scale."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BNLIB_CELLS", str(tmp_path_factory.mktemp("cells")))
        patch.setitem(length_direction.PRESETS, "full", short(seeds=(11, 12), tuning_seeds=(1,)))
        yield runner.run("length-direction", "full", progress=False)


# --- problems


def test_a_problem_has_its_condition_number_and_its_share():
    S, u = problem(np.random.default_rng(0), 5, 30, share=0.5)
    values = np.linalg.eigvalsh(S)
    assert (values[0], values[-1]) == pytest.approx((1 / 30, 1))
    assert u @ np.linalg.solve(S, u) == pytest.approx(0.5)
    assert np.linalg.eigvalsh(S - np.outer(u, u))[0] > 0


@pytest.mark.parametrize("data", ["gaussian", "skewed"])
def test_samples_have_the_moments_and_only_one_kind_is_skewed(data):
    S, u = problem(np.random.default_rng(1), 3, 5, share=0.5)
    z = sample(np.random.default_rng(2), S, u, 200_000, data)
    assert_allclose(z.mean(0), u, atol=0.01)
    assert_allclose(z.T @ z / len(z), S, atol=0.01)
    skew = ((z - u) ** 3).mean(0) / z.std(0) ** 3
    assert (np.abs(skew).max() > 0.3) == (data == "skewed")


@pytest.mark.parametrize("steps", [1, 20, 25, 2_000])
def test_evaluations_hold_the_first_steps_and_the_last(steps):
    chosen = evaluations(steps)
    assert {*range(1, min(steps, 20) + 1), steps} <= chosen
    assert max(chosen) == steps
    assert len(chosen) < 60


# --- least squares


def test_steps_on_the_direction_agree_with_a_loop_of_its_own():
    rng = np.random.default_rng([11, 5])
    gaps = []
    for _ in range(2):
        S, u = problem(rng, 4, 10)
        w, L = rng.normal(size=(3, 4)), np.linalg.eigvalsh(S)[-1]
        first = [gap(v, S, u) for v in w]
        v = [effective_weights(x, best_length(x, S, u), S) for x in w]
        for _ in range(5):
            v = [x - (u + S @ x) / L for x in v]
            v = [effective_weights(x, best_length(x, S, u), S) for x in v]
        gaps += [norm(x - optimum(S, u), S) ** 2 / f for x, f in zip(v, first, strict=True)]
    rows = cell("kappa10")
    assert rows[4]["direction"] == pytest.approx(np.exp(np.log(gaps).mean()), rel=1e-8)
    assert rows[-1]["step"] == 25
    assert len(rows[-1]["worst"]) == len(rows[-1]["near"]) == 2


def test_a_cell_of_least_squares_keeps_the_theorem():
    for kappa in (2, 10, 100):
        told = summarize(cell(f"kappa{kappa}"))
        assert told["worst"] > 1 - 1e-6
        assert 1 - 1e-6 < told["near_low"] <= told["near_high"]
        assert told["stayed"] == 100
        assert told["direction_steps"] <= 25


def test_a_step_that_is_too_long_is_seen(monkeypatch):
    true = length_direction.direction_step
    monkeypatch.setattr(length_direction, "direction_step", lambda w, S, u, L=None: true(w, S, u, 0.4))
    told = summarize(cell("kappa10"))
    assert told["worst"] < 1


def test_the_sweep_agrees_with_gradient_descent_of_its_own():
    rows, rng = cell("rates", kappa=100), np.random.default_rng([11, 5])
    S, u = problem(rng, 4, 100)
    start, best = rng.normal(size=4), optimum(S, u)
    for k in (0, 8, 12):
        v, w, g = start, start, norm(start, S)
        for _ in range(20):
            v = v - RATES[k] * (u + S @ v)
            now = effective_weights(w, g, S)
            grad = u + S @ now
            length = norm(w, S)
            dw = g / length * (grad - (w @ grad) / length**2 * (S @ w))
            w, g = w - RATES[k] * dw, g - 0.5 * (w @ grad) / length
        for name, weights in (("plain", v), ("bn", effective_weights(w, g, S))):
            there = norm(weights - best, S) ** 2 / norm(start - best, S) ** 2
            assert rows[19][name][k] == pytest.approx(min(there, 1e12), rel=1e-6) or there > 1e12
    told = summarize(rows)
    assert told["growth"] < 1e-12
    assert told["condition"] <= 1
    assert told["diverged_plain"] >= 8 > told["diverged_bn"]


# --- halfspaces


def test_a_halfspace_is_measured_as_told():
    rows, rng = cell("gd"), np.random.default_rng([11, 5])
    S, u = problem(rng, 4, 30, share=0.5)
    v = rng.normal(size=4)
    v /= norm(v, S)
    half = Gaussian(S, u)
    for _ in range(20):
        v = v - 4 / np.linalg.eigvalsh(S)[-1] * half.gradient(v)
    assert summarize(rows)["sub_at"] == pytest.approx(half.means(v)[0] - half.means(half.best)[0], rel=1e-8)
    assert summarize(rows)["sub_last"] == rows[-1]["sub"]


def test_gdnp_takes_the_path_of_least_squares_and_gradient_descent_does_not():
    assert summarize(cell("gdnp"))["off"] < 1e-12
    assert summarize(cell("gdnp"))["worst"] > 1 - 1e-6
    assert summarize(cell("gd"))["off"] > 1e-3


def test_a_move_of_ones_own_takes_the_place_of_the_method():
    seen = []

    def mine(weights, half, t):
        seen.append(t)
        return weights - 4 * half.gradient(weights) / np.linalg.eigvalsh(half.S)[-1]

    assert_allclose([row["loss"] for row in cell("gd", move=mine)], [row["loss"] for row in cell("gd")])
    assert seen[:3] == [1, 2, 3]


def test_every_tuned_method_has_as_many_settings():
    assert {len(factors) for factors in GRIDS.values()} == {12}
    assert set(GRIDS) == {name for name in WORDS if name.endswith("-tuned")}
    assert {plan.settings[0]["method"] for name, plan in FULL.arms.items() if name in WORDS} == set(METHODS)
    assert set(FULL.arms) == set(ARMS)


def test_skewed_inputs_leave_the_line():
    angles = {data: summarize(cell(f"line-{data}")) for data in ("gaussian", "skewed")}
    assert set(angles["skewed"]) == {"score", "angle_logistic", "angle_hinge", "angle_exponential"}
    big = short()
    big = dataclasses.replace(big, options=SMALL | {"sample": 20_000})
    gaussian, skewed = (max(summarize(cell(f"line-{d}", config=big)).values()) for d in ("gaussian", "skewed"))
    assert gaussian < skewed


# --- claims and the record


def verdicts(cells):
    return {claim.id.removeprefix("length-direction-"): claim.verdict for claim in claims(cells)}


def good(live):
    """The confirming cells, with what a short run cannot reach put right."""
    cells = live.results().copy()
    cells.loc[cells["arm"] == "gd", "sub_at"] = 100 * cells.loc[cells["arm"] == "gdnp", "sub_at"].to_numpy()
    cells.loc[cells["arm"].isin(["gdnp-direction", "gdnp-length"]), "sub_at"] = 1.0
    cells.loc[cells["arm"] == "rates", ["band_bn", "band_plain", "final_bn"]] = [5.0, 2.0, 0.5]
    cells.loc[cells["arm"].str.startswith("kappa"), ["near_low", "near_high"]] = [1.0, 1.01]
    cells.loc[cells["arm"].str.startswith("line"), "angle_hinge"] = 1.0
    cells.loc[cells["arm"].str.startswith("line"), ["angle_logistic", "angle_exponential"]] = 0.5
    return cells


def test_a_whole_run_gives_every_claim_once(live):
    found = claims(live.results())
    assert len({claim.id for claim in found}) == len(found) == 37
    assert not any("{" in claim.statement for claim in found)
    assert {claim.paper for claim in found} == {"kohler2019", "cai2019", "arora2019"}
    assert {claim.fidelity for claim in found} == {SAME}


def test_one_bad_cell_costs_the_verdict(live):
    cells = good(live)
    before = verdicts(cells)
    assert set(before.values()) == {"reproduced", "report only"}
    for arm, column, value, claim in (
        ("kappa10", "worst", 0.9, "rate"),
        ("kappa100", "near_high", 1.2, "sharp-100"),
        ("kappa2", "near_low", 0.9, "sharp-2"),
        ("kappa2", "stayed", 90.0, "sides"),
        ("kappa1000", "direction_steps", 1e4, "same-order"),
        ("rates", "final_bn", 3.0, "any-rate"),
        ("rates", "band_plain", 9.0, "band-difference"),
        ("rates", "condition", 1.1, "condition"),
        ("rates", "growth", 1e-9, "growth"),
        ("gdnp", "worst", 0.5, "gdnp-rate"),
        ("gdnp", "off", 0.1, "gdnp-path"),
        ("gd", "sub_at", 1e-9, "gdnp-gd"),
        ("gdnp-direction", "sub_at", 1e-9, "without-length"),
        ("gdnp-length", "sub_at", 1e-9, "without-direction"),
        ("line-gaussian", "angle_hinge", 9.0, "line-gaussian"),
    ):
        bad = cells.copy()
        bad.loc[bad["arm"] == arm, column] = [value, bad.loc[bad["arm"] == arm, column].iloc[1]]
        after = verdicts(bad)
        assert after[claim] in ("partly", "not reproduced"), claim
        assert {key for key in after if after[key] != before[key]} == {claim}


def test_claims_are_only_of_cells_that_were_run(live):
    assert claims(live.results().query("arm == 'gd'")) == []
    assert len(claims(live.results().query("arm == 'rates'"))) == 9


def test_the_farthest_cell_counts():
    part = pd.DataFrame({"a": [0.9, 1.0], "b": [1.05, 1.0]})
    assert least("a", "b")(part) == (0.9, (0.9, 1.05), "")
    assert most("a")(part, part) == (1.0, (0.9, 1.0), "")


def test_a_record_gives_the_same_claims(live, kept):
    again = kept(live, rel=2e-2)
    assert len(again.arrays["rates"]["bn"][1][0]) == len(RATES)


def test_draw_shows_five_methods(live):
    axes = Figure().subplots()
    length_direction.draw(live.rows[~live.rows["tuning"]], axes)
    labels = {line.get_label() for line in axes.lines}
    assert labels == {look["label"] for look in length_direction.LOOKS.values()}
