"""Batch size: what an arm changes, what a cell trains and measures, and what the claims compare."""

import dataclasses
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from bnlib.experiments import batch_size as experiment
from bnlib.experiments import core, ledger, record, runner
from bnlib.experiments.batch_size import AGAIN, BATCHES, EPS, FULL, GHOSTS, LITE, PASS, claims
from bnlib.nets import inits
from bnlib.nets.images import images
from bnlib.nets.inference import by_batch, population, probabilities
from bnlib.nets.models import MLP
from bnlib.nets.norms import BatchNorm, GroupNorm
from bnlib.nets.training import accuracy, fit, seeded, sgd

SETTING = {"net": "mlp", "norm": "bn", "batch": 16, "horizon": 40, "lr": 0.1}


def small(steps=40, probed=True, **options):
    options = {"few": 100, "calibration": 64, "pairs": 50} | options
    plans = {arm: core.Plan("mnist5k", steps, (SETTING,), probed=probed) for arm in ("mine", "pairs")}
    return core.Config(plans, (31, 32), (3,), options=options)


def cell(config=None, seed=31, arm="mine", **setting):
    return runner.one_cell("batch-size", config or small(), arm, seed, SETTING | setting)["rows"]


# --- arms


def test_every_net_and_norm_meets_every_batch():
    square = {f"{n}-{k}-{b}" for n in ("mlp", "cnn") for k in ("none", "bn", "gn") for b in BATCHES}
    eps = {f"mlp-bn-{b}-eps{e:g}" for b in (2, 3) for e in EPS[1:]}
    large = {"mlp-bn-1024", *(f"mlp-ghost-1024-{g}" for g in GHOSTS)}
    assert set(FULL) == square | eps | large | {"mlp-bn-3", "mlp-bn-64-eps0.1", "mlp-bn-64-again", "pairs"}
    assert set(experiment.ARMS) == set(FULL) == set(experiment.LOOKS)
    assert len(set(experiment.ARMS.values())) == len(FULL)
    assert set(LITE) < set(FULL)


def test_an_arm_is_what_its_name_says_and_sees_one_pass():
    for arm, plan in FULL.items():
        if arm in ("pairs", "mlp-bn-64-again"):
            continue
        (about,) = {tuple((k, v) for k, v in s.items() if k != "lr") for s in plan.settings}
        about, (net, norm, batch, *more) = dict(about), arm.split("-", 3)
        assert (about["net"], about["norm"], about["batch"]) == (net, norm, int(batch))
        assert about.get("eps", 1e-5) == (float(more[0][3:]) if more and norm == "bn" else 1e-5)
        assert about.get("ghost") == (int(more[0]) if norm == "ghost" else None)
        passes = 8 if int(batch) == 1024 else 1
        assert about["horizon"] == plan.steps
        assert 0 <= passes * PASS - plan.steps * int(batch) < int(batch)
        assert plan.probed


def test_all_arms_of_a_batch_are_tuned_at_the_same_rates():
    for net in ("mlp", "cnn"):
        for b in BATCHES:
            rates = {tuple(s["lr"] for s in FULL[f"{net}-{norm}-{b}"].settings) for norm in ("none", "bn", "gn")}
            assert len(rates) == 1
            assert len(*rates) == 8
    assert {tuple(s["lr"] for s in FULL[a].settings) for a in FULL if f"{a}-".startswith("mlp-bn-2-")} == {
        tuple(s["lr"] for s in FULL["mlp-none-2"].settings)
    }
    full = experiment.PRESETS["full"]
    assert len(full.seeds) >= 3
    assert len(full.tuning_seeds) >= 2
    assert FULL["mlp-bn-64-again"].like == "mlp-bn-64"
    assert not set(AGAIN) & {*full.seeds, *full.tuning_seeds}


def test_colours_tell_the_norms_apart():
    colours = {norm: experiment.LOOKS[f"mlp-{norm}-64"]["color"] for norm in ("none", "bn", "gn")}
    assert len(set(colours.values())) == 3
    for arm, style in experiment.LOOKS.items():
        if arm != "pairs":
            assert style["color"] == colours.get(arm.split("-")[1], colours["bn"]), arm
    assert len({experiment.LOOKS[f"mlp-bn-{b}"]["linestyle"] for b in (2, 4, 16, 64)}) == 4


# --- a cell


