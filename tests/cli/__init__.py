"""The command line as people and programs see it: exit codes, what goes where, what is left on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Run: TypeAlias = Callable[..., tuple[int, str, str]]  # arguments -> exit code, stdout, stderr
INT8 = ("--passes", "cleanup,sparse-int8,fuse-epilogue")  # min_speedup=0: nothing here depends on how fast it is
