"""Loads a recommender as a stranger does, and prints its log-odds; run as a script, in a process without this package.

    python fresh_copy.py KIND SOURCE QUESTIONS.json

KIND is one of KINDS. QUESTIONS holds `answers`, the ids of yes and no, the `temperature` of decision files, and requests: `query`
and `documents` as text, `prefix` and `suffixes` as token ids, `decision`, as decision models take it, and the `request` itself.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any


def of_cross_encoder(source: str, questions: dict[str, Any]) -> list[list[float]]:
    """Log-odds that `CrossEncoder` gives of texts."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(source)
    return [
        model.predict([(question["query"], document) for document in question["documents"]]).tolist()
        for question in questions["requests"]
    ]


def of_pipeline(source: str, questions: dict[str, Any]) -> list[list[float]]:
    """Log-odds that the release's own pipeline gives, whose code is executed."""
    from transformers import pipeline

    recommender = pipeline("text-rich-recommendation", model=source, trust_remote_code=True)  # type: ignore[call-overload]
    lists = [recommender(question["request"])["candidates"] for question in questions["requests"]]
    return [
        [candidate["log_odds"] for candidate in sorted(some, key=lambda candidate: candidate["index"])]
        for some in lists
    ]


def of_adapter(source: str, questions: dict[str, Any]) -> list[list[float]]:
    """Log-odds of token ids that peft gives of an adapter on the base that it names."""
    from peft import AutoPeftModelForCausalLM

    return _log_odds(AutoPeftModelForCausalLM.from_pretrained(source), questions)


def of_language_model(source: str, questions: dict[str, Any]) -> list[list[float]]:
    """Log-odds of token ids that a plain causal language model gives. A GGUF file is read in fp32."""
    import torch
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {}
    if source.endswith(".gguf"):
        path = Path(source)
        source, options = str(path.parent), {"gguf_file": path.name, "dtype": torch.float32}
    return _log_odds(AutoModelForCausalLM.from_pretrained(source, **options), questions)


def of_decision_model(source: str, questions: dict[str, Any]) -> list[list[float]]:
    """Log-odds of the probabilities that transformers' decision pipeline gives, with the decision files of `source`."""
    from transformers import pipeline

    decide = pipeline("decision", model=source, decision_config=source)
    decisions = [decide(question["decision"]) for question in questions["requests"]]
    chances = [[answers[str(number)]["noul"] for number in range(len(answers))] for answers in decisions]
    return [[_log_odds_of(chance) * questions["temperature"] for chance in some] for some in chances]


def _log_odds_of(probability: float) -> float:
    """Of a probability in fp32, which may have been rounded to 0 or 1."""
    bounded = min(max(probability, 1e-7), 1 - 1e-7)
    return math.log(bounded) - math.log1p(-bounded)


def _log_odds(model, questions: dict[str, Any]) -> list[list[float]]:
    import torch

    model.eval()
    yes, no = questions["answers"]

    def log_odds(ids: list[int]) -> float:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), logits_to_keep=1).logits[0, -1].float()
        return (logits[yes] - logits[no]).item()

    return [
        [log_odds([*question["prefix"], *suffix]) for suffix in question["suffixes"]]
        for question in questions["requests"]
    ]


KINDS = {
    "cross-encoder": of_cross_encoder,
    "pipeline": of_pipeline,
    "adapter": of_adapter,
    "decision": of_decision_model,
    "merged": of_language_model,
    "gguf": of_language_model,
}

if __name__ == "__main__":
    kind, source, path = sys.argv[1:]
    print(json.dumps(KINDS[kind](source, json.loads(Path(path).read_text(encoding="utf-8")))))
