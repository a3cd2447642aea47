"""Classes of a sound: words of command, speakers, languages, or events."""

from __future__ import annotations

from satchel.export.tasks.audio import sound_preparation, spectrogram_examples
from satchel.export.tasks.base import Built, Graph, Wrapped
from satchel.export.tasks.checkpoint import TaskCheckpoint
from satchel.export.tasks.text_classification import TOP, function
from satchel.export.tasks.waveform import waveform_graph
from satchel.runtime.module.manifest import TaskEntry
from satchel.runtime.tasks.waveform import Waveform


def build(checkpoint: TaskCheckpoint) -> Built:
    """The classifier, its labels, and what is done to a sound first."""
    how = sound_preparation(checkpoint)
    if isinstance(how.step, Waveform):
        graph = waveform_graph(checkpoint, how.step)
    else:
        names = (how.step.input,)
        graph = Graph(Wrapped(checkpoint.model, names, {"logits": "logits"}), names, spectrogram_examples(how))
    answer = {
        "step": "labels", "output": "logits", "labels": checkpoint.labels, "function": function(checkpoint), "top": TOP,
    }  # fmt: skip
    return Built({"model": graph}, TaskEntry(checkpoint.task, {"audio": how.data}, answer), how.files)
