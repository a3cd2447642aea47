"""Opens a saved Core ML model (.mlpackage folder, or a bare .mlmodel file) that holds an ML Program."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from satchel.runtime.errors import FormatError
from satchel.runtime.mil import mil_pb2 as pb
from satchel.runtime.mil.blobs import BlobFile
from satchel.runtime.mil.kinds import refuse

MODEL_PATH = "@model_path/"
ZIP = b"PK\x03\x04"
SUPPORTED_VERSIONS = range(6, 11)  # iOS 15 to iOS 26
MAX_MANIFEST_BYTES = 1 << 20
MAX_PROTO_BYTES = 2**31 - 1  # protobuf's own limit


@dataclass(frozen=True)
class Package:
    """A package on disk, its proto parsed, its weight files mapped when they are first asked for.

    Attributes:
        path: of the .mlpackage or .mlmodel.
        model: the parsed proto.
        folder: what "@model_path" stands for, the folder of the .mlmodel file.
    """

    path: Path
    model: Any
    folder: Path
    _blobs: dict[str, BlobFile] = field(default_factory=dict)

    @property
    def program(self) -> Any:
        """The ML Program's proto."""
        return self.model.mlProgram

    @cached_property
    def metadata(self) -> dict[str, str]:
        """What the author wrote: the user-defined strings, and description, version, author, license."""
        found = self.model.description.metadata
        plain = {n: getattr(found, n) for n in ("shortDescription", "versionString", "author", "license")}
        return {n: v for n, v in plain.items() if v} | dict(found.userDefined)

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of the program and of the weight files where coremltools puts them."""
        files = [f for f in (self.folder / "weights").glob("*.bin") if f.is_file()]
        return self.model.ByteSize() + sum(f.stat().st_size for f in files)

    @property
    def functions(self) -> tuple[str, ...]:
        """Names of the program's functions, the default one first."""
        default = self.default_function
        return (default, *sorted(n for n in self.program.functions if n != default))

    @property
    def default_function(self) -> str:
        """The function that runs when none is named."""
        named = self.model.description.defaultFunctionName
        return named or ("main" if "main" in self.program.functions else min(self.program.functions))

    def function(self, name: str) -> Any:
        """The proto of a function; FormatError naming the known ones."""
        if name not in self.program.functions:
            raise FormatError("function of the program", got=name, wanted=list(self.functions))
        return self.program.functions[name]

    def block(self, name: str) -> Any:
        """The body of a function, as specialised for its opset."""
        function = self.function(name)
        if function.opset not in function.blockSpecializations:
            known = sorted(function.blockSpecializations)
            raise FormatError(f"body of function {name}", got=f"opset {function.opset!r}", wanted=known)
        return function.blockSpecializations[function.opset]

    def description(self, name: str) -> Any:
        """How an app sees function `name`: its features; the model's own where functions are not described apart."""
        for function in self.model.description.functions:
            if function.name == name:
                return function
        return self.model.description

    def blob_file(self, name: str) -> BlobFile:
        """The weight file that a value calls `name`, such as "@model_path/weights/weight.bin"."""
        if name not in self._blobs:
            relative = PurePosixPath(name.removeprefix(MODEL_PATH))
            if not name.startswith(MODEL_PATH) or relative.is_absolute() or ".." in relative.parts:
                raise FormatError("name of a weight file", got=name, wanted=f"{MODEL_PATH}... inside the package")
            self._blobs[name] = BlobFile(_inside(self.folder, self.folder / relative))
        return self._blobs[name]


def open_package(path: Path) -> Package:
    """Opens a .mlpackage folder or a .mlmodel file.

    Raises FormatError when it is missing, truncated, points outside itself, is not an ML Program, or is of a
    specification version that is not known here.
    """
    model_file = _model_file(path) if path.is_dir() else path
    content = _content(model_file)
    model = pb.Model()
    try:
        model.ParseFromString(content)
    except (DecodeError, RecursionError) as error:
        hint = "the file is truncated or altered: copy the package again"
        raise FormatError(f"proto in {model_file.name}", got=error, wanted="a Core ML model", hint=hint) from error
    _check_kind(model)
    return Package(path, model, model_file.parent)


def _content(model_file: Path) -> bytes:
    """The bytes of a proto; FormatError where it cannot be read, or is clearly something else."""
    wanted = "a .mlpackage folder or a .mlmodel file"
    _check_file(model_file, "Core ML model", wanted)
    try:
        size = model_file.stat().st_size
        content = model_file.read_bytes() if size <= MAX_PROTO_BYTES else b""
    except OSError as error:
        raise FormatError("Core ML model", got=error, wanted=wanted) from error
    if size > MAX_PROTO_BYTES:
        raise FormatError("Core ML model", got=f"{size} bytes", wanted=f"at most {MAX_PROTO_BYTES}")
    if content.startswith(ZIP):
        raise FormatError("Core ML model", got="a zip archive", wanted=wanted, hint="unpack it first")
    return content


def _check_kind(model: Any) -> None:
    """Raises FormatError unless the model is an ML Program of a known version."""
    kind = model.WhichOneof("type")
    if kind != "mlProgram":
        raise refuse(kind)
    if model.specificationVersion not in SUPPORTED_VERSIONS:
        wanted = f"{SUPPORTED_VERSIONS[0]} to {SUPPORTED_VERSIONS[-1]}"
        raise FormatError("specification version of the Core ML model", got=model.specificationVersion, wanted=wanted)
    if not model.mlProgram.functions:
        raise FormatError("Core ML model", got="an ML Program without functions", wanted="at least one function")


def _model_file(package: Path) -> Path:
    """The .mlmodel file that a package's manifest names as its root."""
    if (package / "model.mil").exists() or (package / "coremldata.bin").exists():
        hint = "give the .mlpackage that it was compiled from: a compiled model cannot be read back"
        raise FormatError("Core ML model", got=f"the compiled model {package.name}", wanted="a .mlpackage", hint=hint)
    manifest = package / "Manifest.json"
    _check_file(manifest, "Manifest.json of the package", "one that names a model", MAX_MANIFEST_BYTES)
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        entry = content["itemInfoEntries"][content["rootModelIdentifier"]]["path"]
        relative = PurePosixPath(entry)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError("Manifest.json of the package", got=repr(error), wanted="one that names a model") from error
    if relative.is_absolute() or ".." in relative.parts:
        raise FormatError("path in Manifest.json", got=entry, wanted="a path inside the package")
    return _inside(package, package / "Data" / relative)


def _check_file(path: Path, what: str, wanted: str, most: int | None = None) -> None:
    """FormatError unless there is a plain file, at which no reader waits, and it is not too large."""
    if not path.is_file():
        got = "something that is no plain file" if path.exists() else f"no file {path.name}"
        raise FormatError(what, got=got, wanted=wanted)
    if most is not None and path.stat().st_size > most:
        raise FormatError(what, got=f"{path.stat().st_size} bytes", wanted=f"at most {most}")


def _inside(folder: Path, path: Path) -> Path:
    """`path` with links resolved; FormatError when it then lies outside `folder`."""
    resolved = path.resolve()
    if not resolved.is_relative_to(folder.resolve()):
        raise FormatError(
            "file of the package", got=path.name, wanted="a file inside the package, not a link out of it"
        )
    return resolved
