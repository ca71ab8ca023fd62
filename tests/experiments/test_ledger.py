"""The ledger: its entries, the way the book prints them, and that a stale record is told with its reason."""

import dataclasses
import json

import numpy as np
import pytest

from bnlib.experiments import core, ledger, record, sigmoid_mlp
from bnlib.experiments.core import SAME, Claim, Measured
from bnlib.scratch import inits

from .conftest import varied

KEYS = {
    *("id", "experiment", "paper", "place", "statement", "paper_value", "ours", "spread", "seeds", "threshold"),
    *("fidelity", "verdict", "dataset", "seconds", "command", "unit", "bound"),
}
WORDS = {"reproduced", "partly", "not reproduced", "agrees", "mixed", "disagrees", "report only"}
NAN = float("nan")


@pytest.fixture
def recorded(live, monkeypatch):
    monkeypatch.setitem(sigmoid_mlp.PRESETS, "full", varied())
    return record.save(live)


def entry(ours, low, high, unit="x", bound="", threshold=2.0):
    return {
        **{"id": "toy", "statement": "It is", "seeds": [1, 2], "verdict": "agrees"},
        **{"fidelity": "analogue", "dataset": "mnist5k", "threshold": threshold},
        **{"ours": ours, "spread": [low, high], "unit": unit, "bound": bound},
    }


# --- entries


def test_an_entry_has_the_promised_keys_and_is_json(live, recorded):
    for found in (ledger.entries(live), ledger.claims()):
        assert len(found) > 8
        assert all(set(one) == KEYS for one in found)
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        assert len({one["id"] for one in found}) == len(found)


def test_an_entry_says_what_was_run_and_found(recorded):
    for one in ledger.claims():
        assert one["id"].startswith("sigmoid-mlp-")
        assert one["experiment"] == "sigmoid-mlp"
        assert one["paper"] in core.PAPERS
        assert one["fidelity"] == "analogue"  # on mnist5k no setting is the paper's
        assert one["verdict"] in WORDS
        assert (one["verdict"] == "report only") == (one["threshold"] is None)
        assert one["seeds"] in ([31, 32, 33], [41, 42, 43])
        assert one["dataset"] == "mnist5k"
        assert one["command"] == "python -m bnlib run sigmoid-mlp --scale full"
        assert one["bound"] in ("", "≥", "≤")
        assert one["ours"] is None or one["spread"][0] <= one["ours"] <= one["spread"][1]
        assert type(one["seconds"]) is int


def test_the_number_is_the_claims_to_five_digits(live):
    claims = core.module("sigmoid-mlp").claims(live.results())
    for claim, one in zip(claims, ledger.entries(live), strict=True):
        assert one["id"] == claim.id
        assert one["verdict"] == claim.verdict
        if one["ours"] is not None:
            assert one["ours"] == pytest.approx(claim.measured.value, rel=1e-4)
            assert one["spread"] == pytest.approx(claim.measured.spread, rel=1e-4)


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_a_number_that_json_does_not_know_is_none(live, monkeypatch, value):
    about = ("toy-none", "ioffe2015", "section 0", "It is", "none", Measured(value, (value, value)), "x", 2.0)
    monkeypatch.setattr(sigmoid_mlp, "claims", lambda cells: [Claim(*about, SAME, "mnist", (1,))])
    (one,) = ledger.entries(live)
    assert one["ours"] is None
    assert one["spread"] == [None, None]
    json.dumps(one, allow_nan=False)


@pytest.mark.parametrize(("threshold", "printed"), [(2.0, 2.0), ((None, 4.0), [None, 4.0]), (None, None)])
def test_a_threshold_in_an_entry_is_what_json_gives_back(live, monkeypatch, threshold, printed):
    about = ("toy-band", "ioffe2015", "section 0", "It is", "none", Measured(3.0, (2.0, 4.0)), "x", threshold)
    monkeypatch.setattr(sigmoid_mlp, "claims", lambda cells: [Claim(*about, SAME, "mnist", (1,))])
    (one,) = ledger.entries(live)
    assert one["threshold"] == printed
    assert json.loads(json.dumps(one, allow_nan=False)) == one
    assert ledger.threshold(one) == {2.0: "≥ 2.00x", None: "none"}.get(threshold, "≤ 4.00x")


def test_the_seconds_are_those_of_the_whole_experiment(live, recorded):
    whole = round(live.cells["seconds"].sum())
    assert {one["seconds"] for one in [*ledger.entries(live), *ledger.claims()]} == {whole}


