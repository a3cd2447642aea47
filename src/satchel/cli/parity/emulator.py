"""`satchel parity emulator`: fetches what --emulate needs."""

from __future__ import annotations

from typing import Annotated

import typer

from satchel.cli.console import err, errors, out
from satchel.runtime.emulation import install, packages


def command(
    remove: Annotated[bool, typer.Option("--remove", help="Remove it instead.")] = False,
    mirror: Annotated[str, typer.Option(help="Of Debian.")] = packages.MIRROR,
) -> None:
    """Fetch an aarch64 Python, onnxruntime and qemu into the cache, as any user: some 110 MB to fetch, 180 MB there."""
    with errors(as_json=False):
        folder = install.cache_folder()
        if remove:
            install.remove(folder)
            out.print(f"removed {folder}", markup=False)
            return
        if install.is_installed(folder):
            out.print(f"installed already: {folder}", markup=False)
            return
        install.install(folder, mirror, lambda step: err.print(step, markup=False))
        out.print(f"installed {folder}", markup=False)
