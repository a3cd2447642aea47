"""Fits the constants of speed to the published figures, and shows how far the forecast is from each.

    python -m satchel.devices.forecast.calibrate

Three constants stand against five figures: the CPU's efficiency and overhead a layer against four, the GPU's efficiency
against one (which it therefore meets). One more, the CPU's efficiency in computing, is fitted to one prefill. Every
other figure is held out. Leaving one figure out and forecasting it shows what the fit is worth. The table goes into
docs/forecast.md by hand; a test holds constants.toml against the fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from satchel.devices.forecast.constants import constant
from satchel.devices.forecast.published import Figure, forecast_of, machine_of, published, work_of
from satchel.devices.forecast.speed import Speed

EFFICIENCIES = tuple(i / 200 for i in range(60, 200))
OVERHEADS = tuple(i * 5e-6 for i in range(31))


@dataclass(frozen=True)
class Fit:
    """What was fitted.

    Attributes:
        efficiency: of the published bandwidth.
        overhead: seconds a layer.
        error: root of the mean squared logarithm of forecast over published.
    """

    efficiency: float
    overhead: float
    error: float


def of_cpus() -> list[Figure]:
    """Those that the CPU's constants are fitted to."""
    return [f for f in published() if f.fitted == "yes" and f.runtime == "xnnpack"]


def fit_cpu(figures: Sequence[Figure]) -> Fit:
    """Least squares of logarithms over a grid: 0.005 of the bandwidth, 5 us a layer."""
    works = [(work_of(f), machine_of(f).bandwidth, f.decode) for f in figures]

    def error(efficiency: float, overhead: float) -> float:
        logs = [math.log((w.bytes / (b * efficiency) + w.layers * overhead) * decode) for w, b, decode in works]
        return math.sqrt(sum(x * x for x in logs) / len(logs))

    best = min((error(e, o), e, o) for e in EFFICIENCIES for o in OVERHEADS)
    return Fit(best[1], best[2], best[0])


def left_out() -> list[tuple[Figure, Fit, float]]:
    """For each figure of a CPU: the fit to the others, and forecast over published by it."""
    found = []
    for figure in of_cpus():
        fit = fit_cpu([f for f in of_cpus() if f != figure])
        work = work_of(figure)
        seconds = work.bytes / (machine_of(figure).bandwidth * fit.efficiency) + work.layers * fit.overhead
        found.append((figure, fit, 1 / seconds / figure.decode))
    return found


def fit_gpu() -> float:
    """The efficiency that meets the one figure of a GPU."""
    figure = next(f for f in published() if f.runtime == "coreml-gpu")
    work = work_of(figure)
    return (
        work.bytes / machine_of(figure).bandwidth / (1 / figure.decode - work.layers * constant("gpu.overhead_s").value)
    )


def fit_compute() -> float:
    """The efficiency in computing that meets the one prefill that is fitted."""
    figure = next(f for f in published() if f.fitted == "yes" and f.prefill)
    work = work_of(figure, prompt=figure.prompt)
    seconds = figure.prompt / figure.prefill - work.layers * constant("cpu.overhead_s").value
    return work.operations / machine_of(figure).throughput / seconds


@dataclass(frozen=True)
class Row:
    """One speed, published and forecast."""

    figure: Figure
    what: str
    published: float
    speed: Speed

    @property
    def ratio(self) -> float:
        """Forecast over published."""
        return self.speed.value / self.published

    @property
    def within(self) -> bool:
        """Whether the published speed is in the forecast's range; of a lower bound, whether the range reaches it."""
        bounded = self.figure.at_least == "yes" and self.what == "decode"
        return self.published <= self.speed.high and (bounded or self.published >= self.speed.low)


def rows() -> list[Row]:
    """Every published speed."""
    found = []
    for figure in published():
        decode, prefill = forecast_of(figure)
        found.append(Row(figure, "decode", figure.decode, decode))
        if prefill is not None:
            found.append(Row(figure, "prefill", figure.prefill, prefill))
    return found


def main() -> None:
    """Prints the fits and the residuals as Markdown."""
    fit = fit_cpu(of_cpus())
    print(f"CPU: {fit.efficiency:.3f} of the bandwidth, {fit.overhead * 1e6:.0f} us a layer, error {fit.error:.2f}")
    print(f"CPU, computing: {fit_compute():.3f} of the peak; GPU: {fit_gpu():.3f} of the bandwidth\n")
    print("| figure | what | fitted | published tok/s | forecast | range | forecast / published | in range |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows():
        more = ">" if row.figure.at_least == "yes" else ""
        told = f"{row.figure.fitted} | {more}{row.published:g} | {row.speed.value:.1f}"
        spread = f"{row.speed.low:.1f} to {row.speed.high:.1f} | {row.ratio:.2f} | {'yes' if row.within else 'no'}"
        print(f"| {row.figure.name} | {row.what} | {told} | {spread} |")
    print("\n| left out | efficiency | us a layer | forecast / published |\n|---|---|---|---|")
    for figure, other, ratio in left_out():
        print(f"| {figure.name} | {other.efficiency:.3f} | {other.overhead * 1e6:.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
