"""Conditioning: the parts of BN, what is looked at and when, and claims that can fail."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from torch.nn.functional import cross_entropy

from bnlib import data
from bnlib.experiments import conditioning, runner
from bnlib.experiments.conditioning import (
    ARMS,
    DEEP,
    NETS,
    NORMS,
    Held,
    Part,
    build,
    claims,
    cosines,
    curvature,
    hold,
    looked_at,
    summarize,
)
from bnlib.experiments.core import ANALOGUE, REPORT, Refused
from bnlib.nets import inits, probes
from bnlib.nets.norms import BatchNorm
from bnlib.nets.training import seeded

FULL = conditioning.PRESETS["full"]


@pytest.fixture(scope="module", autouse=True)
def fashion():
    try:
        data.load("fashion-mnist")
    except data.DataUnavailable as error:
        pytest.skip(f"NO FASHION IMAGES: {error}")


def short(steps=55, arms=None, **changes):
    """The full config with small nets, few images and few steps."""
    plans = {
        arm: dataclasses.replace(
            plan,
            steps=plan.steps if arm.startswith("fisher") else steps,
            settings=plan.settings[3:5] or plan.settings,
        )
        for arm, plan in FULL.arms.items()
        if arms is None or arm in arms
    }
    small = {"net_width": 5, "deep_width": 6, "depth": 3, "hessian": 40, "images": 900, "batch": 32}
    return dataclasses.replace(FULL, arms=plans, options=FULL.options | small, **changes)


def cell(arm, seed=11, config=None, **setting):
    config = config or short()
    return runner.one_cell("conditioning", config, arm, seed, config.arms[arm].settings[0] | setting)["rows"]


def sample(norm="bn", seed=0, sizes=(49, 6, 5, 10), **options):
    x, labels = (part[:60] for part in conditioning.images("train"))
    return build(sizes, seed, x, norm, **options), x, labels


# --- the parts of BN


@pytest.mark.parametrize("training", [True, False])
def test_bn_in_plain_operations_is_batch_norm_to_the_second_derivative(training):
    with seeded(1):
        x = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
        weigh = torch.randn(9, 4, dtype=torch.float64)
    results = []
    for norm in (Part(4).double(), BatchNorm(4).double()):
        with torch.no_grad():
            norm.gamma.copy_(torch.linspace(0.5, 2, 4))
            norm.beta.copy_(torch.linspace(-1, 1, 4))
        norm(3 * x + 1)
        norm.train(training)
        (first,) = torch.autograd.grad((norm(x).sin() * weigh).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((first * weigh).sum(), x)
        results.append((norm(x), first, second, norm.running_mean, norm.running_var))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_each_part_does_what_its_name_says():
    with seeded(2):
        x = 3 * torch.randn(50, 4, dtype=torch.float64) + 5
    found = {name: make(4).double()(x).detach() for name, make in NORMS.items() if make is not None}
    assert_allclose(found["bn"], found["detached"], atol=1e-9)
    assert_allclose(found["centre"], x - x.mean(0), atol=1e-12)
    assert_allclose(found["scale"].std(0, correction=0), 1, atol=1e-4)
    assert_allclose(found["scale"] / found["scale"][0], x / x[0], rtol=1e-9)
    assert_allclose(found["held"], x / np.sqrt(1 + 1e-5), rtol=1e-9)  # nothing was taken yet


def test_held_statistics_are_those_that_were_taken_and_carry_no_gradient():
    net, x, labels = sample("held")
    reference, _, _ = sample("bn")
    assert_allclose(net(x).detach(), reference(x).detach(), atol=1e-9)
    moved = net(x + 1).detach()
    assert not np.allclose(moved, reference(x + 1).detach())
    hold(net, x + 1)
    assert_allclose(net(x + 1).detach(), reference(x + 1).detach(), atol=1e-9)
    plain = [norm for norm in net.modules() if isinstance(norm, Held)]
    assert len(plain) == 2
    assert not any(norm.taking for norm in plain)


def test_without_the_statistics_gradient_the_extra_term_is_that_of_beta_and_gamma():
    """{eq}`eq-cond-extra`, on one layer."""
    with seeded(3):
        z = torch.randn(12, 3, dtype=torch.float64, requires_grad=True)
        weigh = torch.randn(12, 3, dtype=torch.float64)
    gradients = []
    for norm in (Part(3, detach=True).double(), BatchNorm(3).double()):
        with torch.no_grad():
            norm.gamma.copy_(torch.tensor([0.5, -1.0, 2.0]))
        loss = (norm(z).square() * weigh).sum()
        gradients.append(torch.autograd.grad(loss, [z, norm.gamma, norm.beta]))
    (detached, dgamma, dbeta), (right, *_) = gradients
    std = (z.var(0, correction=0) + 1e-5).sqrt()
    x_hat = (z - z.mean(0)) / std
    extra = torch.tensor([0.5, -1.0, 2.0]) / std / 12 * (dbeta + x_hat * dgamma)
    torch.testing.assert_close(detached, right + extra)
    torch.testing.assert_close(right.sum(0), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)


def test_what_is_looked_at_is_the_same_function_with_another_backward_pass():
    net, x, labels = sample("bn")
    still = looked_at(net, x, "held")
    assert_allclose(still(x).detach(), net(x).detach(), atol=1e-9)
    assert sum(isinstance(m, Held) for m in still.modules()) == 2
    assert not any(isinstance(m, Held) for m in net.modules())
    one, other = (curvature(model, x, labels) for model in (net, still))
    assert one["whole_loss"] == pytest.approx(other["whole_loss"])
    assert other["top"] > 1.2 * one["top"]
    detached, _, _ = sample("detached")
    assert curvature(looked_at(detached, x), x, labels)["top"] == pytest.approx(one["top"], rel=1e-4)
    told = [
        torch.cat([g.flatten() for g in torch.autograd.grad(cross_entropy(model(x), labels), [*model.parameters()])])
        for model in (detached, still)
    ]
    torch.testing.assert_close(*told, rtol=1e-7, atol=1e-9)  # the same step, but no loss of the first


def test_cosines_are_one_in_the_last_layer_and_for_bn_itself():
    detached, x, labels = sample("detached")
    found = cosines(detached, x, labels)
    assert found[-1] == pytest.approx(1)
    assert max(found[:-1]) < 0.999
    assert cosines(sample("bn")[0], x, labels) == pytest.approx([1, 1, 1])


def test_a_wrong_name_is_refused():
    with pytest.raises(Refused, match="did you mean centre"):
        sample("center")
    with pytest.raises(Refused, match="place"):
        cell("fisher-none-images", place="everywhere")


# --- cells


def test_a_net_is_looked_at_before_and_after_and_only_where_it_is_the_result():
    rows = cell("net-bn")
    assert [row["taken"] for row in rows if "taken" in row] == [0, 50, 55]
    spectra = [row for row in rows if "spectrum" in row]
    assert len(spectra) == 3
    assert len(spectra[0]["spectrum"]) == 49 * 5 + 50 + 6 * 5 + 60
    for row in spectra:
        assert row["spectrum"][0] == pytest.approx(row["top"], rel=1e-4)
        assert row["spectrum"][9] == pytest.approx(row["tenth"], rel=1e-3)
        assert row["spectrum"] == sorted(row["spectrum"], reverse=True)
        assert 0 < row["first"] <= row["share"] <= 1
    later = cell("net-bn", seed=12)
    assert "spectrum" not in later[0]
    assert "top_late" in summarize(later)
    assert not any("taken" in row for row in cell("net-bn", seed=1))


def test_the_same_steps_are_seen_with_statistics_held():
    one, other = (summarize(cell(f"net-{name}")) for name in ("bn", "frozen"))
    assert one["area"] == other["area"]
    assert one["whole_loss_late"] == pytest.approx(other["whole_loss_late"], rel=1e-6)
    assert one["top_early"] != pytest.approx(other["top_early"], rel=0.01)


def test_every_net_differs_from_the_plain_one_as_it_says():
    first = {name: cell(f"net-{name}", config=short(2))[0]["loss"] for name in NETS}
    assert first["bn"] == first["frozen"] == pytest.approx(first["detached"])
    assert first["held"] == first["renewed"] != first["bn"]
    assert len({round(value, 9) for value in first.values()}) == len(NETS) - 3
    second = {name: cell(f"net-{name}", config=short(2))[1]["loss"] for name in ("bn", "detached")}
    assert second["bn"] != pytest.approx(second["detached"], rel=1e-6)


def test_statistics_are_renewed_after_fifty_steps():
    rows = {name: {row["step"]: row["loss"] for row in cell(f"net-{name}")} for name in ("held", "renewed")}
    assert rows["held"][50] == rows["renewed"][50]
    assert rows["held"][55] != rows["renewed"][55]


def test_a_deep_net_tells_its_sides():
    found = summarize(cell("deep-detached", lr=0.1))
    assert found["cosine_4_start"] == pytest.approx(1)
    assert found["along_start"] > 1e-3
    bn = summarize(cell("deep-bn", lr=0.1))
    assert bn["along_start"] < 1e-20
    assert bn["mean_deepest_start"] == pytest.approx(found["mean_deepest_start"])


def test_a_rate_that_diverges_is_a_result():
    rows = cell("deep-none", lr=1e200)
    assert np.isnan(rows[-1]["loss"])
    assert summarize(rows)["error"] == 90


def test_least_squares_on_images_is_what_gradient_descent_does():
    rows = cell("inputs-raw")
    found = data.load("fashion-mnist")
    chosen = np.random.default_rng([11, 7]).choice(len(found.x_train), 900, replace=False)
    x = np.hstack([found.x_train[chosen].reshape(900, -1) / 255, np.ones((900, 1))])
    y = np.eye(10)[found.y_train[chosen]]
    w, losses = np.zeros((785, 10)), []
    best = 0.5 * np.square(x @ np.linalg.lstsq(x, y, rcond=None)[0] - y).sum() / 900
    rate = 1 / np.linalg.eigvalsh(x.T @ x / 900)[-1]
    for _ in range(11):
        losses.append(0.5 * np.square(x @ w - y).sum() / 900 - best)
        w -= rate * x.T @ (x @ w - y) / 900
    told = {row["step"]: row["loss"] for row in rows}
    assert [told[1], told[10]] == pytest.approx(
        [losses[1] / losses[0], losses[10] / losses[0]], rel=5e-3
    )  # but for inputs that hardly vary
    values = np.linalg.eigvalsh(x[:, :-1].T @ x[:, :-1] / 900)[::-1]
    assert [rows[-1]["top"], rows[-1]["second"]] == pytest.approx(values[:2])


def test_fisher_rows_are_widths_and_the_last_layer_matters():
    config = short()
    plans = {arm: dataclasses.replace(plan, steps=1) for arm, plan in config.arms.items()}
    config = dataclasses.replace(config, arms=plans)
    tops = {name: cell(f"fisher-{name}-gaussian", config=config)[0] for name in ("none", "middle", "last", "mean")}
    assert {row["width"] for row in tops.values()} == {64}
    assert tops["last"]["loss"] < 0.5 * tops["none"]["loss"]
    # Taking the mean off the outputs takes the mean off the gradients: the Fisher matrix can only get smaller.
    assert tops["mean"]["loss"] < tops["none"]["loss"]


# --- claims


def table(**changes):
    rng, rows = np.random.default_rng(0), []
    names = ("top", "second", "ratio", "left", "left_10", "growth", "gap", "area", "error", "error_running")
    whens = [
        f"{key}_{when}"
        for key in ("top", "share", "mean_deepest", "aligned", "along")
        for when in ("start", "early", "late")
    ]
    for arm, plan in FULL.arms.items():
        for seed in FULL.seeds:
            row = {"arm": arm, "seed": seed, "dataset": plan.dataset, "steps": plan.steps}
            row |= {name: 1.0 + rng.random() for name in (*names, *whens)}
            rows.append(row | {f"cosine_{k}_start": 0.5 for k in range(1, 12)})
    frame = pd.DataFrame(rows)
    frame.loc[frame["arm"] == "inputs-raw", "ratio"] = 8.0
    frame.loc[frame["arm"] == "inputs-centred", "ratio"] = 2.0
    for (arm, column), value in changes.get("changes", {}).items():
        frame.loc[frame["arm"] == arm, column] = value
    return {claim.id.removeprefix("conditioning-"): claim for claim in claims(frame)}


def test_one_statement_has_a_threshold_and_the_rest_is_report_only():
    found = table()
    assert {name: c.threshold for name, c in found.items() if c.threshold is not None} == {"stiffest": 3.0}
    assert {c.verdict for name, c in found.items() if name != "stiffest"} == {REPORT}
    assert {c.fidelity for c in found.values()} == {ANALOGUE}
    assert found["stiffest"].verdict == "agrees"
    assert found["stiffest"].measured.value == pytest.approx(4)
    assert not any("{" in c.statement for c in found.values())
    assert len({c.id for c in found.values()}) == len(found)
    bad = table(changes={("inputs-centred", "ratio"): 4.0})
    assert bad["stiffest"].verdict == "disagrees"


def test_numbers_of_a_claim_are_those_of_its_arm():
    found = table(changes={("net-frozen", "share_early"): 0.25, ("deep-bn", "along_start"): 7.0})
    assert found["share-frozen-early"].measured.value == pytest.approx(25)
    assert found["along-bn"].measured.value == pytest.approx(7)


def test_every_arm_is_planned_with_as_many_rates_as_bn():
    assert set(FULL.arms) == set(ARMS)
    assert {len(FULL.arms[f"deep-{name}"].settings) for name in DEEP} == {8}
    assert {plan.settings[0]["lr"] for arm, plan in FULL.arms.items() if arm.startswith("net-")} == {0.1}


# --- the record


def test_a_record_gives_the_same_claims(kept, monkeypatch):
    arms = ("inputs-raw", "inputs-centred", "net-none", "net-bn", "net-frozen", "deep-bn", "fisher-mean-gaussian")
    config = short(52, arms, seeds=(11, 12))
    monkeypatch.setitem(conditioning.PRESETS, "full", config)
    live = runner.run("conditioning", "full", progress=False)
    again = kept(live)
    steps, spectra = again.arrays["net-bn"]["spectrum"]
    assert len(steps) == 3
    assert spectra.shape == (3, 150)
    ax = Figure().subplots()
    conditioning.draw(again.rows, ax)
    assert [line.get_label() for line in ax.lines] == ["without BN", "BN", "BN, statistics held"]


def test_the_share_counts_what_the_leading_vectors_hold():
    net, x, labels = sample("none")
    found = curvature(net, x, labels, whole=True)
    weights = list(net.parameters())
    H = probes.hessian(cross_entropy(net(x), labels), weights).numpy()
    g = torch.cat([g.flatten() for g in torch.autograd.grad(cross_entropy(net(x), labels), weights)]).numpy()
    vectors = np.linalg.eigh(H)[1][:, ::-1]
    assert found["share"] == pytest.approx(np.square(vectors[:, :10].T @ g).sum() / (g @ g), rel=1e-4)
    assert found["size"] == pytest.approx(np.linalg.norm(g))
    assert len(inits.layers(net)) == 3
