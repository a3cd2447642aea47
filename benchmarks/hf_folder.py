"""SmolLM2 as a Hugging Face folder in fp32, which the other exporters need.  usage: hf_folder.py OUT"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from satchel.export.huggingface import quiet
from satchel.export.reference import Reference
from satchel.export.source import resolve


def main() -> None:
    """Saves weights, tokenizer and configuration; rope_theta in both spellings, since older exporters know one only."""
    out, source = Path(sys.argv[1]), resolve("smollm2")
    with quiet() as transformers, Reference(source) as reference:
        config = reference.model.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config
        model = transformers.LlamaForCausalLM(config)
        model.load_state_dict(reference.model.state_dict())
        model.save_pretrained(out)
        transformers.AutoTokenizer.from_pretrained(source.path.parent, gguf_file=source.path.name).save_pretrained(out)
    path = out / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"rope_theta": values["rope_parameters"]["rope_theta"]}))


if __name__ == "__main__":
    main()
