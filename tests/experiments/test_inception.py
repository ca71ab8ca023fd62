"""Section 4.2: that the arms are what their names say, what a cell measures, and what the claims compare."""

import dataclasses
import functools

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from bnlib.experiments import core, inception, runner
from bnlib.experiments.core import ANALOGUE, Config, Plan, grid
from bnlib.experiments.inception import CHANGES, FULL, SEARCH, Distortion, Watch, claims, search_name, summarize
from bnlib.nets import inits, probes
from bnlib.nets.models import MiniInception
from bnlib.nets.norms import BatchNorm
from bnlib.nets.training import Schedule, accuracy, adam, fit, seeded, sgd

SETTING = {"lr": 0.05, "modules": 1}
OPTIONS = inception.OPTIONS | {"images": (100, 150), "batch": 16}


def tiny(steps=4, settings=(SETTING,), **changes):
    config = Config({"inception": Plan("mnist5k", steps, settings)}, (31,), (3, 4), options=OPTIONS)
    return dataclasses.replace(config, **changes)


def cell(config=None, seed=31, **setting):
    return runner.one_cell("inception", config or tiny(), "inception", seed, SETTING | setting)["rows"]


@functools.cache
def once(**setting):
    return cell(**setting)


def losses(rows):
    return [row["loss"] for row in rows]


# --- the arms


def test_every_arm_of_the_paper_and_every_control_is_there():
    papers = {"inception", "inception-dropout", "bn-baseline", "bn-x5", "bn-x30", "bn-x5-sigmoid"}
    controls = {
        "inception-x5",
        "inception-x30",
        "inception-sigmoid",
        "dd",
        "sigmoid-dd",
        "he-clip",
        "dd-warm",
        "dd-adam",
    }
    tuned = {"bn", "bn-warm", "bn-adam", "plain-tuned", "bn-tuned"}
    again = {"inception-again", "plain-again", "bn-again"}
    fast = {"plain-fast", "bn-fast", "plain-fast-clip", "plain-fast-warm", "plain-fast-he"}
    recipe = {"recipe", "recipe-bn", "recipe-all", *(f"recipe-{name}" for name in CHANGES)}
    search = {search_name(*s) + end for s in SEARCH for end in ("", "-bn", "-bn-x5", "-bn-x30")}
    assert set(FULL) == papers | controls | tuned | again | fast | recipe | search | {"clock"}
    assert set(inception.ARMS) == set(FULL) == set(inception.LOOKS)
    words = list(inception.ARMS.values())
    assert len(set(words) - {"the same with Adam"}) == len(words) - 2  # of two different arms


def test_the_search_goes_through_eight_settings():
    found = set()
    for setting in SEARCH:
        (values,) = {
            (p["modules"], p["momentum"], p.get("dropout", 0), p.get("l2", 0))
            for p in settings(search_name(*setting))
        }
        found.add(values)
    assert found == {(m, p, *d) for m in (5, 9) for p in (0.9, 0.0) for d in ((0, 0), (0.4, 1e-4))}
    assert search_name(5, 0.9, False) == "d12-m09"
    assert search_name(9, 0.0, True) == "d20-m0-drop"


def settings(arm):
    """What an arm runs if the first setting of its grid, or of the arm that it follows, is chosen."""
    plan = FULL[arm]
    return plan.settings or tuple(plan.changed(s) for other in plan.others for s in settings(other))


def differences(arm, other):
    """Names and values in which the first settings of two arms differ."""
    one, two = settings(arm)[0], settings(other)[0]
    return {key: two.get(key) for key in {*one, *two} if one.get(key) != two.get(key)}


