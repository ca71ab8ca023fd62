"""What an exercise is made of. A topic file holds one `Exercise`, its cases and its known wrong versions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Case(NamedTuple):
    """One input on which an answer is compared with the reference.

    A rough case is judged by a wide tolerance because rounding is its subject. Wrong answers lose all digits on it,
    each in its own way, so two of them agree there when both are wrong.
    """

    args: tuple
    tolerance: float = 1e-8  # on `scaled_error`; float64 leaves about seven digits of room for another formula
    rough: bool = False


class Mistake(NamedTuple):
    """A known mistake: what to tell the student, and the wrong versions that make it."""

    message: str
    versions: list[Callable]


def call(answer, *args):
    return answer(*args)


@dataclass
class Exercise:
    """An exercise.

    Parameters
    ----------
    name : str
    usage : str
        How the answer is called, shown when a call fails.
    inputs, outputs : sequence of str
        Names of the entries of ``Case.args`` and of what the answer returns.
    reference : callable
    cases : sequence of Case
        At least one in which each mistake differs from the reference and from all other mistakes.
    judged : int, optional
        Only the first ``judged`` outputs are compared; all by default.
    run : callable
        ``run(answer, *args)`` returns the outputs; calls the answer by default.
    mistakes : dict
        Slug to `Mistake`, filled by `mistake`.
    """

    name: str
    usage: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    reference: Callable
    cases: Sequence[Case]
    judged: int | None = None
    run: Callable = call
    mistakes: dict[str, Mistake] = field(default_factory=dict)

    def mistake(self, slug, message=None):
        """Decorator: enter a wrong version under ``slug``. A second version of the same mistake needs no message."""

        def enter(version):
            if message is not None:
                if slug in self.mistakes:
                    raise ValueError(f"the mistake {slug!r} of {self.name} already has a message")
                self.mistakes[slug] = Mistake(message, [])
            self.mistakes[slug].versions.append(version)
            return version

        return enter
