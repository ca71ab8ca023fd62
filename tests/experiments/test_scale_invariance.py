"""The scale-invariant net: its gradients, what is measured of it, and that each check of an invariance can fail."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal

from bnlib.data import load
from bnlib.experiments import runner, scale_invariance
from bnlib.experiments.core import ANALOGUE, SAME, Plan, grid
from bnlib.experiments.scale_invariance import (
    BAND,
    LAYERS,
    PAIRS,
    batches,
    build,
    claims,
    evaluations,
    farthest,
    gradients,
    invariances,
    largest,
    name,
    same_product,
    sgd,
    shrink,
    summarize,
)

FULL = scale_invariance.PRESETS["full"]
TOLD = {"largest", "farthest", "same_product"}


def short(steps=40, pairs=((1.0, 0.01), (0.1, 0.1), (1.0, 0.0)), **changes):
    """The full config with few arms of few steps."""
    plans = {name(lr, wd): Plan("mnist5k", steps, grid(lr=lr, wd=wd)) for lr, wd in pairs}
    return dataclasses.replace(
        FULL, arms={"twins": Plan("mnist5k", steps, grid(lr=0.3, wd=0.01)), **plans}, **changes
    )


def cell(arm="lr1-wd0.01", seed=11, config=None, **setting):
    config = config or short()
    return runner.one_cell("scale-invariance", config, arm, seed, config.arms[arm].settings[0] | setting)["rows"]


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """A run of `short` as the full scale."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BNLIB_CELLS", str(tmp_path_factory.mktemp("cells")))
        patch.setitem(scale_invariance.PRESETS, "full", short())
        return runner.run("scale-invariance", "full", progress=False)


# --- the net and its data


def test_images_are_averaged_over_squares():
    images = load("mnist5k").x_test[:20]
    small = shrink(images)
    assert small.shape == (20, 49)
    assert small.dtype == np.float64
    assert small[3, 7 * 2 + 5] == pytest.approx((images[3, 8:12, 20:24].mean() / 255 - 0.13) / 0.31)


