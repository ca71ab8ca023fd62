"""Names, configs and claims: what decides an experiment's numbers, and the verdict on them."""

import dataclasses
import hashlib
import inspect
import json
import pkgutil

import pandas as pd
import pytest

from bnlib import data, experiments
from bnlib.experiments import core
from bnlib.experiments.core import Claim, Config, Measured, Plan, grid

from ..conftest import ROOT

NAN = float("nan")


def config(**changes):
    plans = {
        "a": Plan("mnist5k", 10, grid(lr=[0.1, 1.0])),
        "b": Plan("mnist5k", 10, like="a", seeds=(21, 22)),
    }
    return dataclasses.replace(Config(plans, seeds=(11, 12), tuning_seeds=(1, 2), options={"batch": 60}), **changes)


def claim(**changes):
    fields = {
        "id": "toy-more",
        "paper": "ioffe2015",
        "place": "section 0",
        "statement": "More by",
        "paper_value": "none",
        "measured": Measured(3.0, (2.0, 4.0)),
        "unit": "x",
        "threshold": 2.0,
        "fidelity": core.SAME,
        "dataset": "mnist",
        "seeds": (11, 12),
    }
    return Claim(**(fields | changes))


def test_grid_gives_every_combination_once_in_order():
    assert grid(norm="bn", lr=(0.1, 1.0), width=[2, 3]) == (
        {"norm": "bn", "lr": 0.1, "width": 2},
        {"norm": "bn", "lr": 0.1, "width": 3},
        {"norm": "bn", "lr": 1.0, "width": 2},
        {"norm": "bn", "lr": 1.0, "width": 3},
    )
    assert grid() == ({},)


def test_no_seed_both_tunes_and_confirms():
    with pytest.raises(ValueError, match=r"seeds \[2\] would tune and confirm"):
        config(seeds=(2, 11))
    with pytest.raises(ValueError, match=r"seeds \[22\] would tune and confirm"):
        config(tuning_seeds=(1, 22))


def test_an_arm_confirms_with_its_own_seeds_or_the_experiments():
    assert config().confirming("a") == (11, 12)
    assert config().confirming("b") == (21, 22)


def test_the_hash_is_of_everything_in_the_config():
    plans = config().arms
    changed = [
        {"seeds": (11, 13)},
        {"tuning_seeds": (1, 3)},
        {"arrays": {"p50": 3}},
        {"options": {"batch": 61}},
        {"race": {"least": 100, "hopeless": 1.8}},
        {"race": {"least": 0, "hopeless": 1.8}},
        {"arms": plans | {"b": dataclasses.replace(plans["b"], seeds=(21, 23))}},
        {"arms": plans | {"a": dataclasses.replace(plans["a"], settings=grid(lr=[0.1, 1.1]))}},
        *({"arms": plans | {"a": dataclasses.replace(plans["a"], **{key: True})}} for key in ("curves", "alone")),
        *(
            {"arms": plans | {"b": dataclasses.replace(plans["b"], **{key: {"lr": 5}})}}
            for key in ("change", "times")
        ),
    ]
    assert len({config().hash(), *(config(**change).hash() for change in changed)}) == 1 + len(changed)
    content = dataclasses.asdict(config())
    assert content.pop("race") is None
    for plan in content["arms"].values():
        assert (plan.pop("change"), plan.pop("times")) == ({}, {})  # count only where they are used
    assert config().hash() == hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    assert config(arms=dict(reversed(plans.items()))).hash() == config().hash()


@pytest.mark.parametrize("name", core.names())
def test_every_experiment_holds_what_the_runner_needs(name):
    module = core.module(name)
    parameters = list(inspect.signature(module.run).parameters.values())
    assert [p.name for p in parameters[:3]] == ["config", "arm", "seed"]
    allowed = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    assert all(callable(getattr(module, function)) for function in ("summarize", "draw", "claims"))
    assert "lite" in module.PRESETS
    for preset in module.PRESETS.values():
        assert preset.tuning_seeds
        for arm, plan in preset.arms.items():
            assert arm in module.ARMS
            assert plan.dataset in (*data.NAMES, "generated")
            assert (plan.like is None) == bool(plan.settings)
            assert set(plan.others) <= set(preset.arms)
            assert all(set(setting) <= set(allowed) for setting in plan.settings)


def test_names_are_those_of_the_modules_that_are_not_shared():
    modules = {info.name for info in pkgutil.iter_modules(experiments.__path__)}
    assert {name.replace("-", "_") for name in core.names()} == modules - set(core.SHARED)
    assert set(core.SHARED) < modules
    assert "sigmoid-mlp" in core.names()


def test_papers_are_keys_of_the_bibliography():
    entries = (ROOT / "book" / "references.bib").read_text()
    assert all(f"{{{key}," in entries for key in core.PAPERS)


