"""What the architecture promises about imports and about the public API."""

import subprocess
import sys
from pathlib import Path

import satchel

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "torchao", "transformers", "coremltools", "onnx_ir", "gguf", "executorch", "numba")


def modules_of(part: str) -> list[str]:
    files = sorted(p.relative_to(ROOT) for p in (ROOT / part).rglob("*.py"))
    names = [".".join(("satchel", *p.with_suffix("").parts)).removesuffix(".__init__") for p in files]
    assert len(names) > 3
    return names


def test_runtime_and_devices_import_no_torch():
    names = [*modules_of("runtime"), *modules_of("devices"), "satchel.cli", "satchel"]
    code = f"import importlib, sys\nfor n in {names!r}: importlib.import_module(n)\n"
    code += f"heavy = [m for m in {HEAVY!r} if m in sys.modules]\nassert not heavy, heavy\n"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_public_api():
    assert set(satchel.__all__) == {"__version__", "export", "export_module", "load"}
    assert callable(satchel.load)
    assert callable(satchel.export)
    from satchel.export import decoder

    assert decoder.__name__ == "satchel.export.decoder"  # the package is callable and is still a package


def test_the_command_starts_quickly_and_without_the_exporters():
    code = "import sys; import satchel.cli; assert 'torch' not in sys.modules and 'onnxruntime' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_no_cycles_and_no_huge_files():
    for part in ("export", "runtime", "devices", "src/satchel/cli"):
        for path in (ROOT / part).rglob("*.py"):
            if not path.name.endswith("_pb2.py"):
                assert len(path.read_text().splitlines()) <= 420, f"{path} has grown too long"
            assert path.name != "utils.py"
