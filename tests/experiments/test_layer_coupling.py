"""The coupling of layers: blocks of the Hessian where they are asked for, and claims that can fail."""

import dataclasses

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from bnlib.data import load
from bnlib.experiments import layer_coupling, runner
from bnlib.experiments.core import ANALOGUE, Plan, Refused, grid
from bnlib.experiments.layer_coupling import NORMS, blocks, claims, summarize
from bnlib.experiments.scale_invariance import shrink
from bnlib.nets import inits, models
from bnlib.nets.norms import BatchNorm
from bnlib.nets.training import seeded

FULL = layer_coupling.PRESETS["full"]


def short(steps=25, **changes):
    arms = {name: Plan("mnist5k", steps, grid(norm=name, lr=[0.1, 0.3]), probed=True) for name in NORMS}
    return dataclasses.replace(FULL, arms=arms, options={"hessian": 12}, **changes)


def cell(arm="bn", seed=11, config=None, **setting):
    return runner.one_cell("layer-coupling", config or short(), arm, seed, {"norm": arm, "lr": 0.3} | setting)["rows"]


@pytest.fixture(scope="module", autouse=True)
def small():
    """Three hidden units instead of sixteen: a Hessian takes one backward pass for each weight."""
    true = models.MLP
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "MLP", lambda sizes, norm: true([3 if s == 16 else s for s in sizes], norm))
        yield


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BNLIB_CELLS", str(tmp_path_factory.mktemp("cells")))
        patch.setitem(layer_coupling.PRESETS, "full", short(55, seeds=(11, 12), tuning_seeds=(1,)))
        yield runner.run("layer-coupling", "full", progress=False)


def net(norm=BatchNorm):
    with seeded(3):
        made = models.MLP([49, 3, 3, 3, 10], norm).double()
        inits.he(made)
    return made


def images(n=12):
    digits = load("mnist5k")
    return torch.from_numpy(shrink(digits.x_train[:n])), torch.tensor(digits.y_train[:n]).long()


@pytest.mark.parametrize("norm", [None, BatchNorm])
def test_the_coupling_is_that_of_the_whole_hessian(norm):
    model, (x, labels) = net(norm), images()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = blocks(model, x, labels)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    weights = {f"{i}": layer.weight for i, layer in enumerate(inits.layers(model))}
    places = {name: [k for k, p in model.named_parameters() if p is w][0] for name, w in weights.items()}
    scales = [float(w.detach().norm()) for w in weights.values()]

    def loss(*values, scale=(1, 1, 1, 1)):
        given = {places[n]: v * s for (n, v), s in zip(zip(weights, values, strict=True), scale, strict=True)}
        return torch.nn.functional.cross_entropy(torch.func.functional_call(model.train(), given, x), labels)

    for key, factors in (("coupling", (1, 1, 1, 1)), ("relative", scales)):
        at = tuple(w.detach() / s for w, s in zip(weights.values(), factors, strict=True))
        whole = torch.autograd.functional.hessian(lambda *v, f=factors: loss(*v, scale=f), at)
        size = np.array([[float(block.norm()) for block in row] for row in whole]) ** 2
        off, own = size.sum() - np.trace(size), np.trace(size)
        assert found[key] == pytest.approx(np.sqrt(off / own), rel=1e-6)
        if key == "coupling":
            rows = np.sqrt((size.sum(1) - np.diag(size)) / np.diag(size))
            assert found["per_layer"] == pytest.approx(rows, rel=1e-6)


def test_the_hessian_is_taken_in_confirming_cells_only():
    rows = cell()
    assert [row["taken"] for row in rows if "taken" in row] == [0, 25]
    assert [row["step"] for row in rows if "taken" in row] == [1, 25]
    assert not any("taken" in row for row in cell(seed=1))
    assert [row["loss"] for row in cell(seed=11)] == [row["loss"] for row in rows]
    told = summarize(rows)
    assert told["score"] == -rows[-1]["val_loss"]
    assert "coupling_early" in told  # of so short a run the last one


def test_the_first_row_is_of_the_untrained_net():
    with seeded(11):
        model = models.MLP([49, 16, 16, 16, 10], BatchNorm).double()
        inits.he(model)
    x, labels = images()
    assert cell()[0]["coupling"] == pytest.approx(blocks(model, x, labels)["coupling"], rel=1e-9)


def test_a_run_that_diverges_ends_with_a_number():
    rows = cell("none", lr=1e6)
    assert np.isfinite(rows[-1]["val_loss"])


def test_a_norm_that_is_none_is_refused():
    with pytest.raises(Refused, match="no norm 'batch'"):
        cell(norm="batch")


def test_claims_can_fail(live):
    found = {claim.id: claim for claim in claims(live.results())}
    assert len(found) == 10
    assert {claim.fidelity for claim in found.values()} == {ANALOGUE}
    cells = live.results().copy()
    for late, verdict in ((0.5, "agrees"), (1.2, "disagrees")):
        cells.loc[cells["arm"] == "none", "coupling_late"] = 1.0
        cells.loc[cells["arm"] == "bn", "coupling_late"] = late
        changed = {claim.id: claim.verdict for claim in claims(cells)}
        assert changed["layer-coupling-coupling-late"] == verdict
        assert set(changed.values()) == {verdict, "report only"}


def test_a_record_gives_the_same_claims(live, kept):
    kept(live, rel=1e-2)


def test_draw_shows_both_arms(live):
    axes = Figure().subplots()
    layer_coupling.draw(live.rows, axes)
    assert [line.get_label() for line in axes.lines] == ["without BN", "with BN"]
    assert list(axes.lines[0].get_xdata()) == [0, 50, 55]