@pytest.mark.parametrize(
    ("arm", "other", "change"),
    [
        ("inception", "inception-dropout", {"dropout": 0.4, "l2": 1e-4}),
        ("inception", "bn-baseline", {"norm": "bn"}),
        ("inception", "bn", {"norm": "bn"}),
        ("bn-baseline", "bn-x5", {"lr": 0.0625}),
        ("bn-baseline", "bn-x30", {"lr": 0.375}),
        ("bn-x5", "bn-x5-sigmoid", {"activation": "sigmoid"}),
        ("inception", "inception-x5", {"lr": 0.0625}),
        ("inception", "inception-x30", {"lr": 0.375}),
        ("plain-fast", "bn-fast", {"norm": "bn"}),
        ("plain-fast", "plain-fast-clip", {"clip": 1.0}),
        ("plain-fast", "plain-fast-warm", {"warmup": 200}),
        ("plain-fast-clip", "plain-fast-he", {"init": "he"}),
        ("inception", "dd", {"init": "dd"}),
        ("inception-sigmoid", "sigmoid-dd", {"init": "dd"}),
        ("dd-warm", "bn-warm", {"init": None, "norm": "bn"}),
        ("dd-adam", "bn-adam", {"init": None, "norm": "bn"}),
        ("recipe", "recipe-bn", {"norm": "bn"}),
        ("recipe-bn", "recipe-rate", {"lr": 0.0625}),
        ("recipe-bn", "recipe-dropout", {"dropout": 0.0}),
        ("recipe-bn", "recipe-l2", {"l2": 2e-5}),
        ("recipe-bn", "recipe-decay", {"halvings": 6}),
        ("recipe-bn", "recipe-response", {"response": False}),
        ("recipe-bn", "recipe-shuffle", {"shuffle": True}),
        ("recipe-bn", "recipe-distort", {"distort": 0.1}),
        ("d12-m09", "d12-m09-bn", {"norm": "bn"}),
        ("d12-m09-bn", "d12-m09-bn-x5", {"lr": 0.0625}),
        ("d20-m0-bn-x5", "d20-m0-bn-x30", {"lr": 0.125 * 30}),
        ("d12-m09-drop-bn", "d12-m09-drop-bn-x5", {"lr": 0.0625, "dropout": 0.0, "l2": 2e-5}),
    ],
)
def test_an_arm_changes_what_its_name_says_and_nothing_else(arm, other, change):
    found = differences(arm, other)
    assert {k: pytest.approx(v) if isinstance(v, float) else v for k, v in change.items()} == found


def test_all_seven_changes_together():
    assert differences("recipe-bn", "recipe-all") == {
        **{"lr": 0.0625, "dropout": 0.0, "l2": 2e-5, "halvings": 6},
        **{"response": False, "shuffle": True, "distort": 0.1},
    }


def test_arms_that_are_compared_are_tuned_in_as_many_cells():
    for pair in (
        ("inception", "bn"),
        ("dd", "bn"),
        ("he-clip", "bn"),
        ("dd-warm", "bn-warm"),
        ("dd-adam", "bn-adam"),
    ):
        assert len({len(FULL[arm].settings) for arm in pair}) == 1, pair
    assert FULL["plain-tuned"].like == ("dd-warm", "dd-adam")
    assert FULL["bn-tuned"].like == ("bn-warm", "bn-adam")
    full = inception.PRESETS["full"]
    for arm, again in (("inception", "inception-again"), ("plain-tuned", "plain-again"), ("bn-tuned", "bn-again")):
        assert not set(full.confirming(arm)) & set(full.confirming(again))
    assert len(full.seeds) >= 3
    assert len(full.tuning_seeds) >= 2


def test_arms_with_bn_are_blue_and_the_others_grey():
    blue, grey = inception.LOOKS["bn"]["color"], inception.LOOKS["inception"]["color"]
    assert blue != grey
    for arm, style in inception.LOOKS.items():
        if arm != "clock":
            has_bn = {s.get("norm", "none") == "bn" for s in settings(arm)}
            assert {style["color"] == blue} == has_bn, arm


# --- when a net is looked at, how images are changed


def test_it_is_evaluated_more_often_on_the_way_to_the_goal():
    def walk(values, steps=300):
        watch, history = Watch(0.85), []
        for step in range(1, steps + 1):
            if watch(step, history):
                history.append({"step": step, "accuracy": values(step)})
        return [row["step"] for row in history]

    assert walk(lambda step: 0.5) == [1, 2, 3, 10, 20, *range(30, 301, 30)]
    assert walk(lambda step: 0.8) == sorted({1, 2, 3, 10, 20, *range(15, 301, 15)})
    reached = walk(lambda step: 0.9 if step >= 60 else 0.7)
    assert reached[:10] == [1, 2, 3, 10, 15, 20, 30, 45, 60, 75]
    assert reached[10:] == [90, *range(120, 301, 30)]  # the goal is the mean of three
    assert 105 in walk(lambda step: 0.9 if step in (60, 90) else 0.72)  # single evaluations do not count


