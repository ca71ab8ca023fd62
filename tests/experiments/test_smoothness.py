"""The loss along its gradient, norms in BN's place, sharpness: what is measured, and claims that can fail."""

import dataclasses

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from bnlib.experiments import record, runner
from bnlib.experiments import smoothness as experiment
from bnlib.experiments.core import Refused
from bnlib.experiments.smoothness import NORMS, Divided, build, claims, ray, sharpness
from bnlib.nets import inits, models
from bnlib.nets.images import images
from bnlib.nets.norms import BatchNorm
from bnlib.nets.training import seeded
from bnlib.theory.smoothness import along

FULL = experiment.PRESETS["full"]
SIZES = [784, 20, 20, 10]


def data(count=64):
    (x, labels), _, _ = images("mnist5k")
    return x[:count], labels[:count]


def config(steps=20):
    chosen = ("sgd-none", "sgd-dd", "sgd-bn", "sgd-l1", "adam-bn", "stuck", "sharp-bn-0.1", "sharp-none-0.1")
    plans = {}
    for arm in chosen:
        plan = FULL.arms[arm]
        plans[arm] = dataclasses.replace(plan, steps=steps, settings=plan.settings[2:4] or plan.settings)
    options = FULL.options | {"hidden": 2, "samples": 100}
    return dataclasses.replace(FULL, arms=plans, seeds=(11, 12), tuning_seeds=(1,), options=options)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BNLIB_CELLS", str(tmp_path_factory.mktemp("cells")))
        patch.setattr(record, "RESULTS", tmp_path_factory.mktemp("results"))
        patch.setitem(experiment.PRESETS, "full", config())
        yield runner.run("smoothness", "full", progress=False)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_a_norm_divides_by_its_size_before_centring(p):
    x = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1
    layer = Divided(4, p).double()
    size = (x.abs() ** p).mean(0) ** (1 / p)
    torch.testing.assert_close(layer(x), (x - x.mean(0)) / size, rtol=1e-4, atol=1e-4)
    assert torch.autograd.gradcheck(layer, x.requires_grad_())


def test_the_other_norms_are_what_they_say():
    x = torch.tensor([[1.0, -8], [2, 4], [6, 1]])
    torch.testing.assert_close(NORMS["linf"](2)(x), (x - x.mean(0)) / torch.tensor([6.0, 8]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(NORMS["centre"](2)(x), x - x.mean(0))
    torch.testing.assert_close(NORMS["scale"](2)(x), x / x.square().mean(0).sqrt(), rtol=1e-4, atol=1e-4)
    centred = x - x.mean(0)  # of centred values l2 is BN
    torch.testing.assert_close(NORMS["l2"](2)(centred), BatchNorm(2)(centred), rtol=1e-4, atol=1e-4)


def test_arms_start_from_the_same_weights():
    x, _ = data(600)
    nets = {kind: build(kind, 11, x, SIZES) for kind in NORMS}
    for kind, net in nets.items():
        pairs = zip(inits.layers(net), inits.layers(nets["none"]), strict=True)
        assert all(torch.equal(a.weight, b.weight) for a, b in pairs) == (kind != "dd")
    with pytest.raises(Refused, match="no arm 'l3'"):
        build("l3", 11, x, SIZES)


@pytest.mark.parametrize("kind", ["none", "bn"])
def test_the_ray_meets_the_points_that_it_says(kind):
    x, labels = data()
    net = build(kind, 3, x, SIZES)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    losses, gradients, steps = ray(net, x, labels, 0.1, (0.5, 2.0))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    np.testing.assert_allclose(steps, [0.05, 0.2])
    torch.nn.functional.cross_entropy(net(x), labels).backward()
    own = torch.cat([p.grad.flatten() for p in net.parameters()])
    np.testing.assert_allclose(gradients[0], own.numpy(), rtol=1e-5, atol=1e-7)
    with torch.no_grad():
        for p in net.parameters():
            p -= 0.2 * p.grad
    assert losses[1] == pytest.approx(float(torch.nn.functional.cross_entropy(net(x), labels).detach()), rel=1e-5)


def test_beta_of_bn_depends_on_the_length_of_the_weights():
    """beta(a w, a^2 lr) = beta(w, lr) / a^2 for eps = 0 and a last layer that is left alone: eq-sm-scale."""
    x, labels = data()

    def measured(a, eps):
        with seeded(5):
            net = models.MLP(SIZES, lambda channels: BatchNorm(channels, eps=eps)).double()
            inits.he(net)
        *hidden, last = inits.layers(net)
        kept = {id(p) for layer in hidden for p in layer.parameters()}
        with torch.no_grad():
            for layer in hidden:
                layer.weight *= a
        moving = [p for p in net.parameters() if id(p) in kept]
        start = [p.detach().clone() for p in moving]

        def at(step, way):
            with torch.no_grad():
                for p, s, d in zip(moving, start, way, strict=True):
                    p.copy_(s - step * d)
            loss = torch.nn.functional.cross_entropy(net(x.double()), labels)
            return float(loss.detach()), torch.autograd.grad(loss, moving)

        first = at(0.0, start)[1]
        steps = np.array([0.05, 0.1]) * a**2
        points = [at(step, first) for step in steps]
        flat = [np.concatenate([p.numpy().ravel() for p in g]) for g in (first, *(g for _, g in points))]
        return along([loss for loss, _ in points], flat, steps)

    one, three = measured(1.0, 0.0), measured(3.0, 0.0)
    assert three[0] == pytest.approx(one[0], rel=1e-8)
    assert three[2] == pytest.approx(one[2] / 9, rel=1e-8)
    broken = measured(1.0, 10.0), measured(3.0, 10.0)
    assert abs(9 * broken[1][2] / broken[0][2] - 1) > 0.05


def test_sharpness_is_the_largest_eigenvalue():
    x, labels = data(40)
    with seeded(2):
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 2, bias=False)).double()
    labels = labels % 2

    def loss(w):
        return torch.nn.functional.cross_entropy(x.double().flatten(1) @ w.T, labels)

    weight = net[1].weight.detach()
    hessian = torch.autograd.functional.hessian(loss, weight).reshape(1568, 1568)
    largest = float(torch.linalg.eigvalsh(hessian)[-1])
    assert sharpness(net, x.double(), labels, tries=60) == pytest.approx(largest, rel=1e-3)


