"""A learner's own module in the place of ours: right names pass and train the same net, wrong ones are said."""

import pytest

from bnlib.__main__ import main
from bnlib.exercises import mine
from bnlib.scratch import batchnorm, layers

from .conftest import ROOT

OWN = (ROOT / "tests" / "scratch" / "own_module.py").read_text()
CHANGES = {  # what is changed in the right module: the name that then fails, and how it trains
    "inner = dy - spread(dbeta, dy) / m": ("inner = dy", "batchnorm_backward", False),
    "* m / (m - 1)": ("", "RunningStatistics", True),
    "spread(scale, x) * x": ("x", "batchnorm_inference", True),
    "(bias - mean) * scale + beta": ("bias * scale + beta", "fold", True),
    "np.sqrt((xc**2).mean(axes(x)) + eps)": ("(np.sqrt((xc**2).mean(axes(x))) + eps)", "batchnorm_forward", False),
}


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "mine.py"
        path.write_text(text)
        return str(path)

    return write


def test_a_right_module_passes_and_trains_the_same_net(write, capsys):
    assert main(["mine", write(OWN)]) == 0
    told = capsys.readouterr().out
    assert told.count("Right.") == len(mine.CHECKS)
    assert "The losses differ by at most" in told
    assert layers.batchnorm_inference is batchnorm.batchnorm_inference


@pytest.mark.parametrize("old", CHANGES)
def test_a_wrong_name_is_said_and_the_others_are_still_right(write, capsys, old):
    new, name, same = CHANGES[old]
    assert OWN.count(old) == 1
    assert main(["mine", write(OWN.replace(old, new))]) == 1
    told = capsys.readouterr().out
    assert f"{name}: Not yet." in told
    assert ("too much for rounding" not in told) == same or name == "batchnorm_forward"


def test_what_is_missing_is_taken_from_ours(write, capsys):
    assert main(["mine", write(OWN[: OWN.index("class RunningStatistics")])]) == 1
    told = capsys.readouterr().out
    assert "RunningStatistics: missing; ours is taken" in told
    assert "too much for rounding" not in told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\ny = x / 0\n", "mine.py, line 2: ZeroDivisionError"),
        ("x = 1\n", "mine.py defines none of the names batchnorm_forward, "),
        (None, "there is no file "),
    ],
)
def test_a_file_that_cannot_be_used_is_said_in_one_line(write, tmp_path, capsys, text, said):
    assert main(["mine", str(tmp_path / "none.py") if text is None else write(text)]) == 2
    assert said in capsys.readouterr().err


def test_a_module_that_cannot_train_is_said(write, capsys):
    text = OWN.replace(
        "    mu = x.mean(axes(x), dtype=np.float64)\n",
        "    if x.dtype == np.float32: raise OSError('no')\n    mu = x.mean(axes(x), dtype=np.float64)\n",
    )
    assert main(["mine", write(text)]) == 1
    assert "The sick net cannot be trained with it: OSError: no" in capsys.readouterr().out