@pytest.mark.parametrize(
    ("call", "kind", "hint"),
    [
        (lambda: core.module("sigmoid_mlp"), "experiment 'sigmoid_mlp'", "did you mean sigmoid-mlp?"),
        (lambda: core.module("runner"), "experiment 'runner'", ""),
        (lambda: core.preset("sigmoid-mlp", "ful"), "scale of sigmoid-mlp 'ful'", "did you mean full?"),
        (lambda: core.preset("sigmoid-mlp", None), "scale of sigmoid-mlp None", ""),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(call, kind, hint):
    with pytest.raises(core.Refused) as refused:
        call()
    message = str(refused.value)
    assert message.startswith(f"there is no {kind}: choose from ")
    assert message.endswith(hint)
    assert ("did you mean" in message) == bool(hint)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("value", "spread", "threshold", "verdicts"),
    [
        (3.0, (2.5, 4.0), 2.0, ("reproduced", "agrees")),
        (2.0, (1.0, 3.0), 2.0, ("reproduced", "agrees")),
        (1.9, (1.0, 2.0), 2.0, ("partly", "mixed")),
        (1.9, (1.0, 1.99), 2.0, ("not reproduced", "disagrees")),
        (NAN, (NAN, NAN), 2.0, ("not reproduced", "disagrees")),
        (-0.1, (-0.2, 0.1), 0.0, ("partly", "mixed")),
        (3.0, (2.5, 4.0), None, ("report only", "report only")),
        # at most
        (0.1, (0.1, 9.0), (None, 1.0), ("reproduced", "agrees")),
        (1.0, (0.5, 2.0), (None, 1.0), ("reproduced", "agrees")),
        (1.1, (1.0, 2.0), (None, 1.0), ("partly", "mixed")),
        (1.1, (1.01, 2.0), (None, 1.0), ("not reproduced", "disagrees")),
        (-7.0, (-8.0, -6.0), (None, 1.0), ("reproduced", "agrees")),
        # within
        (1.0, (0.5, 1.5), (0.97, 1.03), ("reproduced", "agrees")),
        (0.97, (0.9, 0.99), (0.97, 1.03), ("reproduced", "agrees")),
        (1.03, (1.0, 1.1), (0.97, 1.03), ("reproduced", "agrees")),
        (0.96, (0.95, 0.97), (0.97, 1.03), ("partly", "mixed")),
        (1.04, (1.03, 1.1), (0.97, 1.03), ("partly", "mixed")),
        (0.96, (0.95, 0.96), (0.97, 1.03), ("not reproduced", "disagrees")),
        (1.04, (1.04, 1.1), (0.97, 1.03), ("not reproduced", "disagrees")),
        (NAN, (NAN, NAN), (None, 1.0), ("not reproduced", "disagrees")),
        # a pair with an open end is the number it holds
        (1.9, (1.0, 2.0), (2.0, None), ("partly", "mixed")),
        (2.0, (1.0, 3.0), (2.0, None), ("reproduced", "agrees")),
    ],
)
def test_the_verdict_follows_from_number_interval_and_threshold(value, spread, threshold, verdicts):
    measured = Measured(value, spread)
    given = (claim(measured=measured, threshold=threshold, fidelity=f).verdict for f in (core.SAME, core.ANALOGUE))
    assert tuple(given) == verdicts


@pytest.mark.parametrize(
    ("bound", "value", "verdict"),
    [("≥", 2.5, "reproduced"), ("≥", 1.5, "not reproduced"), ("≤", 2.5, "partly"), ("≤", 1.5, "not reproduced")],
)
def test_at_most_a_number_above_the_threshold_is_not_enough(bound, value, verdict):
    assert claim(measured=Measured(value, (1.0, 1.9), bound)).verdict == verdict


@pytest.mark.parametrize(
    ("bound", "value", "threshold", "verdict"),
    [
        ("≥", 0.5, (None, 1.0), "partly"),
        ("≤", 0.5, (None, 1.0), "reproduced"),
        ("≥", 1.5, (1.0, 2.0), "partly"),
        ("≤", 1.5, (1.0, 2.0), "partly"),
        ("≥", 1.5, (1.0, None), "reproduced"),
        ("", 1.5, (1.0, 2.0), "reproduced"),
    ],
)
def test_a_bound_that_may_lie_beyond_a_limit_is_not_enough(bound, value, threshold, verdict):
    assert claim(measured=Measured(value, (1.0, 1.9), bound), threshold=threshold).verdict == verdict


@pytest.mark.parametrize("threshold", [(1.03, 0.97), (NAN, 1.0), NAN])
def test_a_threshold_that_nothing_meets_is_an_error(threshold):
    with pytest.raises(ValueError, match="claim toy-more: no number is from"):
        claim(threshold=threshold)


def test_a_statement_may_be_of_another_paper():
    cells = pd.DataFrame({"arm": "a", "seed": [11, 12], "dataset": "mnist5k", "steps": 10, "value": [1.0, 2.0]})
    table = [
        core.Statement(
            name, ("a",), lambda part: Measured(3.0, (2.0, 4.0)), "More by", threshold=(None, 5.0), **paper
        )
        for name, paper in (("own", {}), ("other", {"paper": "li2020"}))
    ]
    found = core.measure(table, cells, "toy", "ioffe2015")
    assert [(c.id, c.paper, c.verdict) for c in found] == [
        ("toy-own", "ioffe2015", "agrees"),
        ("toy-other", "li2020", "agrees"),
    ]


def test_a_claim_names_a_known_paper_and_fidelity():
    known = ", ".join(core.PAPERS)
    with pytest.raises(ValueError, match=f"claim toy-more: paper must be one of {known}, got 'ioffe'"):
        claim(paper="ioffe")
    with pytest.raises(ValueError, match="claim toy-more: fidelity must be one of same setting, analogue"):
        claim(fidelity="same")
