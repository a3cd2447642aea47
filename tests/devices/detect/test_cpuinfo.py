"""What /proc says of a CPU, as ARM and x86 kernels write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satchel.devices.chip import Cores, load_chip
from satchel.devices.detect.cpuinfo import group_cores, parse_cpuinfo, parse_memory, parse_speeds

A76 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
G3 = A76 + " jscvt fcma sve asimdfhm sve2 svei8mm svebf16 i8mm bti"
"""Features that hrw/arm-socs-table has of a Raspberry Pi 5 and of a Pixel 8 (which lists svebf16 and no bf16)."""


def arm(*cores: tuple[int, str], implementer: int = 0x41) -> str:
    """/proc/cpuinfo of a 64-bit ARM kernel, a (part, features) each processor."""
    return "\n\n".join(
        f"processor\t: {n}\nBogoMIPS\t: 108.00\nFeatures\t: {features}\nCPU implementer\t: {implementer:#x}\n"
        f"CPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: {part:#05x}\nCPU revision\t: 1"
        for n, (part, features) in enumerate(cores)
    )


PI5 = (
    arm(*[(0xD0B, A76)] * 4)
    + "\n\nHardware\t: BCM2835\nRevision\t: d04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"
)
PI4 = arm(*[(0xD08, "fp asimd evtstrm crc32 cpuid")] * 4)
PIXEL_8 = arm(*[(0xD46, G3)] * 4, *[(0xD4D, G3)] * 4, (0xD4E, G3))
XEON = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Processor @ 2.10GHz
physical id\t: 0
siblings\t: 2
core id\t\t: 0
flags\t\t: fpu sse avx512_bf16 amx_int8

processor\t: 1
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Processor @ 2.10GHz
physical id\t: 0
siblings\t: 2
core id\t\t: 0
flags\t\t: fpu sse avx512_bf16 amx_int8
"""


@pytest.mark.parametrize(("text", "chip"), [(PI5, "bcm2712"), (PI4, "bcm2711"), (PIXEL_8, "tensor-g3")])
def test_arm(text: str, chip: str) -> None:
    cpu = parse_cpuinfo(text)
    assert cpu.arm64
    assert set(cpu.isa) == set(load_chip(chip).isa)
    speeds = {n: {"Cortex-A510": 1, "Cortex-A715": 2, "Cortex-X3": 3}.get(core, 1) for n, core in enumerate(cpu.cores)}
    assert group_cores(cpu.cores, speeds) == load_chip(chip).cores


def test_a_feature_counts_where_every_core_has_it() -> None:
    cpu = parse_cpuinfo(arm((0xD46, A76 + " i8mm bf16"), (0xD4D, A76 + " i8mm")))
    assert cpu.isa == ("dotprod", "i8mm", "fp16")
    assert parse_cpuinfo(arm((0xD46, A76), (0xD4D, ""))).isa == ()
    assert parse_cpuinfo(arm((0xFFF, A76), implementer=0x99)).cores == ("core 0x99:0xfff",)


def test_x86_and_32_bit_arm_are_not_arm64() -> None:
    cpu = parse_cpuinfo(XEON)
    assert (cpu.arm64, cpu.isa) == (False, ())
    assert cpu.cores == ("Intel(R) Xeon(R) Processor @ 2.10GHz",)  # two threads of one core
    assert len(parse_cpuinfo(XEON.replace("core id\t\t: 0", "core id\t\t: 1", 1)).cores) == 2
    old = parse_cpuinfo(arm((0xD08, "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt")))
    assert (old.arm64, old.isa) == (False, ())


def test_cores_by_speed() -> None:
    names = ("Oryon",) * 8
    assert group_cores(names, {n: 4320 if n > 5 else 3530 for n in range(8)}) == (
        Cores(2, "Oryon", "big"), Cores(6, "Oryon", "little"),
    )  # fmt: skip
    assert group_cores(names, {}) == (Cores(8, "Oryon", "big"),)
    assert group_cores(("x",) * 20, {n: 4000 + n for n in range(20)}) == (Cores(20, "x", "big"),)
    text = "/sys/devices/system/cpu/cpu0/cpu_capacity 160\n/sys/devices/system/cpu/cpu10/cpu_capacity 1024\nnone\n"
    assert parse_speeds(text) == {0: 160, 10: 1024}


def test_memory() -> None:
    assert parse_memory("MemTotal:        8245888 kB\nMemFree: 1 kB\n") == 7.9  # a Raspberry Pi 5 of 8 GB
    assert parse_memory("MemFree: 1 kB") == 0


PIECES = [
    "processor",
    "\t: ",
    "\n",
    "\n\n",
    "0",
    "1",
    "0x41",
    "0xd05",
    "Features",
    "CPU part",
    "CPU implementer",
    "asimddp",
]
PIECES += ["model name", "/sys/devices/system/cpu/cpu1/cpu_capacity ", "MemTotal: ", " kB", "-", "\0", "\ud800", "é"]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=60).map("".join))
def test_anything_is_read_without_failing(text: str) -> None:
    cpu = parse_cpuinfo(text)
    assert sum(core.count for core in group_cores(cpu.cores, parse_speeds(text))) == len(cpu.cores)
    assert parse_memory(text) >= 0