@pytest.mark.parametrize("seed", [31, 3])
@pytest.mark.parametrize("norm", ["bn", "gn", "none"])
def test_a_cell_is_a_net_trained_with_a_falling_rate(norm, seed):
    rows = cell(norm=norm, seed=seed)
    train, validation, test = images("mnist5k")
    with seeded(seed):
        model = MLP([784, 128, 128, 128, 10], {"bn": BatchNorm, "gn": GroupNorm, "none": None}[norm])
    with seeded(seed):
        inits.he(model)
    schedule = lambda step: (41 - step) / 40  # noqa: E731
    found = fit(
        *(model, *train),
        **dict(lr=0.1, steps=40, batch=16, every=1, seed=seed, optimizer=partial(sgd, momentum=0)),
        **dict(validation=(train[0][:1], train[1][:1]), schedule=schedule, progress=False),
        probe=lambda model, step: {"held_out": accuracy(model, *(validation if seed == 3 else test))},
    )
    np.testing.assert_allclose([row["loss"] for row in rows[:20]], [row["loss"] for row in found[:20]], rtol=1e-5)
    if seed == 31:
        assert [row["step"] for row in rows] == [*range(1, 21), 24, 28, 32, 36, 38, 39, 40]
        assert [row["step"] for row in rows if "accuracy" in row] == [4, 8, 12, 16, 20, 24, 28, 32, 36, 38, 39, 40]
        assert rows[-1]["end"] == pytest.approx(np.mean([row["held_out"] for row in found[37:]]))
    else:  # scored on few images, and looked at at the end only
        assert [row["step"] for row in rows if "accuracy" in row] == [38, 39, 40]
        few = tuple(part[:100] for part in validation)
        assert rows[-1]["accuracy"] == accuracy(model, *few)
        assert "running" not in rows[-1]
    assert experiment.summarize(rows)["score"] == rows[-1]["end"]


