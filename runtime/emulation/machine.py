"""What an emulated CPU is, as programs find it: /proc/cpuinfo and the registers in /sys.

onnxruntime chooses its kernels by these files, so they must say what the emulator executes: a feature that is claimed
and not there is an illegal instruction. The features are therefore read from the emulated kernel's auxiliary vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

CPUS = {"cortex-a76": 0x414FD0B1, "cortex-a72": 0x410FD083, "neoverse-n1": 0x414FD0C1, "max": 0x510F0510}
"""Emulated CPU -> its MIDR_EL1: implementer, variant, architecture, part, revision (qemu's target/arm/cpu64.c)."""

HWCAP = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 sm3 "
    "sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg"
)
HWCAP2 = (
    "dcpodp sve2 sveaes svepmull svebitperm svesha3 svesm4 flagm2 frint svei8mm svef32mm svef64mm svebf16 i8mm bf16 "
    "dgh rng bti mte ecv afp rpres mte3 sme smei16i64 smef64f64 smei8i32 smef16f32 smeb16f32 smef32f32 smefa64 wfxt"
)
"""Names of the bits of AT_HWCAP and AT_HWCAP2, from the lowest (Linux, arch/arm64/kernel/cpuinfo.c)."""

ASK = "import ctypes; f = ctypes.CDLL(None).getauxval; f.restype = ctypes.c_ulong; print(f(16), f(26))"
"""A program that prints AT_HWCAP and AT_HWCAP2."""


def features(hwcap: int, hwcap2: int) -> list[str]:
    """Bits -> names of the features."""
    pairs = ((hwcap, HWCAP), (hwcap2, HWCAP2))
    return [name for bits, names in pairs for i, name in enumerate(names.split()) if bits >> i & 1]


def describe(folder: Path, cpu: str, names: list[str], cores: int) -> None:
    """Writes the files of a CPU below `folder`: proc/cpuinfo and sys/devices/system/cpu."""
    midr = CPUS[cpu]
    (folder / "proc").mkdir()
    (folder / "proc" / "cpuinfo").write_text("\n".join(_core(n, midr, names) for n in range(cores)), encoding="utf-8")
    cpus = folder / "sys" / "devices" / "system" / "cpu"
    for n in range(cores):
        registers = cpus / f"cpu{n}" / "regs" / "identification"
        registers.mkdir(parents=True)
        (registers / "midr_el1").write_text(f"0x{midr:016x}\n", encoding="utf-8")
    for name in ("possible", "present", "online"):
        (cpus / name).write_text(f"0-{cores - 1}\n" if cores > 1 else "0\n", encoding="utf-8")


def _core(number: int, midr: int, names: list[str]) -> str:
    return "\n".join(_lines(number, midr, names))


def _lines(number: int, midr: int, names: list[str]) -> Iterator[str]:
    yield f"processor\t: {number}"
    yield "BogoMIPS\t: 100.00"
    yield f"Features\t: {' '.join(names)}"
    yield f"CPU implementer\t: 0x{midr >> 24:02x}"
    yield "CPU architecture: 8"
    yield f"CPU variant\t: 0x{midr >> 20 & 15:x}"
    yield f"CPU part\t: 0x{midr >> 4 & 0xFFF:03x}"
    yield f"CPU revision\t: {midr & 15}"
    yield ""
