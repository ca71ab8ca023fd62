"""Ensembles: what a cell trains, how its members vote, McNemar's test, and what the claims compare."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from scipy import stats

from bnlib.experiments import core, ledger, record, runner
from bnlib.experiments import ensemble as experiment
from bnlib.experiments.ensemble import _sizes, claims, mcnemar, packed, unpacked
from bnlib.nets import inits
from bnlib.nets.images import images
from bnlib.nets.inference import probabilities
from bnlib.nets.models import SmallCNN
from bnlib.nets.norms import BatchNorm
from bnlib.nets.training import fit, seeded

FULL = experiment.PRESETS["full"].arms
SETTING = {"norm": "bn", "members": 3, "horizon": 22, "lr": 0.05}


def small(steps=22, probed=True):
    plans = {"mine": core.Plan("mnist5k", steps, (SETTING,), probed=probed)}
    return core.Config(plans, (31, 32), (3,), options=experiment.OPTIONS)


def cell(config=None, seed=31, **setting):
    return runner.one_cell("ensemble", config or small(), "mine", seed, SETTING | setting)["rows"]


@pytest.fixture(scope="module")
def three():
    """The rows of a cell of three nets."""
    return cell()


# --- arms


def test_both_families_are_tuned_in_as_many_cells_and_train_as_long():
    assert set(FULL) == set(experiment.ARMS) == set(experiment.LOOKS) == {"plain", "bn", "plain-long", "bn-long"}
    for one, other in (("plain", "bn"), ("plain-long", "bn-long")):
        assert FULL[one].steps == FULL[other].steps
        assert len(FULL[one].settings) == len(FULL[other].settings)
    pairs = zip(FULL["plain"].settings, FULL["bn"].settings, strict=True)
    assert all({k for k in a if a[k] != b[k]} == {"norm"} for a, b in pairs)
    for arm in ("plain", "bn"):
        longer = FULL[f"{arm}-long"]
        alone = [setting | {"members": 1, "horizon": longer.steps} for setting in FULL[arm].settings]
        assert list(longer.settings) == alone
        assert longer.steps == FULL[arm].settings[0]["members"] * FULL[arm].steps
    full = experiment.PRESETS["full"]
    assert len(full.seeds) >= 3
    assert len(full.tuning_seeds) >= 2
    members = {100 * seed + k for seed in full.seeds for k in range(6)}
    assert not members & {100 * seed for seed in full.tuning_seeds}


# --- a cell


@pytest.mark.parametrize("norm", [None, BatchNorm])
def test_a_member_is_a_net_trained_with_a_falling_rate(norm):
    rows = cell(small(21), seed=3, norm=norm and "bn" or "none", horizon=21)
    train, validation, _ = images("mnist5k")
    with seeded(300):
        model = SmallCNN(norm)
    with seeded(300):
        inits.he(model)
    schedule = lambda step: (22 - step) / 21  # noqa: E731
    options = dict(lr=0.05, steps=21, batch=64, seed=300, schedule=schedule, progress=False)
    history = fit(model, *train, validation=(train[0][:1], train[1][:1]), every=1, **options)
    assert [row["step"] for row in rows] == list(range(1, 22))
    np.testing.assert_allclose([row["loss"] for row in rows], [row["loss"] for row in history], rtol=1e-5)
    right = probabilities(model, validation[0]).argmax(1) == validation[1]
    assert rows[-1]["score"] == float(right.double().mean())
    assert experiment.summarize(rows) == {"score": rows[-1]["score"]}


def test_a_confirming_cell_votes_with_the_members_of_its_seed(three, monkeypatch):
    assert [row["step"] for row in three] == [*range(1, 21), 22, 22, 22]
    assert [row.get("size") for row in three[20:]] == [1, 2, 3]
    answers = []
    real = experiment.probabilities

    def spy(model, x):
        answers.append(real(model, x))
        return answers[-1]

    monkeypatch.setattr(experiment, "probabilities", spy)
    again = cell()
    assert again == three
    _, (_, validation), (_, labels) = images("mnist5k")
    on_validation, on_test = answers[0::2], answers[1::2]
    assert all(len(a) == 500 for a in on_validation)
    wrong = [float((p.argmax(1) != labels).double().mean()) for p in on_test]
    assert three[20]["errors"] == pytest.approx(wrong)
    assert three[20]["error"] == pytest.approx(np.mean(wrong))
    mean = torch.stack(on_test).mean(0)
    assert three[22]["error"] == pytest.approx(float((mean.argmax(1) != labels).double().mean()))
    best = int(np.argmax([float((p.argmax(1) == validation).double().mean()) for p in on_validation]))
    assert three[22]["single"] == pytest.approx(wrong[best])
    np.testing.assert_array_equal(unpacked(three[22]["right"]), (mean.argmax(1) == labels).numpy())
    np.testing.assert_array_equal(unpacked(three[22]["right_first"]), (on_test[0].argmax(1) == labels).numpy())
    np.testing.assert_array_equal(unpacked(three[22]["right_second"]), (on_test[1].argmax(1) == labels).numpy())


def test_every_subset_votes():
    rng = np.random.default_rng(0)
    answers, labels = rng.dirichlet(np.ones(3), (4, 50)), rng.integers(0, 3, 50)
    rows = _sizes({"step": 9, "loss": 0.1}, answers, labels, [0.1, 0.3, 0.3, 0.2])
    assert [len(row["errors"]) for row in rows] == [4, 6, 4, 1]
    for row in rows:
        wanted = [
            np.mean(sum(answers[k] for k in part).argmax(1) != labels)
            for part in itertools.combinations(range(4), row["size"])
        ]
        assert row["errors"] == pytest.approx(wanted)
        assert row["error"] == pytest.approx(np.mean(wanted))
    assert rows[-1]["single"] == pytest.approx(rows[0]["errors"][1])  # the first of two that are equally good
    classes = answers.argmax(2)
    apart = [np.mean(classes[a] != classes[b]) for a in range(4) for b in range(a)]
    assert rows[-1]["disagree"] == pytest.approx(np.mean(apart))
    summary = experiment.summarize(rows)
    assert summary["by_size"] == [row["error"] for row in rows]
    assert summary["ensemble"] == rows[3]["error"]


def test_one_net_is_an_ensemble_of_one():
    answers, labels = np.random.default_rng(0).dirichlet(np.ones(3), (1, 16)), np.zeros(16, int)
    (row,) = _sizes({"step": 9, "loss": 0.1}, answers, labels, [0.5])
    assert row["error"] == row["single"] == pytest.approx((answers[0].argmax(1) != 0).mean())
    assert row["disagree"] == 0
    assert row["right"] == row["right_single"] == row["right_first"] == row["right_second"]


def test_a_mean_of_probabilities_is_no_vote():
    """Two members are a little for class 0, the third is sure of class 1: the mean has class 1."""
    answers = np.array([[[0.6, 0.4]], [[0.6, 0.4]], [[0.0, 1.0]]])
    rows = _sizes({"step": 1, "loss": 0.0}, answers, np.array([1]), [0.0, 0.0, 1.0])
    assert rows[-1]["errors"] == [0.0]


def test_a_cell_that_is_not_probed_trains_one_net():
    rows = cell(small(21, probed=False))
    assert [row["step"] for row in rows] == list(range(1, 22))
    assert rows[-1]["size"] == 1


def test_a_run_that_diverges_is_wrong_and_not_an_error():
    rows = cell(small(21, probed=False), norm="none", lr=1e6)
    assert rows[-1]["error"] > 0.8


def test_unknown_names_are_refused():
    with pytest.raises(core.Refused, match="choose from none, bn"):
        cell(norm="gn")


# --- McNemar


def test_bits_come_back():
    for count in (8, 10, 1_000):
        right = np.random.default_rng(count).random(count) < 0.7
        back = unpacked(packed(right))
        np.testing.assert_array_equal(back[:count], right)
        assert not back[count:].any()
    assert len(packed(np.ones(10_000, bool))) < 1_700


def test_mcnemar_is_the_known_test():
    rng = np.random.default_rng(0)
    right, other = rng.random((2, 1_000)) < [[0.8], [0.7]]
    b, c, z, p = mcnemar(right, other)
    table = [[np.sum(right & other), b], [c, np.sum(~right & ~other)]]
    assert np.sum(table) == 1_000
    assert z == pytest.approx((b - c) / np.sqrt(b + c))
    assert p == pytest.approx(min(1, 2 * stats.binom.cdf(min(b, c), b + c, 0.5)))
    assert stats.chi2.sf(z**2, 1) == pytest.approx(p, rel=0.3)
    assert mcnemar(other, right)[2] == -z
    assert mcnemar(right, right) == (0, 0, 0.0, 1.0)


def test_mcnemar_says_nothing_where_nothing_differs():
    """Under the null z has mean 0 and standard deviation 1."""
    rng = np.random.default_rng(1)
    found = [mcnemar(*(rng.random((2, 500)) < 0.8))[2] for _ in range(300)]
    assert abs(np.mean(found)) < 0.2
    assert np.std(found) == pytest.approx(1, abs=0.12)


# --- claims and recorded file


def whole(families=None, dataset="mnist5k"):
    """Cells of all arms, three seeds: per family the images that ensemble, best single and first two have wrong."""
    families = families or {"plain": (200, 250, 260, 270), "bn": (100, 130, 140, 145)}
    rows = []
    for arm, seed in itertools.product(FULL, (11, 12, 13)):
        of = families[arm.removesuffix("-long")]
        wrong = [np.arange(1_000) >= count for count in of]  # nested: no image is wrong in the ensemble alone
        row = {"arm": arm, "seed": seed, "dataset": dataset, "steps": FULL[arm].steps, "disagree": 0.1}
        row |= dict(zip(("right", "right_single", "right_first", "right_second"), map(packed, wrong), strict=True))
        by_size = [(of[0] + (6 - k) * 12) / 1_000 for k in range(1, 7)]
        row |= {"ensemble": of[0] / 1_000, "single": of[1] / 1_000, "by_size": by_size}
        if arm.endswith("-long"):
            row |= {"ensemble": of[0] / 1_000 + 0.01, "by_size": [of[0] / 1_000 + 0.01]}
        rows.append(row)
    return pd.DataFrame(rows)


def told(table):
    return {claim.id.removeprefix("ensemble-"): claim for claim in claims(table)}


def test_a_whole_run_gives_every_claim_once_and_one_has_a_threshold():
    found = claims(whole())
    assert len({claim.id for claim in found}) == len(found) == 25
    assert {c.id: c.threshold for c in found if c.threshold is not None} == {"ensemble-bn-z": 2.0}
    assert {claim.paper for claim in found} == {"ioffe2015"}


def test_the_numbers_are_what_the_statements_say():
    found = told(whole())
    for name, value in {
        **{"bn-z": 30**0.5, "bn-z-lowest": 30**0.5, "plain-z": 50**0.5, "bn-gain": 3, "plain-gain": 5},
        **{"bn-gain-average": 6, "bn-times": 1.6, "plain-times": 1.3, "bn-share-2": 20, "bn-share-3": 40},
        **{"bn-disagree": 10, "bn-long": 1, "plain-long": 1, "bn-nothing": 5**0.5, "plain-nothing": 10**0.5},
        **{"gains": -2, "gains-average": 0, "families": 10, "families-z": 10, "six-against-one": 7},
    }.items():
        assert found[name].measured.value == pytest.approx(value), name
    assert found["bn-z"].verdict == "agrees"
    assert "points" in ledger.DIFFERENCES


def test_an_ensemble_that_is_no_better_misses():
    found = told(whole({"plain": (200, 250, 260, 270), "bn": (128, 130, 140, 145)}))
    assert found["bn-z"].measured.value == pytest.approx(2**0.5)
    assert found["bn-z"].verdict == "disagrees"


def test_seeds_are_paired_in_any_order():
    table = whole()
    table.loc[(table["arm"] == "bn") & (table["seed"] == 12), "ensemble"] = 0.05
    shuffled = table.sample(frac=1, random_state=0)
    assert told(shuffled)["gains"].measured == told(table)["gains"].measured
    assert told(table)["families"].measured.value == pytest.approx((10 + 15 + 10) / 3)


def test_claims_are_only_of_arms_that_were_run():
    table = whole()
    few = told(table[table["arm"] == "bn"])
    assert set(few) == {
        *("bn-z", "bn-z-lowest", "bn-gain", "bn-gain-average", "bn-times", "bn-share-2", "bn-share-3"),
        *("bn-disagree", "bn-nothing"),
    }
    assert claims(table.assign(arm="my-" + table["arm"])) == []


def test_a_run_is_recorded_and_read_again(monkeypatch, three):
    tuned = experiment.plans("mnist5k", 22, [0.02, 0.05, 0.1])
    arms = {arm: dataclasses.replace(plan, steps=22) for arm, plan in tuned.items() if arm != "plain-long"}
    for arm in ("plain", "bn-long"):
        arms[arm] = dataclasses.replace(arms[arm], settings=tuned[arm].settings[1:2])
    config = dataclasses.replace(experiment.PRESETS["full"], arms=arms, seeds=(31, 32))
    monkeypatch.setitem(experiment.PRESETS, "full", config)

    def canned(config, arm, seed, **setting):  # the numbers of a cell do not matter here
        rows = [dict(row) for row in three]
        if seed in config.tuning_seeds:
            return [*rows[:19], rows[19] | {"score": setting["lr"] * (0.1 - setting["lr"])}]
        return rows[:21] if setting["members"] == 1 else rows

    def sized(*arguments, **setting):
        rows = canned(*arguments, **setting)
        if "size" in rows[-1]:
            rows[-1] |= {key: three[-1][key] for key in three[-1] if key not in rows[-1]}
        return rows

    monkeypatch.setattr(experiment, "run", sized)
    run = runner.run("ensemble", "full")
    assert run.chosen["bn"]["setting"]["lr"] == 0.05
    assert run.chosen["bn-long"]["setting"] == {"norm": "bn", "members": 1, "horizon": 132, "lr": 0.05}
    assert record.save(run).stat().st_size < 25_000
    loaded = record.load("ensemble")
    for one, other in zip(ledger.entries(loaded), ledger.entries(run), strict=True):
        assert one["id"] == other["id"]
        assert one["ours"] == pytest.approx(other["ours"], rel=1e-3, abs=1e-3)
    sizes = loaded.rows.dropna(subset="size")
    assert sizes[sizes["arm"] == "bn"]["errors"].iloc[1] == pytest.approx(three[21]["errors"], rel=1e-3)
    for rows in (loaded.rows, run.rows):
        axes = Figure().subplots()
        experiment.draw(rows, axes)
        assert len(axes.lines) == 2
        assert axes.lines[0].get_xdata().tolist() == [1, 2, 3]
