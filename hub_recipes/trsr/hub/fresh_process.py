"""Loads a release as a stranger does, and prints what it answers; run as a script, in a process without this package.

    python fresh_process.py PIPELINE REQUESTS.json OPTIONS.json

REQUESTS holds requests by what is asked of them. `compared`: log-odds of the candidates, in their order. `shown`: one request,
answered whole. `chosen`: one without candidates; None where there is no catalogue. `measured`: what `measure` gives. `summarised`:
summaries. OPTIONS are for `transformers.pipeline`. It imports transformers alone; the recommender's own code is that of the release.
"""

import json
import sys
from pathlib import Path
from typing import Any


def answers(recommender, requests: dict[str, Any]) -> dict[str, Any]:
    """What REQUESTS ask for, the precision of the weights, and what was fitted: `temperature`, `bias`, `weight` of a catalogue."""
    output: dict[str, Any] = {"dtype": str(recommender.model.dtype).removeprefix("torch.")}
    settings = getattr(recommender.model.config, "trsr", None) or {}
    catalogue = recommender.catalogue
    output["fitted"] = {
        "temperature": settings.get("temperature") or 1.0,
        "bias": settings.get("bias") or 0.0,
        "weight": catalogue.record["weight"] if catalogue else None,
    }
    if "compared" in requests:
        output["compared"] = [in_order(answer) for answer in recommender(requests["compared"])]
    if "shown" in requests:
        output["shown"] = recommender(requests["shown"], return_summary=True)
    if "chosen" in requests:
        output["chosen"] = recommender(requests["chosen"]) if catalogue else None
    if "measured" in requests:
        others = [request.get("summary") for request in requests["measured"]]
        output["measured"] = [
            measure(recommender, request, others[number - 1]) for number, request in enumerate(requests["measured"])
        ]
    if "summarised" in requests:
        output["summarised"] = [written(recommender, request) for request in requests["summarised"]]
    return output


def in_order(answer: dict[str, Any]) -> list[float]:
    """Log-odds of an answer's candidates, in the order of the request."""
    return [
        candidate["log_odds"] for candidate in sorted(answer["candidates"], key=lambda candidate: candidate["index"])
    ]


def written(recommender, request: dict[str, Any]) -> str | None:
    """The summary that the recommender writes of a request's history."""
    without = {"history": request["history"], "candidates": []}
    return recommender(without, return_summary=True)["summary"]


def measure(recommender, request: dict[str, Any], other_summary: str | None) -> dict[str, Any]:
    """Token ids of a request's prompts, their log-odds, and the log-odds that usual mistakes in loading would give.

    Args:
        other_summary: Of another user.

    Returns:
        `prefix` and `suffixes` (ids), `text` (both as text; None where text would give other ids), `log_odds`, and
        `if_wrong`: mistake -> log-odds.
    """
    encoder, model = recommender.encoder, recommender.model
    read = recommender.preprocess(request)
    history, summary = read["history"], read["summary"]
    suffixes = [encoder.suffix_ids(item) for item in read["candidates"]]
    longest = max(map(len, suffixes))

    def prefix(summary: str | None, history: list, encoder=encoder) -> list[int]:
        return encoder.prefix_ids(summary, history, longest).ids

    def score(prefix: list[int], suffixes: list[list[int]] = suffixes) -> list[float]:
        return [round(value, 6) for value in recommender.scorer.log_odds(prefix, suffixes).tolist()]

    ids = prefix(summary, history)
    wrong: dict[str, list[float]] = {}
    if getattr(model, "_hf_peft_config_loaded", False):
        # The release's own, for that of transformers asks for a newer peft.
        with sys.modules[type(recommender).__module__].using_adapter(model, None):
            wrong["the adapter is missing: the base answers alone"] = score(ids)
    tokenizer = recommender.tokenizer
    if tokenizer.chat_template:
        other = type(encoder)(tokenizer, encoder.prompt, encoder.limit, chat=not encoder.chat)
        name = "the chat template is missing" if encoder.chat else "a chat template is used, where training had none"
        wrong[name] = score(prefix(summary, history, other), [other.suffix_ids(item) for item in read["candidates"]])
    line_end = encoder.text_ids("\n")
    wrong["a line break follows the prompt"] = score(ids, [[*suffix, *line_end] for suffix in suffixes])
    if tokenizer.bos_token_id is not None:
        name = "the BOS token stands twice" if ids[0] == tokenizer.bos_token_id else "a BOS token is put in front"
        wrong[name] = score([tokenizer.bos_token_id, *ids])
    if history:
        wrong["the recent items are missing"] = score(prefix(summary, []))
        shown = recommender.encoder.prompt.recent_items
        if shown > 1 and len(history) > 1:
            wrong["the recent items are in the wrong order"] = score(prefix(summary, history[-shown:][::-1]))
    if summary:
        wrong["the summary is missing"] = score(prefix(None, history))
        if other_summary and other_summary != summary:
            wrong["the summary is another user's"] = score(prefix(other_summary, history))
    wrong["the prompt is cut from the left, to half"] = score(ids[len(ids) // 2 :])
    texts = [tokenizer.decode(part) for part in (ids, *suffixes)]
    same = all(
        tokenizer.encode(texts[0] + text, add_special_tokens=False) == [*ids, *suffix]
        for text, suffix in zip(texts[1:], suffixes, strict=True)
    )
    return {
        "prefix": ids,
        "suffixes": suffixes,
        "text": {"prefix": texts[0], "suffixes": texts[1:]} if same else None,
        "log_odds": score(ids),
        "if_wrong": wrong,
    }


if __name__ == "__main__":
    from transformers import pipeline

    source, requests, options = (
        sys.argv[1],
        *(json.loads(Path(path).read_text(encoding="utf-8")) for path in sys.argv[2:]),
    )
    loaded = pipeline("text-rich-recommendation", model=source, trust_remote_code=True, **options)  # type: ignore[call-overload]
    print(json.dumps(answers(loaded, requests)))
