"""The training loop against a bare one, to the last bit; schedule, clipping, seeds, evaluations, divergence."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from bnlib.nets import models
from bnlib.nets.norms import BatchNorm
from bnlib.nets.training import Schedule, accuracy, adam, fit, seeded, sgd

BATCH = 16


@pytest.fixture(scope="module")
def data():
    with seeded(0):
        x = torch.randn(70, 1, 4, 4)
        labels = torch.randint(3, (70,))
        labels[:3] = torch.arange(3)
    return x, labels


def net(norm=BatchNorm, dropout=0.0):
    with seeded(1):
        model = models.MLP([16, 12, 3], norm)
    model.insert(len(model) - 1, nn.Dropout(dropout))
    return model


def train(data, model=None, **options):
    model = net() if model is None else model
    settings = {"lr": 0.1, "steps": 9, "validation": data, "batch": BATCH, "every": 3, "progress": False} | options
    return fit(model, *data, **settings), model


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def bare_loop(data, steps, lr, seed, clip=None, momentum=0.9, factor=lambda step: 1.0):
    """As one writes it without the module."""
    (x, labels), model, losses = data, net(), []
    order, start = np.random.default_rng(seed), 70
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum, fused=True)
    for step in range(1, steps + 1):
        if start + BATCH > len(x):
            permuted, start = order.permutation(len(x)), 0
        chosen = permuted[start : start + BATCH]
        start += BATCH
        for group in optimizer.param_groups:
            group["lr"] = lr * factor(step)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[chosen]), labels[chosen])
        loss.backward()
        if clip is not None:
            norm = torch.sqrt(sum(p.grad.square().sum() for p in model.parameters()))
            for p in model.parameters():
                p.grad *= min(1.0, clip / (float(norm) + 1e-6))
        optimizer.step()
        losses.append(loss.item())
    return losses, model


# --- the loop


def test_it_is_a_bare_loop_to_the_last_bit(data):
    """Nine steps in batches of 16 of 70: two epochs and a bit, the ragged batch left out."""
    rows, model = train(data, every=1, seed=5)
    losses, wanted = bare_loop(data, 9, 0.1, 5)
    assert [row["loss"] for row in rows] == losses
    assert same(model, wanted)
    assert losses[-1] < losses[0]
    assert bare_loop(data, 9, 0.1, 6)[0] != losses


def test_schedule_and_clipping_agree_with_a_bare_loop(data):
    schedule = Schedule(9, halvings=2, warmup=4)
    rows, model = train(data, every=1, seed=5, lr=0.5, schedule=schedule, clip=0.3)
    losses, wanted = bare_loop(data, 9, 0.5, 5, clip=0.3, factor=schedule)
    assert [row["loss"] for row in rows] == pytest.approx(losses, rel=1e-5)
    for a, b in zip(model.state_dict().values(), wanted.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert losses != bare_loop(data, 9, 0.5, 5, factor=schedule)[0]
    assert losses != bare_loop(data, 9, 0.5, 5, clip=0.3)[0]


def test_a_limit_that_is_never_reached_changes_nothing(data):
    plain, clipped = train(data), train(data, clip=1e6)
    assert plain[0] == clipped[0]
    assert same(plain[1], clipped[1])


def test_the_norm_of_all_gradients_together_is_clipped(data):
    norms = []

    def probe(model, step):
        norms.append(float(torch.cat([p.grad.flatten() for p in model.parameters()]).norm()))
        return {}

    train(data, every=1, clip=0.01, probe=probe)
    assert norms == pytest.approx([0.01] * 9, rel=1e-3)


@pytest.mark.parametrize(("make", "kind"), [(sgd, torch.optim.SGD), (adam, torch.optim.Adam)])
def test_optimizers(make, kind, data):
    update = make(net(), 0.3, weight_decay=0.01)
    assert type(update) is kind
    (group,) = update.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.01)
    assert group.get("momentum", 0.9) == 0.9
    assert sum(map(torch.numel, group["params"])) == sum(p.numel() for p in net().parameters())
    assert sgd(net(), 0.3, momentum=0.0).param_groups[0]["momentum"] == 0.0
    assert train(data, optimizer=make)[0] != train(data, optimizer=lambda m, lr: make(m, lr / 2))[0]


# --- the schedule


def test_halvings_divide_the_run_into_even_parts():
    factors = [Schedule(12, halvings=2)(step) for step in range(1, 15)]
    assert factors == [1.0] * 4 + [0.5] * 4 + [0.25] * 4 + [0.25] * 2  # no further halving after the end
    assert [Schedule(10, halvings=2)(step) for step in range(1, 11)] == [1.0] * 4 + [0.5] * 3 + [0.25] * 3
    assert [Schedule(5)(step) for step in (1, 5, 50)] == [1.0] * 3


def test_warm_up_is_linear_and_meets_the_halvings():
    assert [Schedule(100, warmup=4)(step) for step in range(1, 6)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert [Schedule(8, halvings=1, warmup=8)(step) for step in (1, 4, 5, 8)] == [1 / 8, 1 / 2, 5 / 16, 1 / 2]
    assert Schedule(1_000, halvings=5)(1_000) == 1 / 32


def test_the_rate_of_each_step_is_the_schedules(data):
    seen = []
    model = net()

    def watched(model, lr):
        update = sgd(model, lr)
        step = update.step
        update.step = lambda: (seen.append(update.param_groups[0]["lr"]), step())
        return update

    train(data, model, lr=0.2, optimizer=watched, schedule=Schedule(9, halvings=2, warmup=2))
    assert seen == pytest.approx([0.1, 0.2, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05])


# --- mini-batches and seeds


def batches(data, model=None, **options):
    """Inputs of each step, as a list of arrays."""
    seen = []

    def change(inputs):
        seen.append(inputs.flatten(1).numpy().copy())
        return inputs

    train(data, model, steps=8, change=change, **options)
    return seen


def test_batches_are_new_in_every_epoch_unless_they_are_kept(data):
    fresh, kept = batches(data), batches(data, shuffle=False)
    for first, second in zip(kept[:4], kept[4:], strict=True):
        np.testing.assert_array_equal(first, second)
    assert not any(np.array_equal(a, b) for a, b in zip(fresh[:4], fresh[4:], strict=True))
    for first, second in zip(fresh[:4], kept[:4], strict=True):  # the first epoch is the same
        np.testing.assert_array_equal(first, second)
    for epoch in (fresh[:4], fresh[4:]):
        samples = np.concatenate(epoch)
        assert samples.shape == (64, 16)
        assert len(np.unique(samples, axis=0)) == 64  # none twice


def test_the_order_depends_on_the_seed_alone(data):
    np.testing.assert_array_equal(batches(data, seed=3), batches(data, net(None), seed=3))
    assert not np.array_equal(batches(data, seed=3), batches(data, seed=4))


def test_dropout_and_changes_come_from_the_seed_and_leave_the_generator_alone(data):
    def noisy(x):
        return x + 0.1 * torch.randn_like(x)

    runs = []
    for outside in (11, 12):
        torch.manual_seed(outside)
        before = torch.random.get_rng_state()
        runs.append(train(data, net(dropout=0.5), seed=5, change=noisy))
        assert torch.equal(torch.random.get_rng_state(), before)
    assert runs[0][0] == runs[1][0]
    assert same(runs[0][1], runs[1][1])
    assert train(data, net(dropout=0.5), seed=6, change=noisy)[0] != runs[0][0]
    assert train(data, net(dropout=0.5), seed=5)[0] != runs[0][0]


def test_seeded_restores_the_generator_after_an_error():
    before = torch.random.get_rng_state()
    with pytest.raises(RuntimeError), seeded(3):
        torch.rand(1) @ torch.rand(2)
    assert torch.equal(torch.random.get_rng_state(), before)
    with seeded(3):
        one = torch.rand(2)
    with seeded(3):
        assert torch.equal(torch.rand(2), one)


# --- when it is evaluated


@pytest.mark.parametrize(
    ("every", "steps"),
    [(3, [3, 6, 9]), (4, [4, 8, 9]), ([1, 5], [1, 5, 9]), ((), [9]), (20, [9])],
)
def test_evaluations(every, steps, data):
    rows, _ = train(data, every=every)
    assert [row["step"] for row in rows] == steps
    assert all(set(row) == {"step", "loss", "accuracy"} for row in rows)


def test_every_may_look_at_what_was_measured(data):
    def every(step, history):
        return step == 2 or (bool(history) and step == history[-1]["step"] + 3)

    assert [row["step"] for row in train(data, every=every)[0]] == [2, 5, 8, 9]


def test_looking_changes_nothing(data):
    often, seldom = train(data, net(dropout=0.5), every=1), train(data, net(dropout=0.5), every=9)
    assert often[0][-1] == seldom[0][-1]
    assert same(often[1], seldom[1])


def test_until_ends_the_run_and_probe_adds_to_the_row(data):
    rows, model = train(
        data, every=1, until=lambda history: len(history) == 4, probe=lambda m, step: {"twice": 2 * step}
    )
    assert [row["twice"] for row in rows] == [2, 4, 6, 8]
    assert same(model, train(data, steps=4, every=1)[1])


def test_accuracy_is_taken_in_evaluation_mode_on_all_samples(data):
    x, labels = data
    rows, model = train(data)
    assert rows[-1]["accuracy"] == accuracy(model, x, labels)
    assert not model.training
    assert accuracy(model, x, labels) == pytest.approx(float((model(x).argmax(1) == labels).double().mean()))
    before = copy.deepcopy(model)
    many = x.repeat(9, 1, 1, 1), labels.repeat(9)  # more than one piece
    assert accuracy(model.train(), *many) == pytest.approx(rows[-1]["accuracy"])
    assert same(model, before)


def test_the_net_trains_in_training_mode_after_an_evaluation(data):
    _, model = train(data, net(), every=1)
    assert model[1].norm.running_mean.abs().max() > 0
    modes = []
    model = net()
    model[1].register_forward_hook(lambda m, i, o: modes.append(m.training))
    train(data, model, every=3)
    assert modes == [True, True, True, False] * 3


# --- what goes wrong


def test_a_run_that_diverges_ends_as_a_result(data):
    rows, _ = train(data, net(None), lr=1e30, every=1, steps=50)
    last = rows[-1]
    assert last["step"] < 50
    assert np.isnan(last["loss"])
    assert last["accuracy"] == pytest.approx(1 / 3)
    assert np.isfinite([row["loss"] for row in rows[:-1]]).all()


@pytest.mark.parametrize(("count", "batch"), [(69, 16), (70, 71)])
def test_data_that_does_not_fit(count, batch, data):
    x, labels = data
    with pytest.raises(ValueError, match=rf"x \(70, 1, 4, 4\) and labels \({count},\) .* at least batch = {batch}"):
        fit(net(), x, labels[:count], lr=0.1, steps=1, validation=data, batch=batch, progress=False)


def test_the_progress_line_shows_on_demand(data, capsys, monkeypatch):
    monkeypatch.setenv("BNLIB_BUILD", "1")
    train(data, progress=None)
    assert capsys.readouterr().err == ""
    train(data, progress=True)
    assert "lr 0.1" in capsys.readouterr().err
