"""Facts of this machine, read once. What an operating system does not tell is None."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

_CPUINFO = Path("/proc/cpuinfo")
_CPU_FOLDER = Path("/sys/devices/system/cpu")
# Flags that decide which kernels can run, as Linux spells them; AVX-512 flags are kept by their prefix.
_ISA_FLAGS = {"avx2", "fma", "avx_vnni", "amx_int8", "amx_bf16", "amx_tile", "asimd", "asimddp", "i8mm", "bf16", "sve"}
_FALLBACK_MEMORY = 2**33  # bytes, where the system does not tell
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclass(frozen=True)
class Machine:
    """This machine.

    Attributes:
        cpu: model name of the CPU.
        logical_cores: logical cores that this process may use.
        physical_cores: physical cores among them.
        isa_flags: instruction set flags that matter to the kernels, sorted.
        caches: bytes of each cache that the first core sees: `L1d`, `L2`, `L3`.
        memory: bytes of main memory.
        os: operating system, release and architecture.
    """

    cpu: str | None
    logical_cores: int
    physical_cores: int | None
    isa_flags: tuple[str, ...]
    caches: tuple[tuple[str, int], ...]
    memory: int | None
    os: str

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON carries them."""
        return {**asdict(self), "isa_flags": list(self.isa_flags), "caches": dict(self.caches)}


@cache
def machine() -> Machine:
    """The machine that this process runs on."""
    usable = _usable_cores()
    return Machine(
        cpu=_cpu_model(),
        logical_cores=len(usable) if usable else os.cpu_count() or 1,
        physical_cores=_physical_cores(usable) if usable else _integer(_sysctl("hw.physicalcpu")),
        isa_flags=tuple(sorted(f for f in _flags() if f in _ISA_FLAGS or f.startswith("avx512"))),
        caches=_linux_caches() or _sysctl_caches(),
        memory=_memory(),
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
    )


def threads() -> int:
    """Threads to use when nobody said: one for each physical core that this process may use."""
    here = machine()
    return here.physical_cores or here.logical_cores


def learning_memory(mib: int | None = None) -> int:
    """Bytes to keep while learning from data: `mib` MiB, or a quarter of the machine's memory when nobody said."""
    return mib * 2**20 if mib else (machine().memory or _FALLBACK_MEMORY) // 4


def _usable_cores() -> frozenset[int] | None:
    # Only Linux has affinity; containers limit cores by it.
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _cpuinfo(key: str) -> str | None:
    """The first line's value of `key` in /proc/cpuinfo."""
    for line in (_read(_CPUINFO) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _cpu_model() -> str | None:
    return _cpuinfo("model name") or _sysctl("machdep.cpu.brand_string") or platform.processor() or None


def _flags() -> list[str]:
    linux = _cpuinfo("flags") or _cpuinfo("Features")
    if linux is not None:
        return linux.split()
    intel = f"{_sysctl('machdep.cpu.features') or ''} {_sysctl('machdep.cpu.leaf7_features') or ''}"
    return intel.lower().split()


def _physical_cores(usable: frozenset[int]) -> int | None:
    """Distinct sets of sibling threads among the usable cores."""
    siblings = {_read(_CPU_FOLDER / f"cpu{core}/topology/thread_siblings_list") for core in usable}
    return None if None in siblings else len(siblings)


def _linux_caches() -> tuple[tuple[str, int], ...]:
    found = {}
    for folder in sorted(_CPU_FOLDER.glob("cpu0/cache/index*")):
        kind, level, size = (_read(folder / f) for f in ("type", "level", "size"))
        if kind is None or level is None or not size or kind == "Instruction":
            continue
        found[f"L{level}{'d' if level == '1' else ''}"] = int(size[:-1]) * _UNITS[size[-1]]
    return tuple(found.items())


def _sysctl_caches() -> tuple[tuple[str, int], ...]:
    names = {"L1d": "hw.l1dcachesize", "L2": "hw.l2cachesize", "L3": "hw.l3cachesize"}
    sizes = {level: _integer(_sysctl(name)) for level, name in names.items()}
    return tuple((level, size) for level, size in sizes.items() if size)


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf, macOS not every name
        return _integer(_sysctl("hw.memsize"))


def _sysctl(name: str) -> str | None:
    """A macOS kernel value; None elsewhere."""
    if platform.system() != "Darwin":
        return None
    answer = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


def _integer(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
