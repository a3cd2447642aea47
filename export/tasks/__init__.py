"""Models of Hugging Face by task: loaded through optimum's TasksManager, wrapped so that inputs and outputs are tensors
with names, traced, and exported as modules with what comes before and after as data.

To add a task: a module here with `build(checkpoint) -> Built` (text_classification.py is the shortest), and a line in
TASKS; where its answer is of a new kind, a step in runtime/tasks/ (a module, and a line in PREPARE or ANSWERS); a case
in tests/export/tasks. A task of several graphs gives several in Built.graphs, and its step of ANSWERS calls
`call.session.run_part(name, inputs)` itself.
"""

from __future__ import annotations

TASKS = {
    "feature-extraction": "satchel.export.tasks.feature_extraction",
    "sentence-similarity": "satchel.export.tasks.feature_extraction",
    "fill-mask": "satchel.export.tasks.fill_mask",
    "text-classification": "satchel.export.tasks.text_classification",
    "token-classification": "satchel.export.tasks.token_classification",
    "question-answering": "satchel.export.tasks.question_answering",
    "image-classification": "satchel.export.tasks.image_classification",
    "object-detection": "satchel.export.tasks.object_detection",
    "semantic-segmentation": "satchel.export.tasks.semantic_segmentation",
    "depth-estimation": "satchel.export.tasks.depth_estimation",
    "zero-shot-image-classification": "satchel.export.tasks.zero_shot_image_classification",
    "audio-classification": "satchel.export.tasks.audio_classification",
    "automatic-speech-recognition": "satchel.export.tasks.speech_recognition",
}
"""Task -> module with `build`."""
