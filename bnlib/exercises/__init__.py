"""The exercise checker: ``check(name, answer)`` says whether an answer is right, and if not, why."""

from .check import Feedback, check

__all__ = ["Feedback", "check"]