def test_distortions_change_each_image_by_its_own_contrast_and_brightness():
    with seeded(0):
        x = torch.randn(500, 1, 4, 4)
    with seeded(1):
        y = Distortion(0.4)(x)
    with seeded(1):
        assert torch.equal(Distortion(0.4)(x), y)
    flat, changed = x.flatten(1), y.flatten(1)
    contrast = (changed[:, 0] - changed[:, 1]) / (flat[:, 0] - flat[:, 1])
    brightness = changed[:, 0] - contrast * flat[:, 0]
    assert_allclose(changed, contrast[:, None] * flat + brightness[:, None], atol=1e-3)
    for values, middle in ((contrast, 1), (brightness, 0)):
        assert abs(values.mean() - middle) < 0.05
        assert 0.37 < (values - middle).abs().max() < 0.401
    assert abs(np.corrcoef(contrast, brightness)[0, 1]) < 0.15
    assert torch.equal(Distortion(0.0)(x), x)


# --- a cell


ROW = {"step": 4, "loss": 1.0, "accuracy": 0.5}  # of a net that was not trained


def bare(seed=31, steps=4, **setting):
    """A cell by hand."""
    train, validation, test = inception.images("mnist5k")
    train = tuple(part[: setting.get("samples")] for part in train)
    tuning = seed in (3, 4)
    part = validation if tuning else test
    few = tuple(a[: 100 if tuning else 150] for a in part)
    with seeded(seed):
        model = MiniInception(modules=1, **setting.get("net", {}))
    with seeded(seed):
        inits.xavier(model)
        setting.get("init", lambda model, images: None)(model, train[0])
    options = {"lr": 0.05, "steps": steps, "batch": 16, "every": [1, 2, 3], "progress": False, "seed": seed}
    options |= {"validation": few, "schedule": Schedule(1_000, 5)} | setting.get("fit", {})
    return fit(model, *train, **options), model, part


@pytest.mark.parametrize("seed", [31, 3])
def test_a_tuning_cell_sees_validation_images_and_a_confirming_cell_test_images(seed):
    rows, (wanted, model, part) = cell(seed=seed), bare(seed)
    assert [(r["step"], r["loss"], r["accuracy"]) for r in rows] == [
        (r["step"], r["loss"], r["accuracy"]) for r in wanted
    ]
    assert rows[-1]["gradient"] == pytest.approx(probes.gradient_norm(model))
    if seed == 31:
        assert rows[-1]["end"] == accuracy(model, *(few[:150] for few in part))
        assert len(part[0]) == 1_000
        assert 0 <= rows[-1]["dead"] <= 1
    else:
        assert rows[-1]["end"] is None
        assert "dead" not in rows[-1]


def test_a_net_that_was_trained_is_measured_on_all_test_images(monkeypatch):
    monkeypatch.setattr(inception, "WORTH", 4)
    rows, (_, model, part) = cell(seed=31), bare(31)
    assert rows[-1]["end"] == accuracy(model, *part)


