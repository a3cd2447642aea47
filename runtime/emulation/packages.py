"""What the emulator is made of. Debian's packages are checked by apt against Debian's signatures, wheels by hashes."""

from __future__ import annotations

MIRROR = "http://deb.debian.org/debian"
SUITE = "bookworm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

EMULATOR = "qemu-user-static"
EMULATOR_BINARY = "usr/bin/qemu-aarch64-static"
ON_PATH = ("qemu-aarch64-static", "qemu-aarch64")

ARM64_PACKAGES = (
    "libc6", "libgcc-s1", "libstdc++6", "libpython3.11-minimal", "libpython3.11-stdlib", "python3.11-minimal",
    "zlib1g", "libffi8", "libexpat1", "libssl3", "libbz2-1.0", "liblzma5", "libuuid1", "libgomp1", "libsqlite3-0",
    "libatomic1",
)  # fmt: skip
"""Python 3.11 for arm64 and the libraries that it and the wheels load."""

PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64")
WHEELS = {
    "onnxruntime==1.31.1": "da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3",
    "numpy==2.4.6": "0ab0a9c4ffb1a6d95ef519fe4247dba8eb6b18ad93999f76b7f657039acabd47",
}
"""Requirement -> sha256 of its wheel for CPython 3.11 on aarch64."""

MEGABYTES = 110
"""What is fetched, rounded up."""