def test_an_epoch_shows_every_image_at_most_once():
    stream = batches(64, 5)
    pairs = [next(stream) for _ in range(3500 // 64)]
    whole = np.concatenate([x for x, _ in pairs])
    images, labels = scale_invariance.training()
    assert len(whole) == 54 * 64
    assert len(np.unique(whole, axis=0)) >= len(np.unique(images, axis=0)) - 3500 % 64
    place = np.flatnonzero((images == pairs[2][0][7]).all(1))[0]
    assert labels[place] == pairs[2][1][7]
    again, other = next(batches(64, 5))[0], next(batches(64, 6))[0]
    assert_array_equal(again, pairs[0][0])
    assert not np.array_equal(other, again)


def test_gradients_are_those_of_autograd():
    net, (x, labels) = build(32, 3), next(batches(64, 3))
    loss = gradients(net, x, labels)
    first, second = (torch.tensor(net.layers[i].params["weight"], requires_grad=True) for i in LAYERS)

    def normalize(z):
        return (z - z.mean(0)) / z.var(0, correction=0).sqrt()

    hidden = torch.relu(normalize(torch.tensor(x) @ first.T))
    theirs = torch.nn.functional.cross_entropy(normalize(hidden @ second.T), torch.tensor(labels))
    theirs.backward()
    assert loss == pytest.approx(theirs.item(), rel=1e-12)
    for i, w in zip(LAYERS, (first, second), strict=True):
        assert net.layers[i].params["weight"].dtype == np.float64
        assert_allclose(net.layers[i].grads["weight"], w.grad.numpy(), atol=1e-13)


@pytest.mark.parametrize("steps", [1, 19, 20, 21, 40, 200, 2_000, 20_000])
def test_evaluations_hold_the_first_steps_and_the_last(steps):
    chosen = evaluations(steps)
    assert chosen == sorted(set(chosen))
    assert chosen[: min(steps, 20)] == list(range(1, min(steps, 20) + 1))
    assert chosen[-1] == steps
    late = np.array([step for step in chosen if step > 40])
    assert len(late) < 2 or (late[1:] / late[:-1]).max() < 1.06


# --- what is measured


def test_a_cell_agrees_with_a_loop_of_its_own():
    lr, wd, steps = 1.0, 0.01, 40
    net, stream, seen = build(32, 11), batches(64, 11), []
    for _ in range(steps):
        loss = gradients(net, *next(stream))
        entry = []
        for i in LAYERS:
            w, g = net.layers[i].params["weight"], net.layers[i].grads["weight"]
            new = w - lr * (g + wd * w)
            r, s = (w**2).sum(), (g**2).sum()
            cosine = (w * new).sum() / np.sqrt(r * (new**2).sum())
            entry.append((r, r * s, cosine, (w**2).sum(1), (w**2).sum(1) * (g**2).sum(1)))
            net.layers[i].params["weight"] = new
        seen.append(entry)
    rows = cell()
    assert [row["step"] for row in rows] == evaluations(steps)
    last, units = rows[-1], []
    assert last["loss"] == pytest.approx(loss, rel=1e-12)
    for k, i in enumerate(LAYERS):
        r, g, cosine, unit_r, unit_g = (np.array(values) for values in zip(*(e[k] for e in seen[20:]), strict=True))
        expected = lr * g.mean() / (2 * wd)
        assert last["ratio"][k] == pytest.approx((r**2).mean() / expected, rel=1e-10)
        assert last["expected"][k] == pytest.approx(expected**0.25, rel=1e-10)
        assert last["turn"][k] == pytest.approx((1 - cosine).mean() / (lr * wd), rel=1e-8)
        assert last["rate"][k] == pytest.approx(lr / r.mean(), rel=1e-10)
        assert last[f"length_{k + 1}"] == pytest.approx(np.linalg.norm(net.layers[i].params["weight"]), rel=1e-12)
        since = [e[k][1] for e in seen[rows[-2]["step"] :]]
        assert last[f"square_{k + 1}"] == pytest.approx(np.mean(since), rel=1e-10)
        units += [*((unit_r**2).mean(0) / (lr * unit_g.mean(0) / (2 * wd)))]
    assert_allclose(last["unit_ratio"], units, rtol=1e-10)
    summary = summarize(rows)
    assert (summary["ratio_1"], summary["ratio_2"]) == tuple(last["ratio"])
    assert (summary["unit_low"], summary["unit_high"]) == pytest.approx((min(units), max(units)), rel=1e-10)


def test_without_decay_there_is_no_equilibrium():
    rows = cell("lr1-wd0")
    assert "ratio" not in rows[-1]
    summary = summarize(rows)
    assert "ratio_1" not in summary
    assert summary["rate_1"] > 0
    lengths = [row["length_1"] for row in rows]
    assert all(after > before for before, after in zip(lengths[:-1], lengths[1:], strict=True))


def test_an_update_of_ones_own_takes_the_place_of_sgd():
    seen = []

    def own(w, grad, lr, wd, step):
        seen.append(step)
        return sgd(w, grad, lr, wd, step)

    assert cell(update=own) == cell()
    assert seen[:5] == [0, 0, 1, 1, 2]
    still = cell(update=lambda w, grad, lr, wd, step: w)
    assert still[0]["length_1"] == still[-1]["length_1"]


def test_accuracy_is_taken_on_the_test_images(monkeypatch):
    asked = []
    monkeypatch.setattr(scale_invariance, "accuracy", lambda net, x, y: asked.append((x.shape, len(y))) or 0.5)
    assert cell()[-1]["accuracy"] == 0.5
    assert asked == [((1000, 49), 1000)]


# --- the twins, and how each of their checks fails


def test_the_twins_agree_to_rounding():
    rows = cell("twins")
    summary = summarize(rows)
    exact = ("forward", "jacobian", "gradient", "sign", "radial", "growth")
    assert max(summary[key] for key in exact) < 1e-13
    assert max(summary["scaled"], summary["schedule"]) < 1e-12
    assert summary["eps_percent"] == 100 * max(row["eps"] for row in rows) > 0.1
    assert rows[-1]["loss"] != rows[-1]["loss_decayed"]
    assert rows[-1]["length_decayed"] < rows[-1]["length_1"] < rows[-1]["length_grown"]


@pytest.mark.parametrize(
    ("replaced", "wrong", "spoilt"),
    [
        ("growing_rates", lambda lr, wd, steps: lr * (1 - lr * wd) ** -(np.arange(steps) + 1.0), {"schedule"}),
        ("rescaled", lambda a, lr, wd=0.0: (a * lr, wd / a), {"scaled"}),
        ("next_length", lambda length, grad, lr, wd=0.0: length, {"growth"}),
    ],
)
def test_a_wrong_theory_is_seen(monkeypatch, replaced, wrong, spoilt):
    monkeypatch.setattr(scale_invariance, replaced, wrong)
    summary = summarize(cell("twins"))
    assert {key for key in scale_invariance.ERRORS if summary[key] > 1e-9} == spoilt


def test_a_layer_that_is_not_scale_invariant_is_seen(monkeypatch):
    true = scale_invariance.batchnorm_forward
    net, (x, labels) = build(32, 3, eps=0.1), next(batches(64, 3))
    gradients(net, x, labels)
    assert scale_invariance._radial(net) > 1e-3
    monkeypatch.setattr(scale_invariance, "batchnorm_forward", lambda x, g, b, eps: true(x, g, b, eps + 1e-4))
    errors = invariances(net, x, np.random.default_rng(0))
    assert min(errors[key] for key in ("forward", "jacobian", "gradient", "sign")) > 1e-5


def test_eps_breaks_the_invariance_as_far_as_the_theory_says():
    net, (x, _) = build(32, 3), next(batches(64, 3))
    found = invariances(net, x, np.random.default_rng(0))["eps"]
    z = x @ net.layers[0].params["weight"].T
    y = (z - z.mean(0)) / z.std(0)
    factor = scale_invariance_factor(0.01, z.var(0))
    assert found == pytest.approx(np.abs(y * (1 - factor)).max() / np.abs(y).max(), rel=1e-3)


def scale_invariance_factor(a, var):
    return np.sqrt((var + 1e-5) / (var + 1e-5 / a**2))


# --- claims


def table(pairs=PAIRS, **columns):
    rows = [
        {"arm": name(lr, wd), "lr": lr, "wd": wd, "seed": seed, "dataset": "mnist5k", "steps": 20_000}
        for lr, wd in pairs
        for seed in (11, 12, 13)
    ]
    given = dict.fromkeys(
        ("ratio_1", "ratio_2", "turn_1", "turn_2", "unit_low", "unit_high", "rate_1", "rate_2"), 1.0
    )
    return pd.DataFrame(rows).assign(**given).assign(**columns)


def twins(**changes):
    given = dict.fromkeys(scale_invariance.ERRORS, 1e-15) | {"eps_percent": 20.0} | changes
    rows = [{"arm": "twins", "seed": seed, "dataset": "mnist5k", "steps": 1_000} for seed in (11, 12, 13)]
    return pd.DataFrame(rows).assign(**given)


def verdicts(cells):
    return {claim.id.removeprefix("scale-invariance-"): claim.verdict for claim in claims(cells)}


def test_claims_are_only_of_cells_that_were_run(live):
    both = claims(live.results())
    assert len(both) == 13
    assert {claim.seeds for claim in both} == {(11, 12, 13)}
    assert len(claims(live.results().query("arm == 'twins'"))) == 9
    assert len(claims(live.results().query("arm != 'twins'"))) == 4
    assert claims(live.results().query("arm == 'lr1-wd0'")) == []


def test_a_whole_full_run_gives_every_claim_once():
    found = claims(pd.concat([table(), twins()], ignore_index=True))
    assert len({claim.id for claim in found}) == len(found) == 13
    assert not any("{" in claim.statement for claim in found)
    assert {claim.paper for claim in found} == {"ioffe2015", "vanlaarhoven2017", "arora2019", "li2020"}
    assert {claim.fidelity for claim in found if claim.paper == "vanlaarhoven2017"} == {ANALOGUE}
    assert {claim.fidelity for claim in found if claim.paper != "vanlaarhoven2017"} == {SAME}
    fixed = {claim.id.removeprefix("scale-invariance-"): claim.threshold for claim in found}
    exact = ("forward", "jacobian", "gradient", "orthogonal", "growth")
    assert fixed == {
        **dict.fromkeys(exact, (None, 1e-12)),
        **dict.fromkeys(("rescaled", "schedule"), (None, 1e-9)),
        **dict.fromkeys(("equilibrium", "turn", "product"), (0.97, 1.03)),
        **dict.fromkeys(("sign", "eps", "units"), None),
    }


def test_one_bad_cell_costs_the_verdict():
    good = pd.concat([table(), twins()], ignore_index=True)
    assert set(verdicts(good).values()) == {"reproduced", "agrees", "report only"}
    for column, value, claim, verdict in (
        ("ratio_2", 1.05, "equilibrium", "mixed"),
        ("turn_1", 0.9, "turn", "mixed"),
        ("rate_1", 1.2, "product", "mixed"),
        ("forward", 1e-11, "forward", "partly"),
        ("schedule", 1e-8, "schedule", "partly"),
    ):
        bad = good.copy()
        place = bad.index[bad["arm"] == ("twins" if verdict == "partly" else name(0.1, 0.1))][1]
        bad.loc[place, column] = value
        changed = {key for key, word in verdicts(bad).items() if word != verdicts(good)[key]}
        assert changed == {claim}
        assert verdicts(bad)[claim] == verdict


def test_cells_that_are_all_wrong_give_the_last_verdict():
    wrong = pd.concat(
        [table(ratio_1=1.2, ratio_2=1.1, turn_1=0.5, turn_2=0.6), twins(forward=1e-3)], ignore_index=True
    )
    words = verdicts(wrong)
    assert (words["equilibrium"], words["turn"], words["forward"]) == ("disagrees", "disagrees", "not reproduced")


def test_the_worst_cell_counts_and_the_range_is_told():
    part = pd.DataFrame({"a": [0.9, 1.0, 1.02], "b": [1.05, 1.0, 1.0]})
    assert farthest("a", "b")(part, part) == (0.9, (0.9, 1.05), "")
    assert farthest("b")(part) == (1.05, (1.0, 1.05), "")
    assert largest("a")(part) == (1.02, (0.9, 1.02), "")


def test_equal_products_are_compared_within_a_seed():
    cells = table(pairs=((0.1, 0.1), (1.0, 0.01), (0.3, 0.03)), rate_1=[1.0, 2.0, 3.0, 1.21, 2.0, 3.0, 9.0, 9.0, 9.0])
    value, (low, high), _ = same_product(*(part for _, part in cells.groupby("arm")))
    assert (value, low, high) == pytest.approx((1.1, 1 / 1.1, 1.1)) or value == pytest.approx(1 / 1.1)


def test_most_products_are_there_more_than_once():
    products = [f"{lr * wd:.3g}" for lr, wd in PAIRS]
    assert len(PAIRS) == len(set(PAIRS)) == 14
    assert sum(products.count(product) > 1 for product in products) >= 12
    assert BAND == (0.97, 1.03)


# --- the record


def test_a_record_gives_the_same_claims(live, kept):
    again = kept(live)
    assert len(again.arrays["lr1-wd0.01"]["unit_ratio"][1][0]) == 42


def test_draw_shows_each_arm_but_the_twins(live):
    axes = Figure().subplots()
    scale_invariance.draw(live.rows, axes)
    assert len(axes.lines) == 3
    assert [line.get_label() for line in axes.lines][-1] == "rate 1, no decay"