@pytest.mark.parametrize(
    ("setting", "by_hand"),
    [
        ({"norm": "bn"}, {"net": {"norm": BatchNorm}}),
        ({"activation": "sigmoid"}, {"net": {"activation": torch.sigmoid}}),
        ({"init": "he"}, {"init": lambda model, images: inits.he(model)}),
        (
            {"init": "dd"},
            {"init": lambda model, images: inits.data_dependent(model, images[torch.randperm(3_500)[:512]])},
        ),
        ({"samples": 40}, {"samples": 40}),
        ({"dropout": 0.4}, {"net": {"dropout": 0.4}}),
        ({"response": True}, {"net": {"response": True}}),
        ({"l2": 1e-2}, {"fit": {"optimizer": lambda m, lr: sgd(m, lr, weight_decay=1e-2)}}),
        ({"momentum": 0.0}, {"fit": {"optimizer": lambda m, lr: sgd(m, lr, momentum=0.0)}}),
        ({"optimizer": "adam", "lr": 0.01}, {"fit": {"optimizer": adam, "lr": 0.01}}),
        ({"clip": 0.1}, {"fit": {"clip": 0.1}}),
        ({"warmup": 3}, {"fit": {"schedule": Schedule(1_000, 5, 3)}}),
        ({"horizon": 4, "halvings": 1}, {"fit": {"schedule": Schedule(4, 1)}}),
        ({"distort": 0.4}, {"fit": {"change": Distortion(0.4)}}),
        ({"modules": 2}, {"net": {"modules": 2}}),
    ],
    ids=lambda value: "-".join(value) if "net" not in value and "fit" not in value else "",
)
def test_each_setting_does_what_its_name_says(setting, by_hand):
    if setting.get("modules"):  # the net by hand has one module
        assert losses(cell(**setting)) != losses(once())
        return
    found = losses(cell(**setting))
    assert found == losses(bare(**by_hand)[0])
    assert found != losses(once())


def test_nets_with_and_without_bn_start_from_the_same_weights(monkeypatch):
    starts = []
    monkeypatch.setattr(inception, "fit", lambda model, *args, **others: starts.append(model) or [dict(ROW)])
    cell(norm="bn", seed=3), cell(seed=3)
    weights = [[m.weight for m in inits.layers(model)] for model in starts]
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    assert [m.bias is None for m in inits.layers(starts[0])] != [m.bias is None for m in inits.layers(starts[1])]


def test_batches_that_never_change_differ_after_the_first_epoch_and_the_recipe_has_more_than_one():
    assert losses(once(shuffle=False)) == losses(once())
    few = {"samples": 40}
    assert losses(cell(shuffle=False, **few)) != losses(cell(**few))
    assert inception.HORIZON * inception.OPTIONS["batch"] > 3 * inception.RECIPE["samples"]


def test_a_cell_is_the_same_again_and_another_seed_is_another():
    assert losses(cell()) == losses(once()) != losses(cell(seed=32))


def test_a_learners_own_functions_take_the_place_of_names():
    assert losses(cell(norm=lambda channels: BatchNorm(channels))) == losses(once(norm="bn"))
    assert losses(cell(init=lambda model, images: inits.he(model))) == losses(once(init="he"))
    assert losses(cell(optimizer=lambda m, lr: sgd(m, lr, momentum=0.9))) == losses(once())
    with pytest.raises(core.Refused, match="^there is no value 'x': choose from none, bn$"):
        cell(norm="x")


class Centre(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.beta = torch.nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x):
        return x - x.mean((0, 2, 3), keepdim=True) + self.beta


def test_a_learners_own_norm_is_an_arm(monkeypatch):
    plans = {"inception": Plan("mnist5k", 3, grid(modules=1, lr=[0.05, 0.1]))}
    plans["bn-baseline"] = Plan("mnist5k", 3, like="inception", change={"norm": "bn"})
    monkeypatch.setitem(inception.PRESETS, "lite", tiny(arms=plans))
    found = runner.run("inception", arms={"mine": {"base": "bn-baseline", "norm": Centre, "lr": 0.05}})
    assert found.chosen["mine"]["setting"] == {"modules": 1, "lr": 0.05, "norm": Centre}
    assert found.results()["arm"].tolist() == ["mine"]
    assert set(found.results()["seed"]) == {31}
    assert losses(found.rows.to_dict("records")) != losses(once(norm="bn"))[:3]


def test_a_run_that_diverges_stays_at_chance_to_the_end():
    rows = cell(tiny(steps=40), lr=1e30)
    assert np.isnan(rows[-1]["loss"])
    assert rows[-1]["step"] == 40
    assert rows[-2]["step"] < 40
    assert rows[-1]["end"] == rows[-1]["accuracy"] == pytest.approx(0.1)
    assert rows[-1]["score"] < -40
    assert summarize(rows)["reached_70%"] is False


