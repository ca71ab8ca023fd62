"""The command line: ``python -m bnlib data [list | fetch | verify] [NAME ...]``.

Each command has one function that adds its parser and one for each of its actions. An action returns its exit
status. Heavy modules are imported inside the actions, so that ``--help`` answers at once.
"""

import argparse
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


def _error(line):
    print(f"error: {line}", file=sys.stderr)
    return 1


def main(words=None):
    """Run one command line and return its exit status: 0 done, 1 failed, 2 not understood."""
    parser = argparse.ArgumentParser(prog="python -m bnlib", description="The batch normalization course.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_data(commands)
    arguments = parser.parse_args(words)
    try:
        return arguments.action(arguments)
    except ValueError as error:  # an unknown name: the message lists the known ones
        return _error(error) + 1


if __name__ == "__main__":
    sys.exit(main())