def test_nets_of_all_batches_see_the_same_images_in_the_same_order(monkeypatch):
    seen = []

    def spy(model, x, labels, *, batch, seed, steps, **options):
        from bnlib.nets.training import _batches

        batches = _batches(len(x), batch, True, np.random.default_rng(seed))
        seen.append(torch.cat([next(batches) for _ in range(steps)])[:160].tolist())
        return [{"step": steps, "loss": 1.0, "accuracy": 0.5}]

    monkeypatch.setattr(experiment, "fit", spy)
    for batch in (2, 16, 32):
        cell(small(160 // batch, probed=False), batch=batch)
    assert seen[0] == seen[1] == seen[2]


def test_the_three_kinds_of_statistics_are_those_of_the_module_for_inference():
    rows = cell()
    train, _, (x, labels) = images("mnist5k")
    with seeded(31):
        model = MLP([784, 128, 128, 128, 10], BatchNorm)
    with seeded(31):
        inits.he(model)
    options = dict(lr=0.1, steps=40, batch=16, seed=31, optimizer=partial(sgd, momentum=0), progress=False)
    fit(model, *train, validation=(x[:9], labels[:9]), schedule=lambda step: (41 - step) / 40, **options)
    rng = np.random.default_rng([31, 1])
    chosen = train[0][torch.from_numpy(rng.permutation(3_500)[:64])]
    answers = {
        "running": probabilities(model, x),
        "population": probabilities(population(model, chosen.split(16)), x),
        "test_batch": by_batch(model, x, 16, rng),
    }
    for name, p in answers.items():
        assert rows[-1][name] == pytest.approx(float((p.argmax(1) == labels).double().mean()), abs=1e-6), name
        if name != "running":
            far = float((p - answers["running"]).abs().sum(1).mean() / 2)
            assert rows[-1][f"far_{name}"] == pytest.approx(far, rel=1e-4)
            assert 0 < far < 1
    assert rows[-1]["far_test_batch"] > rows[-1]["far_population"]


@pytest.mark.parametrize("setting", [{"norm": "gn"}, {"norm": "none"}])
def test_a_net_without_batch_statistics_has_only_one_kind(setting):
    assert set(cell(**setting)[-1]) == {"step", "loss", "accuracy", "end"}


def test_a_cell_that_is_not_probed_is_measured_on_few_images():
    rows = cell(small(22, probed=False))
    assert "running" not in rows[-1]
    assert (100 * rows[-1]["accuracy"]) % 1 == pytest.approx(0, abs=1e-9)


def test_a_run_that_diverges_ends_at_chance():
    rows = cell(norm="none", lr=1e6)
    assert rows[-1]["step"] == 40
    assert rows[-1]["end"] == rows[-1]["accuracy"] == 0.1
    assert np.isnan(rows[-1]["loss"])


def test_eps_and_ghost_reach_the_norm_and_each_setting_gives_a_run_of_its_own():
    config = small(21, probed=False)
    settings = [{}, {"eps": 0.1}, {"norm": "gn"}, {"norm": "gn", "eps": 0.1}, {"norm": "none"}, {"net": "cnn"}]
    settings += [{"norm": "ghost", "ghost": 4}, {"norm": "ghost", "ghost": 8}, {"batch": 8}, {"lr": 0.2}]
    runs = [tuple(row["loss"] for row in cell(config, **setting)) for setting in settings]
    assert len(set(runs)) == len(runs)
    own = cell(config, norm=lambda channels: BatchNorm(channels, eps=0.1))
    assert own == cell(config, eps=0.1)
    assert cell(config, norm="ghost", ghost=16)[-1]["loss"] == pytest.approx(cell(config)[-1]["loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("setting", "choices"), [({"net": "rnn"}, "mlp, cnn"), ({"norm": "layer"}, "none, bn, gn, ghost")]
)
def test_unknown_names_are_refused(setting, choices):
    with pytest.raises(core.Refused, match=f"choose from {choices}"):
        cell(**setting)


def test_what_bn_passes_back_to_pairs():
    (row,) = cell(arm="pairs")
    assert row["zero"] < 1e-13
    assert row["share_1e-05"] > row["share_0.001"] > row["share_0.1"] > 0.01
    x = images("mnist5k")[0][0][torch.from_numpy(np.random.default_rng(31).permutation(3_500)[:100])]
    with seeded(31):
        weight = MLP([784, 128, 128, 128, 10], BatchNorm)[1].layer.weight.detach()
    z = (x.flatten(1) @ weight.T).double().view(2, -1)
    with seeded(31):
        dy = torch.randn(z.shape, dtype=torch.float64)
    half = (z[0] - z[1]) / 2
    dx = (0.001 / (half**2 + 0.001) ** 1.5 * (dy[0] - dy[1]) / 2).square().sort(descending=True).values
    assert row["share_0.001"] == pytest.approx(float(dx[: len(dx) // 100].sum() / dx.sum()), rel=1e-5)
    assert row["loss"] == pytest.approx(float((z**2).mean()), rel=1e-6)
    assert experiment.summarize([row]) == {k: v for k, v in row.items() if k not in ("step", "loss")}


def test_a_run_is_recorded_and_read_again(monkeypatch):
    arms = {arm: dataclasses.replace(FULL[arm], dataset="mnist5k", steps=21) for arm in ("mlp-bn-64", "mlp-gn-64")}
    arms["pairs"] = dataclasses.replace(FULL["pairs"], dataset="mnist5k")
    arms["mlp-bn-64"] = dataclasses.replace(arms["mlp-bn-64"], settings=arms["mlp-bn-64"].settings[1:4])
    arms["mlp-gn-64"] = dataclasses.replace(arms["mlp-gn-64"], settings=arms["mlp-gn-64"].settings[2:3])
    config = dataclasses.replace(experiment.PRESETS["full"], arms=arms, seeds=(31, 32), options=small().options)
    monkeypatch.setitem(experiment.PRESETS, "full", config)
    run = runner.run("batch-size", "full")
    assert record.save(run).stat().st_size < 12_000
    loaded = record.load("batch-size")
    assert ledger.stale("batch-size") == []
    for one, other in zip(ledger.entries(loaded), ledger.entries(run), strict=True):
        assert one["id"] == other["id"]
        assert one["ours"] == pytest.approx(other["ours"], rel=1e-3, abs=2e-3), one["id"]  # five digits are kept
    assert {e["id"] for e in ledger.entries(run)} >= {"batch-size-mlp-bn-gn-64", "batch-size-pairs-zero"}
    axes = Figure().subplots()
    experiment.draw(loaded.rows, axes)
    assert len(axes.lines) == 2
    assert axes.lines[0].get_xdata()[-1] == 21 * 64


# --- claims


def whole(end=lambda arm: 0.8, **columns):
    """Cells of all arms, three seeds each; ``end`` gives an arm's accuracy."""
    rows = []
    for arm, plan in FULL.items():
        for i, seed in enumerate((11, 12, 13)):
            row = {"arm": arm, "seed": seed, "dataset": "fashion-mnist", "steps": plan.steps, "zero": 1e-16}
            row |= {f"share_{eps:g}": 0.5 for eps in EPS} | {"end": end(arm) + 0.001 * i}
            row |= {
                "running": 0.8,
                "population": 0.81,
                "test_batch": 0.7,
                "far_population": 0.01,
                "far_test_batch": 0.2,
            }
            rows.append(row | columns)
    return pd.DataFrame(rows)


def told(table):
    return {claim.id.removeprefix("batch-size-"): claim for claim in claims(table)}


def as_expected(arm):
    """The MLP with BN collapses at 2, all else is level."""
    return {
        "mlp-bn-2": 0.4,
        "mlp-bn-3": 0.7,
        "mlp-bn-2-eps0.1": 0.75,
        "mlp-bn-64-eps0.1": 0.82,
        "mlp-gn-4": 0.785,
        "mlp-gn-256": 0.7,
    }.get(arm, 0.8)


def test_a_whole_run_gives_every_claim_once_and_four_have_a_threshold():
    found = claims(whole(as_expected))
    assert len({claim.id for claim in found}) == len(found) == 84
    by_name = told(whole(as_expected))
    fixed = {name: claim.threshold for name, claim in by_name.items() if claim.threshold is not None}
    assert fixed == {
        **{"mlp-bn-2": 20.0, "cnn-bn-2": (None, 2.0), "mlp-gn-small": (None, 2.0)},
        "pairs-zero": (None, 1e-12),
    }
    assert all(by_name[name].verdict == "agrees" for name in ("mlp-bn-2", "cnn-bn-2", "mlp-gn-small"))
    assert by_name["pairs-zero"].verdict == "reproduced"
    assert {claim.paper for claim in found} == {"wu2018", "wu2021", "hoffer2017", "ioffe2015"}


def test_the_numbers_are_what_the_statements_say():
    found = told(whole(as_expected))
    for name, value in {
        **{
            "mlp-bn-2": 40,
            "mlp-bn-4": 0,
            "mlp-bn-worst": 40,
            "mlp-gn-small": 1.5,
            "mlp-gn-worst": 10,
            "mlp-gn-256": 10,
            "three": 10,
        },
        **{
            "eps-2-1e-01": 35,
            "eps-2-1e-03": 40,
            "eps-2-left": 5,
            "eps-3-1e-01": 10,
            "eps-64-1e-01": 2,
            "mlp-bn-gn-2": -40,
        },
        **{
            "mlp-far-test-batch-2": 20,
            "mlp-far-population-2": 1,
            "mlp-test-batch-2": -10,
            "mlp-population-2": 1,
            "mlp-bn-2-population": 0,
        },
        **{"pairs-1e-01": 50, "again": 0, "ghost-16": 0, "cnn-bn-2": 0},
    }.items():
        assert found[name].measured.value == pytest.approx(value), name
    assert found["mlp-far-test-batch-2"].unit == "%"
    assert found["mlp-test-batch-2"].unit == "points"
    assert ledger._number(found["mlp-test-batch-2"].measured.value, "points") == "-10.00 points"


def test_what_misses_a_threshold_says_so():
    assert told(whole())["mlp-bn-2"].verdict == "disagrees"
    falls = told(whole(lambda arm: 0.7 if arm in ("cnn-bn-2", "mlp-gn-2") else 0.8))
    assert falls["cnn-bn-2"].verdict == falls["mlp-gn-small"].verdict == "disagrees"
    assert told(whole(as_expected, zero=1e-3))["pairs-zero"].verdict == "not reproduced"
    better = told(whole(lambda arm: 0.9 if arm == "cnn-bn-2" else 0.8))
    assert better["cnn-bn-2"].verdict == "agrees"


def test_claims_are_only_of_arms_that_were_run():
    lite = whole(as_expected)
    lite = lite[lite["arm"].isin(LITE)]
    assert {"mlp-bn-2", "eps-2-1e-01", "mlp-bn-gn-64"} < set(told(lite))
    assert "mlp-gn-small" not in told(lite)
    assert claims(lite.assign(arm="my-" + lite["arm"])) == []
