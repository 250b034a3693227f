"""Loads a recommender's copy as a stranger does, and prints its log-odds; run as a script, in a process without this package.

    python fresh_copy.py KIND SOURCE QUESTIONS.json

KIND is cross-encoder, merged or gguf. QUESTIONS holds `answers`, the ids of yes and no, and requests: `query` and `documents` as
text, `prefix` and `suffixes` as token ids.
"""

import json
import sys
from pathlib import Path
from typing import Any


def of_cross_encoder(source: str, questions: dict[str, Any]) -> list[list[float]]:
    """Log-odds that `CrossEncoder` gives of texts."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(source)
    return [
        model.predict([(one["query"], document) for document in one["documents"]]).tolist()
        for one in questions["requests"]
    ]


def of_language_model(source: Path, questions: dict[str, Any]) -> list[list[float]]:
    """Log-odds that a plain causal language model gives of token ids. A GGUF file is read in fp32."""
    import torch
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {}
    if source.suffix == ".gguf":
        source, options = source.parent, {"gguf_file": source.name, "dtype": torch.float32}
    model = AutoModelForCausalLM.from_pretrained(source, **options).eval()
    yes, no = questions["answers"]

    def log_odds(ids: list[int]) -> float:
        with torch.no_grad():
            logits = model(torch.tensor([ids]), logits_to_keep=1).logits[0, -1].float()
        return (logits[yes] - logits[no]).item()

    return [[log_odds([*one["prefix"], *suffix]) for suffix in one["suffixes"]] for one in questions["requests"]]


if __name__ == "__main__":
    kind, source, path = sys.argv[1:]
    questions = json.loads(Path(path).read_text(encoding="utf-8"))
    found = (
        of_cross_encoder(source, questions) if kind == "cross-encoder" else of_language_model(Path(source), questions)
    )
    print(json.dumps(found))
