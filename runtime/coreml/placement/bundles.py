"""The forecast of a Core ML bundle in short, for the device and the setting that the bundle was made for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from satchel.runtime.coreml.placement.forecast import DEFAULT_SETTING, forecast_package
from satchel.runtime.coreml.placement.tables import percent
from satchel.runtime.coreml.placement.units import SETTINGS
from satchel.runtime.errors import DeviceError, UsageError

TARGET = "target"


def forecast_bundle(folder: Path, paths: Iterable[str], compute: str, device: str) -> Iterator[dict[str, Any]]:
    """A row for each function of each package of a bundle.

    Args:
        folder: of the bundle.
        paths: of the packages in it.
        compute: the setting, such as "cpuAndNeuralEngine".
        device: that it is for; where no such profile is known here, the system that the package was made for counts.

    Raises FormatError where a package is not readable.
    """
    setting = compute if compute in SETTINGS else DEFAULT_SETTING
    for path in paths:
        try:
            found = forecast_package(folder / path, device, setting)
        except (DeviceError, UsageError):
            found = forecast_package(folder / path, None, setting)
        for function in found.functions:
            sums, placement = function.sums[setting], function.placements[setting]
            yield {
                "package": path,
                "function": function.name,
                "target": found.target.name or "any device",
                "compute_units": setting,
                "ops": len(function.ops),
                "off_engine": len(function.ops) - sums.ops["engine"],
                "arithmetic_on_engine": percent(sums, "macs"),
                "weights_on_engine": percent(sums, "weight_bytes"),
                "crossings": len(placement.crossings),
            }