def test_a_live_run_names_its_own_scale(live):
    lite = dataclasses.replace(live, scale="lite")
    assert {one["command"] for one in ledger.entries(lite)} == {"python -m bnlib run sigmoid-mlp --scale lite"}


def test_only_recorded_experiments_are_in_the_ledger(live):
    assert ledger.recorded() == ()
    assert ledger.claims() == []
    record.save(live)
    (record.RESULTS / "notes.json").write_text("{}")
    assert ledger.recorded() == ("sigmoid-mlp",)
    assert ledger.claims() == ledger.entries(record.load("sigmoid-mlp"))


# --- as the book prints them


@pytest.mark.parametrize(
    ("one", "ours", "spread", "threshold"),
    [
        (entry(4.912, 2.8049, 11.3), "4.91x", "2.80 to 11x", "≥ 2.00x"),
        (entry(15.4, 9.949, 9.951, bound="≥"), "≥ 15x", "9.95 to 10x", "≥ 2.00x"),
        (entry(1.2677e20, 99_999, 4.8e15, bound="≥"), "≥ 1.3e+20x", "99999 to 4.8e+15x", "≥ 2.00x"),
        (entry(26.8, 14, 39, unit="", threshold=None), "26.80", "14.00 to 39.00", "none"),
        (entry(0.5, 0.25, 0.75, bound="≤"), "≤ 0.50x", "0.25 to 0.75x", "≥ 2.00x"),
        (entry(0.8, 0.1, 1.5, "points", threshold=0.0), "+0.80 points", "+0.10 to +1.50 points", "≥ 0.00 points"),
        (entry(-0.8, -12, 0, "points", threshold=1.0), "-0.80 points", "-12.00 to +0.00 points", "≥ 1.00 points"),
        (entry(None, None, None, threshold=None), "no number", "level not reached", "none"),
        (
            entry(21.8, 21, 23, "directions", threshold=16.0),
            "21.8 directions",
            "21 to 23 directions",
            "≥ 16 directions",
        ),
        (entry(1.01, 0.987, 1.018, threshold=[0.97, 1.03]), "1.01x", "0.99 to 1.02x", "0.97 to 1.03x"),
        (entry(1.01, 0.98, 1.02, threshold=[None, 12.0]), "1.01x", "0.98 to 1.02x", "≤ 12x"),
        (entry(1.01, 0.98, 1.02, threshold=[0.5, None]), "1.01x", "0.98 to 1.02x", "≥ 0.50x"),
        (
            entry(0, -1, 1, "points", threshold=[-0.5, 0.5]),
            "+0.00 points",
            "-1.00 to +1.00 points",
            "-0.50 to 0.50 points",
        ),
        (
            entry(1.234e-15, 2e-16, 3e-15, "error", threshold=[None, 1e-12]),
            "1.2e-15",
            "2.0e-16 to 3.0e-15",
            "≤ 1.0e-12",
        ),
    ],
)
def test_numbers_as_the_book_prints_them(one, ours, spread, threshold):
    found = ledger.ours(one), ledger.spread(one), ledger.threshold(one)
    assert found == (ours, spread, threshold)
    text = ledger.table([one])
    assert text.splitlines()[0] == "toy: It is"
    assert all(part in text.splitlines()[1] for part in (*found, "2 seeds", "agrees", "[analogue, mnist5k]"))


def test_a_table_has_two_lines_for_each_claim(live):
    found = ledger.entries(live)
    assert len(ledger.table(found).splitlines()) == 2 * len(found)
    assert ledger.table([]) == ""


# --- stale records


def test_a_fresh_record_is_not_stale(recorded):
    assert ledger.stale("sigmoid-mlp") == []


def test_a_changed_config_is_told(recorded, monkeypatch):
    changed = dataclasses.replace(varied(), seeds=(31, 32, 34))
    monkeypatch.setitem(sigmoid_mlp.PRESETS, "full", changed)
    line = f"the config's hash is {changed.hash()}, recorded was {varied().hash()}"
    assert ledger.stale("sigmoid-mlp") == [line]