def test_the_score_ranks_steps_first_and_then_accuracy():
    easy = tiny(options=OPTIONS | {"goal": 0.0})
    assert cell(easy)[-1]["score"] == -3  # the mean of the first three evaluations
    rows = once()
    best = max(np.convolve([r["accuracy"] for r in rows], np.ones(3) / 3, "valid"))
    assert rows[-1]["score"] == pytest.approx(-4 * (2 - best))


def test_the_clock_times_three_nets_in_turns():
    config = tiny(steps=20)
    config = dataclasses.replace(
        config, arms={"inception": dataclasses.replace(config.arms["inception"], alone=True)}
    )
    rows = cell(config)
    assert [row["step"] for row in rows] == [10, 20]
    names = {"none_ms", "bn_ms", "torch_ms"}
    assert all(row[name] > 0 for row in rows for name in names)
    assert set(summarize(rows)) == names
    assert summarize(rows)["bn_ms"] == pytest.approx(np.mean([row["bn_ms"] for row in rows]))


# --- what a cell is reduced to


def curve(*values, gap=10, **last):
    rows = [{"step": gap * (i + 1), "loss": 1.0, "accuracy": v, "gradient": 2.0 - i} for i, v in enumerate(values)]
    rows[-1] |= {"score": -7.0, "end": 0.5, "dead": 0.25} | last
    return rows


def test_a_summary_holds_the_steps_to_every_level():
    rows = curve(0.1, 0.6, 0.76, 0.76, 0.76, 0.9, 0.6, 0.9, 0.9)
    summary = summarize(rows)
    assert (summary["steps_70%"], summary["reached_70%"]) == (40.0, True)
    assert (summary["steps_80%"], summary["reached_80%"]) == (60.0, True)
    assert (summary["steps_85%"], summary["reached_85%"]) == (90.0, False)
    assert (summary["score"], summary["end"], summary["dead"], summary["gradient"]) == (-7.0, 0.5, 0.25, 2.0)
    means = [np.mean([r["accuracy"] for r in rows][i : i + 3]) for i in range(7)]
    assert summary["best"] == pytest.approx(max(means))
    steps, heights = summary["rise"]
    assert heights == sorted(set(heights))
    assert heights[-1] == pytest.approx(max(means), abs=1e-4)
    for level in (0.5, 0.7, 0.75, 0.8):  # the steps to any level
        first = next(i for i, mean in enumerate(means) if mean >= level)
        assert next(s for s, h in zip(steps, heights, strict=True) if h >= level - 1e-4) == 10 * (first + 3)


# --- claims


def cells(seeds=(11, 12, 13), **arms):
    """A table of confirming cells: arm -> columns, each a list by seed."""
    tables = []
    for arm, columns in arms.items():
        columns = {k: pd.Series(list(v), dtype=object) if k == "rise" else v for k, v in columns.items()}
        table = pd.DataFrame({"seed": seeds, "lr": 0.05, **columns})
        tables.append(table.assign(arm=arm.replace("_", "-"), dataset="fashion-mnist", steps=1_000))
    return pd.concat(tables, ignore_index=True)


def reach(level, *steps, missed=()):
    """Columns of the steps to a level; which seeds missed it."""
    return {f"steps_{level}%": list(steps), f"reached_{level}%": [i not in missed for i in range(len(steps))]}


def told(table):
    listed = claims(table.sample(frac=1, random_state=0))
    found = {claim.id.removeprefix("inception-"): claim for claim in listed}
    assert len(found) == len(listed)
    return found


def value(claim):
    return claim.measured.value


def whole(**numbers):
    """Confirming cells of every arm of the full scale, all alike."""
    same = {"end": 0.8, "best": 0.8, "dead": 0.1, "lr": 0.05, "none_ms": 10.0, "bn_ms": 20.0, "torch_ms": 15.0}
    for level in (70, 80, 85):
        same |= {f"steps_{level}%": 300.0, f"reached_{level}%": True}
    rows = []
    for arm, plan in FULL.items():
        for seed in inception.PRESETS["full"].confirming(arm):
            about = {"arm": arm, "seed": seed, "dataset": plan.dataset, "steps": plan.steps}
            rows.append({**about, **same, "rise": [[100, 400], [0.6, 0.8]], **numbers})
    return pd.DataFrame(rows)


