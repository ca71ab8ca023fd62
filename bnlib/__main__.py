"""The command line: ``python -m bnlib data | list | run | rerun | ledger | bench | mine``.

``--help`` says what each takes.

Each command has one function that adds its parser and one for each of its actions. An action returns its exit
status. Heavy modules are imported inside the actions, so that ``--help`` answers at once.
"""

import argparse
import json
import os
import sys


def _add_data(commands):
    parser = commands.add_parser(
        "data",
        help="list, fetch or verify the data sets",
        description="List, fetch or verify the data sets. Without an action: list.",
    )
    parser.set_defaults(action=_data_list, names=[])
    actions = parser.add_subparsers(metavar="ACTION")
    for word, action, line in (
        ("list", _data_list, "what there is, and what is cached"),
        ("fetch", _data_fetch, "fetch sets into the cache, all of them if no NAME is given"),
        ("verify", _data_verify, "check the SHA-256 of cached files; without a NAME, of every cached set"),
    ):
        subparser = actions.add_parser(word, help=line, description=line)
        subparser.add_argument("names", nargs="*", metavar="NAME")
        subparser.set_defaults(action=action)


def _data_list(arguments):
    from bnlib import data

    for name in arguments.names or data.NAMES:
        faults = data.faults(name)
        what, (train, val, test) = data.SETS[name]
        size = sum(size for size, _ in data.FILES[name].values())
        if not faults:
            state = f"verified, {size:,} bytes"
        elif _nothing_cached(data, name, faults):
            state = f"not cached, {size:,} bytes once fetched"
            state += ", found on this machine" if data.available(name) else ""
        else:
            state = f"damaged: {'; '.join(faults)}"
        print(f"{name}: {what}")
        print(f"    images  {train:,} training, {val:,} validation, {test:,} test")
        print(f"    cache   {data.cache_dir() / name}")
        print(f"    state   {state}")
    return 0


def _data_fetch(arguments):
    from bnlib import data

    status = 0
    for name in arguments.names or data.NAMES:
        try:
            print(f"{name}: verified in {data.fetch(name, progress=True)}")
        except data.DataUnavailable as error:
            status = _error(f"no source of {name} answered; tried {'; '.join(error.tried)}")
        except OSError as error:
            status = _error(f"{name} cannot be cached: {error}")
    return status


def _data_verify(arguments):
    from bnlib import data

    status = 0
    for name in arguments.names or data.NAMES:
        faults = data.faults(name)
        if not faults:
            print(f"{name}: verified")
        elif not arguments.names and _nothing_cached(data, name, faults):
            print(f"{name}: not cached")
        else:
            status = _error(f"{name}: {'; '.join(faults)}")
    return status


def _nothing_cached(data, name, faults):
    return faults == [f"{file} is not cached" for file in data.FILES[name]]


