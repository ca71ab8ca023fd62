"""The step of nbgrader's autograding that runs a notebook: it asks the judge, and writes what came into the outputs.

nbgrader itself would run the tests in the kernel of the student's notebook, which the student's code can change.
"""

import json
import os
import subprocess
from pathlib import Path

from nbformat.v4 import new_output
from nbgrader import utils
from nbgrader.preprocessors import NbGraderPreprocessor
from testcells import names

JUDGE = Path(__file__).with_name("judge.py")


class Judge(NbGraderPreprocessor):
    """Fills in the outputs of all code cells, without a kernel."""

    def preprocess(self, nb, resources):
        cells = [cell for cell in nb.cells if cell.cell_type == "code"]
        orders = [{"source": c.source, "test": names(c.source) if utils.is_grade(c) else None} for c in cells]
        settings = json.loads(os.environ["BNLIB_GRADING"])  # whose Python runs the judge; hidden folders; limits
        order = {"cells": orders, **settings["order"], **settings["assignments"][resources["nbgrader"]["assignment"]]}
        done = subprocess.run(
            [settings["python"], str(JUDGE)], input=json.dumps(order), capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"the judge failed: {done.stderr.strip().splitlines()[-1:]}")
        for number, (cell, result) in enumerate(zip(cells, json.loads(done.stdout)["cells"], strict=True), 1):
            cell.execution_count = number
            cell.outputs = list(outputs(result, number))
        return nb, resources


def outputs(result, number):
    if result["printed"]:
        yield new_output("stream", name="stdout", text=result["printed"])
    if result["error"]:
        kind, _, text = result["error"].partition(": ")
        yield new_output("error", ename=kind if text else "Error", evalue=text or kind, traceback=[result["error"]])
    elif result["value"] is not None:
        yield new_output("execute_result", data={"text/plain": f"{result['value']:g}"}, execution_count=number)
