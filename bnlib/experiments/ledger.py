"""The ledger: every claim of every recorded experiment, computed from the recorded files and never typed."""

import dataclasses
import math

import numpy as np

from . import core, record, runner

NUDGE = 1e-5  # share by which a rate is changed to see what comes of a small difference
SIZE = 0.1  # by which first losses may differ, on average over the steps, on a processor that rounds otherwise
COUNTS = ("seeds", "scales", "rates", "directions", "regions")  # units of what is counted, and of means of it
DIFFERENCES = ("points", "decades")  # units of what one arm has more than another: printed with their sign


def recorded():
    """Names of the experiments that have a recorded file."""
    return tuple(name for name in core.names() if record.path(name).exists())


def claims():
    """All claims as a list of dicts, ready for JSON.

    Each has ``id, experiment, paper, place, statement, paper_value, ours, spread, seeds, threshold, fidelity,
    verdict, dataset, seconds, command``, and ``unit`` and ``bound``, which belong to ``ours``. ``seconds`` is the
    processor time of the whole experiment.
    """
    return [entry for name in recorded() for entry in entries(record.load(name))]


def entries(run):
    """The claims of one run, live or recorded, as a list of dicts."""
    command = f"python -m bnlib run {run.name} --scale {run.scale}"
    found = []
    for claim in core.module(run.name).claims(run.results()):
        entry = dataclasses.asdict(claim)
        value, spread, bound = entry.pop("measured")
        entry |= {
            "experiment": run.name,
            "ours": _plain(value),
            "spread": [_plain(v) for v in spread],
            "bound": bound,
        }
        if isinstance(claim.threshold, tuple):
            entry["threshold"] = list(claim.threshold)
        entry |= {"verdict": claim.verdict, "seeds": list(claim.seeds), "seconds": run.seconds(), "command": command}
        found.append(entry)
    return found


def ours(entry):
    """Our number as the book prints it, such as "4.9x" or "≥ 15x" or "+0.8 points"."""
    if entry["ours"] is None:
        return "no number"
    return " ".join(filter(None, (entry["bound"], _number(entry["ours"], entry["unit"]))))


def spread(entry):
    """Its interval as the book prints it, such as "2.8 to 11x"."""
    if entry["ours"] is None:
        return "level not reached"
    low, high = (_number(v, entry["unit"]) for v in entry["spread"])
    return f"{low.removesuffix(_after(entry['unit']))} to {high}"


def threshold(entry):
    """The threshold as the book prints it, such as "≥ 2.00x" or "≤ 1.0e-12" or "0.97 to 1.03x"."""
    limits, unit = entry["threshold"], entry["unit"]
    if limits is None:
        return "none"
    low, high = (
        None if limit is None else _number(limit, unit).lstrip("+")
        for limit in (limits if isinstance(limits, list) else (limits, None))
    )
    if low is None or high is None:
        return f"≤ {high}" if low is None else f"≥ {low}"
    return f"{low.removesuffix(_after(unit))} to {high}"


def stale(name):
    """Why a recorded file no longer is what the code computes: a list of lines, empty if it still is.

    Compares the config with the module's and reruns the first 20 steps of one cell of each arm. These losses must be
    the recorded ones to a ten-thousandth. Other libraries than the recorded ones, or the same on another processor,
    round otherwise, and a net of ReLUs, a deep one or one with large steps soon makes much of the last digit: there
    the first loss, taken before any step, must be the recorded one and the later ones of its `size`.
    """
    run, now = record.load(name), core.preset(name, "full")
    found = []
    if run.about["hash"] != now.hash():
        found.append(f"the config's hash is {now.hash()}, recorded was {run.about['hash']}")
    # One step more, because the last step of a run that diverges has a row too; no probes, which need a longer run.
    steps = {"steps": record.FIRST + 1, "probed": False}
    short = {arm: dataclasses.replace(plan, **steps) for arm, plan in run.config.arms.items()}
    short = dataclasses.replace(run.config, arms=short)

    def first(arm, seed, setting, config=short):
        rows = runner.one_cell(name, config, arm, seed, setting)["rows"]
        return np.array([row["loss"] for row in rows if row["step"] <= record.FIRST], float)

    for arm, then in run.first.items():
        seed, setting, before = then["seed"], run.chosen[arm]["setting"], np.array(then["losses"], float)
        losses = first(arm, seed, setting)
        same = len(losses) == len(before)
        if same and not _near(losses, before):
            same = _near(losses[:1], before[:1]) and _rounds_otherwise(run)
            off = size(losses, before)
            if same and not off <= SIZE:  # where steps are huge, a tiny change of the rate makes as much of it
                same = off <= 3 * size(losses, first(arm, seed, *_nudged(setting, short)))
        if not same:
            found.append(
                f"arm {arm}, seed {seed}: the first losses are {losses[:3].tolist()}..., recorded {before[:3]}"
            )
    return found


def size(losses, others):
    """By how much two runs' losses differ, as the absolute mean log ratio over the common steps after the first."""
    count = min(len(losses), len(others))
    if not np.array_equal(np.isfinite(losses[:count]), np.isfinite(others[:count])):
        return math.inf
    with np.errstate(invalid="ignore"):
        ratios = np.log(losses[1:count] / others[1:count])
    ratios = ratios[np.isfinite(ratios)]
    return abs(float(ratios.mean())) if len(ratios) else 0.0


def _rounds_otherwise(run):
    """Whether a run was recorded with libraries, or kernels of them, that are not the ones at work here."""
    return not set(run.about["environment"]["libraries"]) <= set(record.environment()["libraries"])


def _nudged(setting, config):
    """The setting and the config with a rate larger by `NUDGE`, or with all rates of a cell that tries several."""
    if isinstance(setting.get("lr"), float):
        return setting | {"lr": setting["lr"] * (1 + NUDGE)}, config

    def larger(rates):
        if isinstance(rates, dict):
            return {key: larger(some) for key, some in rates.items()}
        return [rate * (1 + NUDGE) for rate in rates]

    options = {key: larger(value) if key == "rates" else value for key, value in config.options.items()}
    return setting, dataclasses.replace(config, options=options)


def _near(losses, before):
    return np.allclose(losses, before, rtol=1e-4, atol=0, equal_nan=True)


def table(found):
    """Claims as lines of plain text."""
    lines = []
    for entry in found:
        lines.append(f"{entry['id']}: {entry['statement']}")
        lines.append(
            f"    {ours(entry)} ({spread(entry)}; {len(entry['seeds'])} seeds), threshold {threshold(entry)}: "
            f"{entry['verdict']} [{entry['fidelity']}, {entry['dataset']}]"
        )
    return "\n".join(lines)


def _number(value, unit):
    if unit == "x":
        digits = ".2f" if value < 9.95 else ".0f" if value < 1e5 else ".1e"  # a net that diverges has huge ratios
        return f"{value:{digits}}x"
    if unit == "error":  # a relative error: its size is what counts
        return f"{value:.1e}"
    if unit == "%":  # a share, not a difference
        return f"{value:.1f} %"
    if unit in COUNTS:
        return f"{value:.1f}".removesuffix(".0") + f" {unit}"
    return f"{value:{'+' if unit in DIFFERENCES else ''}.2f} {unit}".rstrip()


def _after(unit):
    """What `_number` writes after the digits."""
    return {"x": "x", "error": ""}.get(unit, f" {unit}".rstrip())


def _plain(value):
    return float(f"{value:.5g}") if math.isfinite(value) else None  # JSON knows neither NaN nor infinity
