"""The map for tanh and ReLU: its arms, and what the claims compare."""

import itertools

import pandas as pd
import pytest

from bnlib.experiments import core, runner, speed_up_map
from bnlib.experiments import speed_up_relu as experiment
from bnlib.experiments.speed_up_relu import DEPTHS, INITS, LOWER, PRESETS, RATES, claims


def test_every_place_has_an_arm_and_a_line():
    full = PRESETS["full"]
    places = [
        (activation, depth, init, optimizer, norm)
        for activation, starts in INITS.items()
        for depth, init, optimizer, norm in itertools.product(DEPTHS, starts, RATES, ("plain", "bn"))
    ]
    for place in places:
        activation, depth, init, optimizer, norm = place
        plan = full.arms[speed_up_map.arm_of(*place)]
        lower = LOWER.get(depth, {}).get(optimizer, [])
        assert [setting["lr"] for setting in plan.settings] == sorted([*lower, *RATES[optimizer]])
        same = {"activation": activation, "depth": depth, "init": init, "optimizer": optimizer, "norm": norm}
        assert all(setting | same == setting for setting in plan.settings)
    assert len(full.arms) == len(places) + 5 * len(INITS) * len(DEPTHS)
    assert list(experiment.ARMS) == list(full.arms)
    assert len(set(experiment.ARMS.values())) == len(full.arms)
    assert set(PRESETS["lite"].arms) <= set(full.arms)


def test_both_sides_of_a_tuned_ratio_may_choose_among_as_many_settings():
    arms = PRESETS["full"].arms
    for activation, depth in itertools.product(INITS, DEPTHS):
        plain, bn, dd = (arms[f"{activation}-{depth}-{kind}"].like for kind in ("plain", "bn", "dd"))
        tried = [sum(len(arms[arm].settings) for arm in like) for like in (plain, bn, dd)]
        more = sum(map(len, LOWER.get(depth, {}).values()))
        assert tried == [24 + 2 * more, 24 + 2 * more, 12 + more]
        assert {s["init"] for arm in dd for s in arms[arm].settings} == {"dd"}
        assert {s["norm"] for arm in bn for s in arms[arm].settings} == {"bn"}


@pytest.mark.parametrize("activation", INITS)
def test_a_cell_is_of_the_activation_that_its_arm_names(activation):
    start = INITS[activation][0]
    plan = core.Plan("mnist5k", 21, core.grid(activation=activation, depth=2, init=start, optimizer="sgd", lr=0.1))
    config = core.Config({"mine": plan}, (31,), (3,), options=speed_up_map.OPTIONS | {"images": (100, 100)})
    (setting,) = plan.settings
    losses = {}
    for name, other in (("own", {}), ("sigmoid", {"activation": "sigmoid"}), ("dd", {"init": "dd"})):
        rows = runner.one_cell("speed-up-relu", config, "mine", 31, setting | other)["rows"]
        losses[name] = tuple(row["loss"] for row in rows)
    assert len(set(losses.values())) == 3
    assert losses["own"][-1] < losses["own"][0]


def cells(**arms):
    tables = [pd.DataFrame({"seed": range(11, 14), **columns}).assign(arm=arm) for arm, columns in arms.items()]
    return pd.concat(tables, ignore_index=True).assign(dataset="fashion-mnist", steps=3_000)


def found(arms):
    return {claim.id.removeprefix("speed-up-relu-"): claim for claim in claims(cells(**arms))}


def steps(low, high=(500, 500, 500), best=0.8):
    return {"steps_80%": low, "steps_85%": high, "reached_80%": True, "reached_85%": True, "best": best}


def test_a_whole_full_run_gives_every_claim_once():
    full = PRESETS["full"]
    numbers = {"best": 0.8} | {f"steps_{level}": 100.0 for level in ("80%", "85%")}
    numbers |= {f"reached_{level}": True for level in ("80%", "85%")}
    rows = [
        {"arm": arm, "seed": seed, "dataset": plan.dataset, "steps": plan.steps, **numbers}
        for arm, plan in full.arms.items()
        for seed in full.confirming(arm)
    ]
    listed = claims(pd.DataFrame(rows))
    assert len({claim.id for claim in listed}) == len(listed) == 7 * len(INITS) * len(DEPTHS)
    limits = {claim.id: claim.threshold for claim in listed if claim.threshold is not None}
    assert limits == {f"speed-up-relu-naive-relu-{depth}": (None, 3.0) for depth in (5, 10)}
    assert not any("{" in claim.statement for claim in listed)
    own = pd.DataFrame(rows).assign(arm=lambda t: "my-" + t["arm"])
    assert claims(own) == []


def test_claims_compare_the_right_arm_with_the_right_arm():
    told = found(
        {
            "relu-5-he-sgd-plain": steps((400, 200, 100)),
            "relu-5-he-sgd-bn": steps((200, 100, 50)),
            "relu-5-plain": steps((150, 150, 150), (600, 600, 600), [0.88, 0.88, 0.88]),
            "relu-5-bn": steps((100, 100, 100), (300, 300, 300), [0.87, 0.88, 0.89]),
            "relu-5-dd": steps((120, 120, 120)),
            "relu-5-plain-again": steps((75, 75, 75)),
            "relu-5-bn-again": steps((50, 50, 50)),
            "tanh-5-xavier-sgd-plain": steps((300, 300, 300)),
            "tanh-5-xavier-sgd-bn": steps((300, 300, 300)),
        }
    )
    values = {"naive-relu-5": 2, "tuned-relu-5": 1.5, "tuned-85-relu-5": 2, "dd-relu-5": 1.2, "naive-tanh-5": 1}
    values |= {"again-relu-5-plain": 2, "again-relu-5-bn": 2, "end-relu-5": 0}
    assert {name: claim.measured.value for name, claim in told.items()} == pytest.approx(values, abs=1e-9)


@pytest.mark.parametrize(("plain", "verdict"), [(290, "agrees"), (310, "disagrees")])
def test_the_naive_ratio_of_relu_has_an_upper_limit(plain, verdict):
    arms = {"relu-10-he-sgd-plain": steps([plain] * 3), "relu-10-he-sgd-bn": steps([100] * 3)}
    assert found(arms)["naive-relu-10"].verdict == verdict
    censored = arms["relu-10-he-sgd-plain"] | {"reached_80%": [True, True, False]}
    told = found(arms | {"relu-10-he-sgd-plain": censored})["naive-relu-10"]
    assert told.measured.bound == "≥"
    assert told.verdict != "agrees"