def test_a_whole_full_run_gives_every_claim_once():
    found = told(whole())
    thresholds = {name: claim.threshold for name, claim in found.items() if claim.threshold is not None}
    assert thresholds == {
        **{"speed-80": 2.0, "tuned-85": 1.2, "tuned-end": 1.0},
        **{"fast-plain": (None, 20.0), "fast-bn": 80.0, "sigmoid-plain": (None, 15.0), "sigmoid-bn": 70.0},
    }
    for name, claim in found.items():
        assert "{" not in claim.statement
        assert claim.fidelity == ANALOGUE
        assert claim.paper == "ioffe2015"
        if claim.unit == "points":
            assert value(claim) == pytest.approx(0, abs=1e-9), name
        elif claim.unit == "%":
            assert value(claim) == pytest.approx(10 if "dead" in name else 80), name
        elif "cost" in name or "seconds" in name:
            per_step = {"torch": 1.5}.get(name.split("-")[-1], 2.0)
            assert value(claim) == pytest.approx(per_step if "cost" in name else 1 / per_step), name
        else:
            assert value(claim) == pytest.approx(1), name
    search = [name for name in found if name.startswith("search-")]
    assert len(search) == len(SEARCH) * 2 * 2
    assert {f"change-{name}{end}" for name in CHANGES for end in ("", "-best")} <= set(found)
    assert len({claim.statement for claim in found.values()}) == len(found)


def test_claims_compare_the_right_arm_with_the_right_arm():
    """Every arm has steps and an accuracy of its own, so a wrong pair gives a wrong number."""
    rng = np.random.default_rng(0)
    table = whole()
    of = {arm: (float(rng.uniform(50, 500)), float(rng.uniform(0.1, 0.9))) for arm in FULL}
    for column in ("steps_70%", "steps_80%", "steps_85%"):
        table[column] = [of[arm][0] * (1 + 0.1 * (column == "steps_85%")) for arm in table["arm"]]
    table["end"] = [of[arm][1] for arm in table["arm"]]
    table["best"] = table["end"] ** 2
    found = told(table)
    for name, slow, fast in (
        *((f"{x}-best", "inception", f"bn-{x}") for x in ("baseline", "x5", "x30")),
        *((f"change-{name}-best", "recipe-bn", f"recipe-{name}") for name in CHANGES),
        *(("x30-x5-best", "bn-x5", "bn-x30"), ("sigmoid-relu-best", "bn-x5", "bn-x5-sigmoid")),
    ):
        assert value(found[name]) == pytest.approx(100 * (of[fast][1] ** 2 - of[slow][1] ** 2)), name
    pairs = {
        **{
            "speed": ("inception", "bn"),
            "tuned": ("plain-tuned", "bn-tuned"),
            "dropout": ("inception-dropout", "bn"),
        },
        **{"dd": ("dd", "bn"), "he-clip": ("he-clip", "bn"), "dd-warm": ("dd-warm", "bn-warm")},
        **{"dd-adam": ("dd-adam", "bn-adam"), "recipe": ("recipe", "recipe-bn"), "x30": ("inception", "bn-x30")},
        **{"recipe-all": ("recipe", "recipe-all"), "baseline": ("inception", "bn-baseline")},
    }
    for name, (slow, fast) in pairs.items():
        assert value(found[f"{name}-80"]) == pytest.approx(of[slow][0] / of[fast][0]), name
        end = found["end" if name == "speed" else f"{name}-end"]
        assert value(end) == pytest.approx(100 * (of[fast][1] - of[slow][1])), name
    for name in ("speed", "tuned", "dd", "he-clip"):
        slow, fast = pairs[name]
        assert value(found[f"{name}-85"]) == pytest.approx(of[slow][0] / of[fast][0])
    for name in CHANGES:
        assert value(found[f"change-{name}"]) == pytest.approx(of["recipe-bn"][0] / of[f"recipe-{name}"][0])
    one = {
        "again-naive": "inception",
        "again-naive-70": "inception",
        "again-plain": "plain-tuned",
        "again-bn": "bn-tuned",
    }
    for name, arm in one.items():
        again = {"plain-tuned": "plain-again", "bn-tuned": "bn-again"}.get(arm, f"{arm}-again")
        assert value(found[name]) == pytest.approx(of[arm][0] / of[again][0])
    assert value(found["order-x5"]) == pytest.approx(of["bn-baseline"][0] / of["bn-x5"][0])
    assert value(found["order-x30"]) == pytest.approx(of["bn-x5"][0] / of["bn-x30"][0])
    assert value(found["plain-gain"]) == pytest.approx(of["inception"][0] / of["plain-tuned"][0])
    for setting in SEARCH:
        name = search_name(*setting)
        for level in (70, 80):
            x5 = of[f"{name}-bn"][0] / of[f"{name}-bn-x5"][0]
            assert value(found[f"search-{name}-x5-{level}"]) == pytest.approx(x5)
            x30 = of[f"{name}-bn-x5"][0] / of[f"{name}-bn-x30"][0]
            assert value(found[f"search-{name}-x30-{level}"]) == pytest.approx(x30)
    for name, arm in (
        *(("fast-plain", "plain-fast"), ("fast-bn", "bn-fast"), ("fast-clip", "plain-fast-clip")),
        *(("fast-warm", "plain-fast-warm"), ("fast-he", "plain-fast-he"), ("x5-plain", "inception-x5")),
        *(("x30-plain", "inception-x30"), ("sigmoid-plain", "inception-sigmoid"), ("sigmoid-dd", "sigmoid-dd")),
        ("sigmoid-bn", "bn-x5-sigmoid"),
    ):
        assert value(found[name]) == pytest.approx(100 * of[arm][1]), name