def _add_experiments(commands):
    parser = commands.add_parser("list", help="list the experiments", description="List the experiments.")
    parser.set_defaults(action=_list)
    parser = commands.add_parser(
        "run",
        help="run an experiment",
        description="Run an experiment and print its claims. A full run with all seeds is recorded in bnlib/results; "
        "finished cells are kept, so a run that was stopped goes on where it was.",
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--scale", default="lite", help="lite (default) or full")
    parser.add_argument("--seeds", type=int, metavar="N", help="the first N confirming seeds only; never recorded")
    _add_machines(parser)
    parser.set_defaults(action=_run)
    parser = commands.add_parser(
        "rerun",
        help="run all recorded experiments again",
        description="Run all recorded experiments again at full scale, the shortest first, and record them. Prints a "
        "line for each cell. Finished cells are kept: stopped, the same command goes on from there.",
    )
    _add_machines(parser)
    parser.set_defaults(action=_rerun)
    parser = commands.add_parser(
        "ledger", help="print all claims", description="Print the claims of all recorded runs."
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.set_defaults(action=_ledger)
    parser = commands.add_parser(
        "bench",
        help="time the transform and the runner",
        description="Time the transform and a training step beside PyTorch's, and what the runner adds to a cell, "
        "some minutes on a machine that does nothing else. The times are recorded in bnlib/results/bench.json.",
    )
    parser.add_argument("group", nargs="?", choices=("transform", "cells"), help="record these times alone")
    parser.set_defaults(action=_bench)


def _add_machines(parser):
    parser.add_argument("--jobs", type=int, metavar="N", help="cells at a time on this machine (default: its cores)")
    parser.add_argument(
        "--engine", default="loky", help="loky (default), this machine, or dask, the workers of a cluster"
    )
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of that cluster, such as tcp://192.168.0.7:8786")


def _machines(arguments):
    """Who computes, as `runner.run` takes it."""
    jobs = os.cpu_count() if arguments.jobs is None and arguments.engine == "loky" else arguments.jobs
    return {"jobs": jobs, "engine": arguments.engine, "scheduler": arguments.scheduler}


def _list(arguments):
    from bnlib.experiments import core, ledger

    for name in core.names():
        module = core.module(name)
        print(f"{name}: {module.__doc__.splitlines()[0]}")
        for scale, config in module.PRESETS.items():
            sets = ", ".join(sorted({plan.dataset for plan in config.arms.values()}))
            print(f"    {scale:8}{len(config.arms)} arms, {len(config.seeds)} seeds, {sets}")
        print(f"    recorded  {'yes' if name in ledger.recorded() else 'no'}")
        for arm, line in module.ARMS.items():
            print(f"    arm {arm:17} {line}")
    return 0


def _run(arguments):
    from bnlib.experiments import ledger, record, runner

    def work():
        run = runner.run(arguments.name, arguments.scale, seeds=arguments.seeds, **_machines(arguments))
        print(ledger.table(ledger.entries(run)))
        for arm, choice in run.chosen.items():
            if choice["edge"]:
                print(
                    f"note: the best {' and '.join(choice['edge'])} of {arm} is at the edge of its grid: no optimum"
                )
        if arguments.scale != "full":
            print(f"not recorded: scale {arguments.scale}")
        elif run.left_out():
            print(f"not recorded: {run.left_out()} confirming cells of the config were left out")
        else:
            print(f"recorded in {record.save(run)}")

    return _guarded(work)


def _rerun(arguments):
    from datetime import timedelta

    from tqdm import tqdm

    from bnlib.experiments import ledger, record, runner

    def line(arm, seed, setting, seconds, kept):
        values = " ".join(f"{key}={value}" for key, value in setting.items())
        tqdm.write(f"    {arm}, seed {seed}: {'kept' if kept else f'{seconds:.1f} s'}  {values}")

    def work():
        left = sorted((record.load(name).seconds(), name) for name in ledger.recorded())
        while left:
            jobs = _machines(arguments)["jobs"] or 1
            took = timedelta(seconds=round(sum(seconds for seconds, _ in left) / max(jobs, 1)))
            _, name = left.pop(0)
            of = "" if arguments.engine == "loky" else " of one worker"
            print(f"{name}, then {len(left)} more: about {took}{of} in all, as recorded", flush=True)
            run = runner.run(name, "full", **_machines(arguments), each=line)
            print(f"recorded in {record.save(run)}", flush=True)

    return _guarded(work)


def _guarded(work):
    """Do a run, and turn what may go wrong with its cells into one line."""
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    from bnlib.data import DataUnavailable
    from bnlib.experiments.machines import ClusterError

    try:
        work()
    except DataUnavailable as error:
        return _error(f"no source of {error.name} answered: python -m bnlib data fetch {error.name} says more")
    except ClusterError as error:
        return _error(f"{error}; finished cells are kept")
    except TerminatedWorkerError:
        return _error("a worker was killed, perhaps for want of memory: try fewer --jobs; finished cells are kept")
    except KeyboardInterrupt:
        return _error("stopped; finished cells are kept, the same command goes on from there")
    except OSError as error:
        return _error(f"{error.filename or 'a file'} cannot be written: {error.strerror}; finished cells are kept")
    return 0


def _ledger(arguments):
    from bnlib.experiments import ledger

    found = ledger.claims()
    print(json.dumps(found, indent=1, ensure_ascii=False) if arguments.format == "json" else ledger.table(found))
    return 0


def _bench(arguments):
    from bnlib import bench

    print(bench.table(bench.main(arguments.group)))
    print(f"recorded in {bench.FILE}")
    return 0


def _add_mine(commands):
    parser = commands.add_parser(
        "mine",
        help="put your own module in the place of ours",
        description="Check a file with your own batchnorm_forward, batchnorm_backward, batchnorm_inference, "
        "RunningStatistics and fold, then train the sick net with them. The exit status is 0 if all is right.",
    )
    parser.add_argument("file", metavar="FILE")
    parser.set_defaults(action=_mine)


def _mine(arguments):
    from bnlib.exercises import mine

    return 0 if mine.report(arguments.file) else 1


def _error(line):
    print(f"error: {line}", file=sys.stderr)
    return 1


def main(words=None):
    """Run one command line and return its exit status: 0 done, 1 failed, 2 not understood."""
    parser = argparse.ArgumentParser(prog="python -m bnlib", description="The batch normalization course.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_data(commands)
    _add_experiments(commands)
    _add_mine(commands)
    arguments = parser.parse_args(words)
    try:
        return arguments.action(arguments)
    except ValueError as error:  # an unknown name: the message lists the known ones
        return _error(error) + 1


if __name__ == "__main__":
    sys.exit(main())