def test_changed_code_is_told_for_the_arms_that_it_touches(recorded, monkeypatch):
    monkeypatch.setitem(sigmoid_mlp.INITS, "gaussian", lambda net, images, rng: inits.gaussian(net, 0.11, rng))
    found = ledger.stale("sigmoid-mlp")
    assert [line.split(",")[0] for line in found] == [
        f"arm {arm}" for arm in ("plain", "bn", "plain-again", "mnist-plain", "mnist-bn")
    ]
    assert all("the first losses are" in line for line in found)


def test_the_first_losses_are_compared_to_a_ten_thousandth(recorded):
    content = json.loads(recorded.read_text())
    then = content["first"]["plain"]
    content["first"] = {"plain": then}
    loss = then["losses"][19]
    for factor, lines in ((1 + 5e-5, 0), (1 + 2e-4, 1)):
        then["losses"][19] = loss * factor
        recorded.write_text(json.dumps(content))
        found = ledger.stale("sigmoid-mlp")
        assert len(found) == lines
        assert all(line.startswith("arm plain, seed 31: the first losses are [") for line in found)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([2.0, 2.0, 2.0, 2.0], 0.0),
        ([9.0, 2.0, 2.0, 2.0], 0.0),  # the first loss is compared by itself
        ([2.0, 2.0 * np.e, 2.0, 2.0 * np.e], 2 / 3),
        ([2.0, 2.0 * np.e, 2.0, 2.0 / np.e], 0.0),  # one larger, one smaller
        ([2.0, 2.0 / np.e], 1.0),  # ends sooner
        ([2.0], 0.0),
        ([2.0, 2.0, 2.0, np.nan], np.inf),  # one of the two diverges
    ],
)
def test_the_size_of_losses_is_their_mean_log_ratio(others, expected):
    assert ledger.size(np.full(4, 2.0), np.array(others)) == pytest.approx(expected, abs=1e-12)


def test_two_runs_that_diverge_together_have_one_size():
    losses = np.array([2.0, 3.0, np.nan])
    assert ledger.size(losses, losses) == 0


def otherwise(file, step, factor, libraries):
    """Change one loss of the recorded arm bn, and the libraries that the file names."""
    content = json.loads(file.read_text())
    content["first"] = {"bn": content["first"]["bn"]}
    content["first"]["bn"]["losses"][step] *= factor
    if libraries:
        content["environment"]["libraries"] = libraries
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("step", "factor", "libraries", "told"),
    [
        (9, 1.01, None, True),  # the same libraries and kernels round alike
        (9, 1.01, ["openblas 0.3.30 Sandybridge"], False),
        (0, 1.01, ["openblas 0.3.30 Sandybridge"], True),  # before any step nothing has grown
        (9, 10.0, ["openblas 0.3.30 Sandybridge"], True),  # ln(10) / 19 is more than a tenth
        (9, float("nan"), ["openblas 0.3.30 Sandybridge"], True),
    ],
)
def test_losses_rounded_otherwise_need_the_first_loss_and_the_size(recorded, step, factor, libraries, told):
    otherwise(recorded, step, factor, libraries)
    assert len(ledger.stale("sigmoid-mlp")) == told


@pytest.mark.parametrize("nudged", [0.03, 0.05])
def test_a_larger_difference_counts_as_rounding_where_a_nudge_of_the_rate_makes_one(recorded, monkeypatch, nudged):
    otherwise(recorded, 9, 10.0, ["openblas 0.3.30 Sandybridge"])  # a size of .121
    measured, asked = ledger.size, []

    def size(losses, others):
        asked.append((losses, others))
        return measured(losses, others) if len(asked) == 1 else nudged

    monkeypatch.setattr(ledger, "size", size)
    assert len(ledger.stale("sigmoid-mlp")) == (nudged < 0.04)
    losses, others = asked[1]
    np.testing.assert_allclose(others, losses, rtol=1e-3)
    assert (others[1:] != losses[1:]).all()


def test_a_missing_loss_is_told(recorded):
    content = json.loads(recorded.read_text())
    content["first"]["mnist-bn"]["losses"].pop()
    recorded.write_text(json.dumps(content))
    (line,) = ledger.stale("sigmoid-mlp")
    assert line.startswith("arm mnist-bn, seed 31")


def test_asking_computes_no_kept_cell_and_writes_nothing(recorded, tmp_path):
    before = recorded.read_bytes()
    ledger.stale("sigmoid-mlp")
    assert recorded.read_bytes() == before
    assert not (tmp_path / "cells").exists()
    assert [file.name for file in record.RESULTS.iterdir()] == ["sigmoid-mlp.json"]
