"""The wheel has all parts, in their place, and works from outside the repository."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ALONE = "sys.path[:] = given + [p for p in sys.path if p not in given and p != own + '/src']\n"
"""Not what an editable installation puts there."""


def test_wheel(tmp_path):
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, check=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    for wanted in (
        "satchel/__init__.py", "satchel/py.typed", "satchel/cli/app.py", "satchel/export/pipeline.py",
        "satchel/runtime/session.py", "satchel/runtime/FORMAT.md", "satchel/devices/profiles/pixel-9.toml",
        "optimum/commands/register/register_satchel.py",
    ):  # fmt: skip
        assert wanted in names
    assert not any(n.split("/")[0] in ("export", "runtime", "devices", "src", "tests") for n in names)
    code = (
        "import satchel; from satchel.devices.profile import device_names; "
        "assert 'site' in satchel.__file__, satchel.__file__; assert 'pixel-9' in device_names(); "
        "from optimum.commands.optimum_cli import load_optimum_namespace_cli_commands as found; "
        "assert 'satchel' in [command.COMMAND.name for command, _ in found()]; print('ok')"
    )
    paths = [str(tmp_path / "site"), *[p for p in sys.path if "site-packages" in p]]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; own = {str(ROOT)!r}; given = {paths!r}\n{ALONE}{code}"],
        cwd=tmp_path, check=True, timeout=60, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "ok\n"
