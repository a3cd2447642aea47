"""Calls a Core ML package through the interpreter, by the convention of export/formats/coreml.py and nothing else.

Written apart from the backend, so that the two are two readings of the same convention.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from satchel.devices.plan import Choice, Plan
from satchel.runtime.manifest import ModelEntry, ModelInfo
from satchel.runtime.mil.program import load


class Caller:
    """Holds the cache and the position."""

    def __init__(self, folder: Path, entry: ModelEntry, precision: str = "fp32") -> None:
        self.entry, self.precision = entry, precision
        self.program = load(folder / entry.path)
        self.functions = entry.options["functions"]
        self.state = self.program.make_state() if entry.states else None
        self.caches = {s.name: np.zeros(s.shape, s.dtype) for s in entry.inputs if s.name.endswith("Cache")}
        self.position = 0

    def prefill(self, ids: np.ndarray) -> np.ndarray:
        """Logits [len(ids), vocab], by calls of prefill_length, the last one padded."""
        step, rows = self.entry.prefill_length, []
        for start in range(0, len(ids), step):
            rows.append(self._call("prefill", ids[start : start + step], step))
        return np.concatenate(rows)

    def decode(self, ids: np.ndarray) -> np.ndarray:
        """Logits [len(ids), vocab], a token at a time."""
        return np.concatenate([self._call("decode", ids[i : i + 1], 1) for i in range(len(ids))])

    def _call(self, role: str, ids: np.ndarray, length: int) -> np.ndarray:
        padded = np.full((1, length), 3, np.int32)
        padded[0, : len(ids)] = ids
        inputs = {"inputIds": padded, "position": np.array([self.position], np.int32), **self.caches}
        out = self.program.run(inputs, self.functions[role], self.state, self.precision)
        place = slice(self.position, self.position + len(ids))
        for kind in ("Key", "Value") if self.caches else ():
            self.caches[f"{kind.lower()}Cache"][:, :, place] = out[f"present{kind}s"][:, :, : len(ids)]
        self.position += len(ids)
        return out["logits"][0, : len(ids)].astype(np.float32)


def coreml_plan(*, context: int = 64, prefill: int = 8, **roles: str) -> Plan:
    """A plan for Core ML with any role replaced: iOS18, engine layout, states, a head of 4 parts."""
    defaults = {
        "weights": "palette",
        "target": "iOS18",
        "layout": "channels_first",
        "attention": "per_head",
        "cache": "state",
        "lm_head": "split4",
        "tied_head": "shared",
        "compute": "cpuAndNeuralEngine",
    }
    if roles.get("target", "iOS18") != "iOS18":
        defaults["cache"] = "io"
    choices = tuple(Choice(role, value, "", "") for role, value in (defaults | roles).items())
    return Plan("a device", "coreml", context, prefill, choices)


INFO = ModelInfo("someone/tiny", "llama", "Someone", "apache-2.0", "", "safetensors sha256:0", 1)
