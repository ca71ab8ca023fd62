"""``python -m bnlib bench``: how long the transform takes, staged, in closed form and fast, beside PyTorch's.

One process for each number of threads. Inside it all variants of a case take turns, so that whatever else the machine
does hits them alike. Processor time for one thread, wall clock beside it. A process of its own measures what the
runner adds to a cell (`bench_cells`): ``python -m bnlib bench cells`` does that alone.
"""

import datetime
import json
import os
import subprocess
import sys
import time

import numpy as np
from tqdm import tqdm

from . import bench_cells
from .experiments import cells, record
from .scratch import batchnorm, fast, network
from .scratch.layers import BatchNorm
from .scratch.optimizers import SGD

FILE = record.RESULTS / "bench.json"
SHAPES = [(4096, 1024), (256, 64, 28, 28), (32, 256, 14, 14)]
GROWING = [(n, 256) for n in (64, 256, 1024, 4096, 16384)] + [(1024, c) for c in (16, 64, 1024, 4096)]
MLP = [784, 100, 100, 100, 10]
BATCH = 60
STEPS = 20  # of the small Inception of `nets`
MAPS = (32, 64, 7, 7)  # what its normalizers see
TURN = 0.01  # seconds
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main(group=None):
    """Run all cases and write them to `FILE`; one row per case, variant and number of threads, as `table` prints.

    ``group`` runs one group of cases, "transform" or "cells", and leaves the rows of the other as they are.
    """
    if os.getloadavg()[0] > 1:
        print("note: the machine is busy, the times will be too long", file=sys.stderr)
    rows = [row for row in load() if (row["case"] == bench_cells.CASE) != (group == "cells")] if group else []
    orders = [("measure_cells", 1)] if group != "transform" else []
    if group != "cells":
        orders = [("measure", 1), ("measure", os.cpu_count()), *orders]
    for name, threads in orders:
        command = [sys.executable, "-c", f"from bnlib.bench import {name}; {name}()"]
        environment = os.environ | dict.fromkeys(THREADS, str(threads))
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
        rows += json.loads(done.stdout)
    rows.sort(key=lambda row: row["case"] == bench_cells.CASE)
    cells.put(FILE, json.dumps(rows, indent=1) + "\n")
    return rows


def load():
    """The recorded rows, a list of dict."""
    return json.loads(FILE.read_text(encoding="utf8"))


def table(rows):
    """The rows as lines of text."""
    lines = [f"{'case':28}{'variant':24}threads  CPU ms  wall ms  / floor  / torch"]
    for row in rows:
        ratios = "".join(
            "        -" if row[k] is None else f"{row[k]:9.2f}" for k in ("ratio_to_floor", "ratio_to_torch")
        )
        times = f"{row['cpu_ms_median']:8.2f} {row['wall_ms_median']:8.2f}"
        lines.append(f"{row['case']:28}{row['variant']:24}{row['threads']:7}{times}{ratios}")
    return "\n".join(lines)


def measure():
    """Measure all cases with the threads of this process and print the rows as JSON."""
    import torch

    threads = int(os.environ[THREADS[0]])
    torch.set_num_threads(threads)
    cases = {str(shape): lambda shape=shape: transform(shape, parts=threads == 1) for shape in SHAPES}
    if threads == 1:
        cases |= {str(shape): lambda shape=shape: transform(shape, slow=False) for shape in GROWING}
    norms = (("", False), (" with BN", True))
    cases |= {f"MLP step{name}": lambda norm=norm: mlp_step(norm) for name, norm in norms}
    if threads == 1:
        cases |= {f"Inception, {STEPS} steps{name}": lambda norm=norm: loop(norm) for name, norm in norms}
        cases |= {f"module {MAPS}": lambda: module(MAPS)}
    rows, about = [], _about()
    for name, make in tqdm(cases.items(), desc=f"{threads} threads", file=sys.stderr):
        for variant, numbers in take_turns(make(), threads).items():
            rows.append({"case": name, "variant": variant, "threads": threads, **numbers, "about": about})
    print(json.dumps(rows))


