"""What a test cell says of itself. Read by both environments, so it needs nothing."""

MARK = "# tests:"


def names(source):
    """The students' names that a test cell uses, from its line ``# tests: a, b``."""
    lines = [line.removeprefix(MARK) for line in source.splitlines() if line.startswith(MARK)]
    return lines[0].replace(",", " ").split() if lines else []
