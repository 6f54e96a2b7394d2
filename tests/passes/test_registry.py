import dataclasses
import subprocess
import sys

import pytest

from sparsify.errors import UsageError
from sparsify.passes import PASSES, resolve
from sparsify.rewrite import Pass

HEADINGS = ["What:", "When it fires:", "When it refuses:", "Mathematics:", "Cost:", "Drift:", "Source:"]


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_is_what_the_registry_says(name):
    cls = resolve(name)
    assert issubclass(cls, Pass)
    assert cls.name == name
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen
    assert str(cls()) == name
    lines = [line.strip() for line in cls.__doc__.splitlines()]
    assert [line for line in lines if line in HEADINGS] == HEADINGS


def test_a_typing_error_gets_a_hint():
    with pytest.raises(UsageError, match="did you mean `prune`"):
        resolve("prun")
    with pytest.raises(UsageError, match="passes are cleanup"):
        resolve("zzz")


def test_importing_the_registry_imports_no_pass():
    code = "import sys, sparsify.passes; print([m for m in sys.modules if m.startswith('sparsify.passes.')])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