def measure_cells(count=bench_cells.COUNT, turns=bench_cells.TURNS):
    """Measure what the runner adds to a cell and print rows as JSON, in milliseconds a cell."""
    import torch  # noqa: F401  its version is recorded

    with bench_cells.variants(count) as variants:
        found = take_turns(variants, 1, seconds=0, turns=turns)
    rows = []
    for variant, numbers in found.items():
        times = {k: record.short((np.array(v) / count).tolist()) if v else v for k, v in numbers.items()}
        rows.append({"case": bench_cells.CASE, "variant": variant, "threads": 1, **times, "about": _about()})
    print(json.dumps(rows))


def _about():
    kept = record.environment()
    about = f"{kept['processor']}, {kept['cores']} cores; NumPy {kept['numpy']}, PyTorch {kept['torch']}"
    return f"{about}; {datetime.date.today().isoformat()}"


def take_turns(variants, threads, seconds=6.0, turns=9):
    """Time functions in turn, at least so many turns each. A turn of a short function is as many calls as take 10 ms.

    Parameters
    ----------
    variants : dict of callable
    threads : int
    seconds : float
        To spend on all of them.
    turns : int

    Returns
    -------
    dict of dict
        ``cpu_ms_median, cpu_ms_min, wall_ms_median``, ``spread`` (the quartiles of the processor time),
        ``ratio_to_floor`` and ``ratio_to_torch``: of processor times with one thread, of wall clock with more; None
        without a variant of that name.
    """
    taken, calls = {name: [] for name in variants}, {}
    for name, call in variants.items():
        call()  # the first call is slower
        began = time.perf_counter()
        call()
        calls[name] = max(1, int(TURN / (time.perf_counter() - began)))
    began = time.perf_counter()
    while len(taken[next(iter(taken))]) < turns or time.perf_counter() - began < seconds:
        for name, call in variants.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(calls[name]):
                call()
            spent = time.process_time() - cpu, time.perf_counter() - wall
            taken[name].append([clock / calls[name] for clock in spent])
    found = {}
    for name, times in taken.items():
        cpu, wall = 1000 * np.array(times).T
        found[name] = {
            "cpu_ms_median": float(np.median(cpu)),
            "cpu_ms_min": float(cpu.min()),
            "wall_ms_median": float(np.median(wall)),
            "spread": np.quantile(cpu, [0.25, 0.75]).tolist(),
        }
    clock = "cpu_ms_median" if threads == 1 else "wall_ms_median"
    for other in ("floor", "torch"):
        for numbers in found.values():
            numbers[f"ratio_to_{other}"] = numbers[clock] / found[other][clock] if other in found else None
    return {name: {k: record.short(v) for k, v in numbers.items()} for name, numbers in found.items()}


def transform(shape, slow=True, parts=False):
    """Forward and backward pass in float32 on one shape: a dict of functions without arguments.

    Parameters
    ----------
    shape : tuple
    slow : bool
        With the two teaching forms.
    parts : bool
        With the two passes of the fast form alone, and the sums of each alone.
    """
    import torch

    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, *shape), dtype=np.float32)
    gamma, beta = rng.standard_normal((2, shape[1]), dtype=np.float32)
    copied = np.empty_like(x)

    def of(forward, backward):
        return lambda: backward(dy, forward(x, gamma, beta)[1])

    def of_torch(memory_format=torch.contiguous_format):
        layer = (torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d)(shape[1])
        t = torch.tensor(x).contiguous(memory_format=memory_format).requires_grad_()
        upstream = torch.tensor(dy).contiguous(memory_format=memory_format)

        def step():
            t.grad = None
            layer(t).backward(upstream)

        return step

    def floor():
        for _ in range(4):  # read x; read x, write y; read dy and x; read dy and x, write dx: eight arrays
            np.copyto(copied, x)

    variants = {"floor": floor, "torch": of_torch()}
    if len(shape) == 4:
        variants["torch channels_last"] = of_torch(torch.channels_last)
    variants["fast"] = of(fast.batchnorm_forward, fast.batchnorm_backward)
    if slow:
        variants["closed form"] = of(batchnorm.batchnorm_forward, batchnorm.batchnorm_backward)
        variants["staged"] = of(batchnorm.batchnorm_forward, batchnorm.batchnorm_backward_staged)
    if parts:
        kept = fast.batchnorm_forward(x, gamma, beta)[1]
        upstream, parts = kept.layout.read(dy), kept.layout.parts(kept.x)

        def sums(dy=None):
            return [fast.sums(kept.layout, part, blocks, kept.x, dy) for part, blocks in parts]

        variants["fast, forward"] = lambda: fast.batchnorm_forward(x, gamma, beta)
        variants["fast, forward sums"] = lambda: sums()
        variants["fast, backward"] = lambda: fast.batchnorm_backward(dy, kept)
        variants["fast, backward sums"] = lambda: sums(upstream)
    return variants