def test_what_is_measured_is_measured_in_confirming_cells_only(live):
    rows = runner.one_cell("smoothness", live.config, "sgd-bn", 11, live.chosen["sgd-bn"]["setting"])["rows"]
    assert [row["step"] for row in rows if "beta" in row] == [1, 2, 4, 7, 10, 20]
    tuning = runner.one_cell("smoothness", live.config, "sgd-bn", 1, live.chosen["sgd-bn"]["setting"])["rows"]
    assert not any("beta" in row for row in tuning)
    cells = live.results().set_index("arm")
    assert cells.loc[["sgd-none", "sgd-dd", "sgd-bn", "stuck"], "beta_early"].notna().all()
    assert cells.loc["sgd-l1", "beta_early"].isna().all()
    assert cells.loc["sharp-bn-0.1", "sharp_most"].notna().all()


def test_a_run_that_diverges_counts_as_guessing():
    setting = {"kind": "none", "lr": 1e8}
    rows = runner.one_cell("smoothness", config(), "sgd-none", 1, setting)["rows"]
    assert np.isnan(rows[-1]["loss"])
    assert rows[-1]["end"] > 2


def test_claims_can_fail(live):
    cells = live.results().copy()
    cells["beta"], cells["range"], cells["change"] = 1.0, 1.0, 1.0
    cells.loc[cells["arm"] == "sgd-none", ["beta", "range", "change"]] = [3.0, 5.0, 5.0]
    cells.loc[cells["arm"] == "sgd-l1", "end"] = 1.2
    cells.loc[cells["arm"] == "sgd-bn", "end"] = 1.0
    found = {claim.id: claim.verdict for claim in claims(cells)}
    assert found["smoothness-beta-none-bn"] == "agrees"
    assert found["smoothness-change-none-bn"] == "agrees"
    assert found["smoothness-range-none-bn"] == "disagrees"
    assert found["smoothness-end-sgd-l1"] == "agrees"
    cells.loc[cells["arm"] == "sgd-l1", "end"] = 1.3
    assert {c.id: c.verdict for c in claims(cells)}["smoothness-end-sgd-l1"] == "disagrees"


def test_a_record_gives_the_same_claims(live, kept):
    kept(live, rel=1e-2)


def test_draw_shows_three_arms(live):
    axes = Figure().subplots()
    experiment.draw(live.rows, axes)
    assert sorted(line.get_label() for line in axes.lines) == ["BN", "no BN", "no BN, started from data"]
