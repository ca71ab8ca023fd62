"""The exercise checker: ``check(name, answer)`` says whether an answer is right, and if not, why."""

import os
import sys

from .check import Feedback, check, outcomes
from .worker import worker as process

__all__ = ["Feedback", "check"]

if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() and not os.environ.get("BNLIB_BUILD"):
    process.start(outcomes)  # in a notebook it starts while the learner reads: the first answer waits for nothing