def mlp_step(norm):
    """One training step of the sigmoid network of section 4.1 of the paper, batch 60: a dict of functions."""
    import torch

    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((BATCH, MLP[0]), dtype=np.float32), rng.integers(0, 10, BATCH)

    def ours(net):
        update = SGD(0.1)

        def step():
            dlogits = network.softmax_cross_entropy(net.forward(x), labels)[1]
            net.backward(dlogits, to_input=False)
            update.step(net)

        return step

    layers = []
    for inputs, outputs in zip(MLP[:-2], MLP[1:-1], strict=True):
        layers.append(torch.nn.Linear(inputs, outputs))
        layers += [torch.nn.BatchNorm1d(outputs)] * norm + [torch.nn.Sigmoid()]
    theirs = torch.nn.Sequential(*layers, torch.nn.Linear(*MLP[-2:]))
    optimizer, t, target = torch.optim.SGD(theirs.parameters(), lr=0.1), torch.tensor(x), torch.tensor(labels)

    def step():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(theirs(t), target).backward()
        optimizer.step()

    variants = {"torch": step, "scratch": ours(network.mlp(MLP, norm=BatchNorm if norm else None))}
    if norm:
        pair = {"forward": fast.batchnorm_forward, "backward": fast.batchnorm_backward}
        variants["scratch, fast"] = ours(network.mlp(MLP, norm=lambda units: BatchNorm(units, **pair)))
    return variants


def loop(norm):
    """Training steps of the small Inception by `nets.training.fit`, and by the shortest loop that does the same."""
    import torch

    from .nets import models, norms, training

    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.standard_normal((1024, 1, 28, 28), dtype=np.float32))
    labels = torch.from_numpy(rng.integers(0, 10, 1024))
    nets = [models.MiniInception(norms.BatchNorm if norm else None) for _ in range(2)]
    optimizer = training.sgd(nets[0], 0.01)

    def bare():
        order = torch.randperm(len(images))
        for step in range(STEPS):
            chosen = order[32 * step : 32 * (step + 1)]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(nets[0](images[chosen]), labels[chosen]).backward()
            optimizer.step()

    def fit():
        few = images[:1], labels[:1]
        training.fit(nets[1], images, labels, lr=0.01, steps=STEPS, validation=few, progress=False)

    return {"torch": bare, "fit": fit}


def module(shape):
    """Forward and backward pass of `nets.norms.BatchNorm` and of PyTorch's on channels-last feature maps."""
    import torch

    from .nets.norms import BatchNorm

    x, dy = (t.contiguous(memory_format=torch.channels_last) for t in torch.randn(2, *shape))
    x.requires_grad_()

    def of(layer):
        def step():
            x.grad = None
            layer(x).backward(dy)

        return step

    return {"torch": of(torch.nn.BatchNorm2d(shape[1])), "nets": of(BatchNorm(shape[1]))}