def test_ratios_are_paired_by_seed_and_thresholds_decide():
    table = cells(
        inception=reach(80, 900, 600, 800) | reach(85, 900, 600, 800) | {"end": [0.7, 0.72, 0.74]},
        bn=reach(80, 300, 300, 100) | reach(85, 300, 300, 100) | {"end": [0.8, 0.8, 0.9], "lr": 0.2},
        plain_fast={"end": [0.1, 0.1, 0.3], "dead": [1.0, 1.0, 0.7]},
        bn_fast={"end": [0.9, 0.75, 0.85], "dead": 0.0},
    )
    found = told(table)
    assert value(found["speed-80"]) == pytest.approx(48 ** (1 / 3))  # 3, 2 and 8
    assert found["speed-80"].verdict == "agrees"
    assert value(found["end"]) == pytest.approx((10 + 8 + 16) / 3)
    assert value(found["best-rate"]) == pytest.approx(4)
    assert value(found["fast-plain"]) == pytest.approx(50 / 3)
    assert found["fast-plain"].verdict == "agrees"
    assert value(found["fast-bn"]) == pytest.approx(250 / 3)
    assert value(found["dead-plain-fast"]) == pytest.approx(90)
    assert found["speed-80"].seeds == (11, 12, 13)
    assert set(found) == {
        *("speed-80", "speed-85", "end", "best-rate", "fast-plain", "fast-bn", "dead-plain-fast", "dead-bn-fast"),
    }
    slower = table.assign(**{"steps_80%": 200.0, "end": 0.5})
    assert told(slower)["speed-80"].verdict == "disagrees"
    assert told(slower)["fast-plain"].verdict == told(slower)["fast-bn"].verdict == "disagrees"


@pytest.mark.parametrize(
    ("slow", "fast", "bound", "number"), [((1,), (), "≥", 2.0), ((), (1,), "≤", 2.0), ((0,), (2,), "", np.nan)]
)
def test_a_level_that_was_missed_makes_a_bound(slow, fast, bound, number):
    table = cells(
        plain_tuned=reach(85, 400, 800, 400, missed=slow)
        | reach(80, 1, 1, 1)
        | {"end": 0.8, "rise": [[[1], [0.5]]] * 3},
        bn_tuned=reach(85, 200, 400, 100, missed=fast)
        | reach(80, 1, 1, 1)
        | {"end": 0.8, "rise": [[[1], [0.5]]] * 3},
    )
    claim = told(table)["tuned-85"]
    assert claim.measured.bound == bound
    assert claim.measured.value == pytest.approx(number, nan_ok=True)
    if np.isnan(number):
        assert claim.verdict == "disagrees"


def test_steps_to_the_slow_nets_own_maximum():
    """Each seed has a level of its own; the other net may miss it."""
    slow = {"rise": [[[100, 900], [0.5, 0.7]], [[100, 400, 800], [0.5, 0.7, 0.72]], [[100], [0.6]]]}
    fast = {"rise": [[[100, 300, 500], [0.6, 0.7, 0.8]], [[100, 200], [0.71, 0.8]], [[50], [0.65]]]}
    same = reach(80, 1, 1, 1) | {"end": 0.5, "best": 0.5}
    found = told(cells(inception=slow | same, bn_baseline=fast | same))
    assert value(found["baseline-maximum"]) == pytest.approx((3 * 4 * 2) ** (1 / 3))
    assert found["baseline-maximum"].measured.bound == ""
    assert found["baseline-maximum"].paper_value == "2.3 times"
    low = {"rise": [[[100, 300], [0.6, 0.7]], [[100, 200], [0.71, 0.8]], [[50], [0.55]]]}
    missed = told(cells(inception=slow | same, bn_baseline=low | same))["baseline-maximum"]
    assert missed.measured.bound == "≤"
    assert value(missed) == pytest.approx(np.median([3, 4, 100 / 1_000]))


def test_seconds_are_steps_times_the_milliseconds_of_the_clock():
    table = cells(
        inception=reach(80, 600, 600, 600) | reach(85, 1, 1, 1) | {"end": 0.5},
        bn=reach(80, 200, 200, 200, missed=(0,)) | reach(85, 1, 1, 1) | {"end": 0.5},
        clock={"none_ms": [10, 12, 11], "bn_ms": [22, 20, 30], "torch_ms": [11, 44, 11]},
    )
    found = told(table)
    assert value(found["seconds-naive"]) == pytest.approx(3 * 11 / 22)
    assert value(found["seconds-naive-torch"]) == pytest.approx(3 * 11 / 11)
    assert found["seconds-naive"].measured.bound == "≤"
    assert value(found["step-cost"]) == pytest.approx((2.2 * 20 / 12 * 30 / 11) ** (1 / 3))
    assert value(found["step-cost-torch"]) == pytest.approx((1.1 * 44 / 12) ** (1 / 3))


def test_claims_are_only_of_arms_that_were_run():
    table = whole()
    assert claims(table[table["arm"] == "inception"]) == []
    assert claims(table.assign(arm="my-" + table["arm"])) == []
    lite = told(table[table["arm"].isin(inception.PRESETS["lite"].arms)])
    assert {"baseline-80", "x5-80", "order-x5", "x5-plain"} <= set(lite)
    assert not {"speed-80", "tuned-85", "step-cost"} & set(lite)


# --- drawing, the recorded file


def test_a_curve_is_straight_between_the_evaluations_of_its_seed():
    rows = []
    for seed, points in ((11, {0: 0.0, 100: 1.0}), (12, {0: 0.5, 40: 0.5, 100: 0.5})):
        rows += [{"arm": "bn", "seed": seed, "step": s, "accuracy": a, "tuning": False} for s, a in points.items()]
    rows.append({"arm": "bn", "seed": 1, "step": 40, "accuracy": 9.0, "tuning": True})
    table = pd.DataFrame(rows)
    ax = Figure().subplots()
    inception.draw(pd.concat([table, table.assign(arm="mine")]), ax)
    assert [line.get_label() for line in ax.lines] == [inception.LOOKS["bn"]["label"], "mine"]
    assert ax.lines[0].get_color() != ax.lines[1].get_color()
    assert_allclose(ax.lines[0].get_xdata(), [0, 40, 100])
    assert_allclose(ax.lines[0].get_ydata(), [0.25, 0.45, 0.75])
    assert ax.get_xlabel() == "training step"
    timed = Figure().subplots()
    inception.draw(table.assign(seconds=table["step"] / 10), timed, x="seconds")
    assert_allclose(timed.lines[0].get_xdata(), [0, 4, 10])
