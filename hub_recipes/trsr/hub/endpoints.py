"""Ask servers for log-odds of yes: one request builder for each kind of endpoint, from the token ids in `expected.json`.

`systemone` is that of decision models (transformers serve), `generative_scoring` vLLM's, `score` SGLang's, `completion` llama.cpp's
own, and `completions` OpenAI's older one, which all of them have. Ids are sent wherever the endpoint takes them: then no
template and no BOS can be added on the way.
"""

import ipaddress
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from trsr.core.history import newest
from trsr.errors import HubError
from trsr.report.redaction import address, redacted
from trsr.server_key import server_key

LIKELIEST = 20  # tokens of which `completions` gives probabilities
SECONDS = 120.0  # until a request is given up
SMALLEST = 1e-7  # probability: beyond it, and beyond 1 less it, one in fp32 says no more
_LIFT = 100.0  # logits


@dataclass(frozen=True, slots=True)
class Reply:
    """Answers to one request: log-odds of its candidates, and how many tokens each prompt had, where the server says so."""

    log_odds: list[float]
    tokens: list[int | None]


Post = Callable[[str, Mapping[str, Any]], Any]  # path, body -> the answer's JSON
Ask = Callable[[Post, str, Mapping[str, Any], Mapping[str, Any]], Reply]


def ask(api: str, url: str, model: str, expected: Mapping[str, Any]) -> list[Reply]:
    """Answers of a server to the requests of `expected.json`.

    Args:
        api: One of APIS.
        url: Of the server, without the path of the endpoint. A key is read from OPENAI_API_KEY, see `may_have_key`.
        model: As the server calls it.

    Raises:
        HubError: If the server cannot be reached, refuses, or answers otherwise than documented.
        UsageError: If no header can hold the key, and the server would be sent it.
    """
    import httpx

    trusted = may_have_key(url)
    key = server_key() if trusted else ""
    kept_back = not trusted and bool(os.environ.get("OPENAI_API_KEY"))
    root = url.rstrip("/").removesuffix("/v1")
    shown = address(root)
    # Of this machine, no proxy of the environment is asked: the key would go there.
    direct = dict.fromkeys(("http://", "https://", "all://")) if is_this_machine(url) else None
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(timeout=SECONDS, headers=headers, mounts=direct) as client:

        def post(path: str, body: Mapping[str, Any]) -> Any:
            try:
                answer = client.post(root + path, json=dict(body))
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise HubError(f"{shown} does not answer: {type(error).__name__}.") from None
            if answer.status_code != 200:
                said = redacted(answer.text, key, longest=200)
                without_key = (
                    " OPENAI_API_KEY was not sent: over plain http a key goes to this machine alone. Give an https address, or "
                    "forward a port of this machine to the server."
                )
                hint = without_key if answer.status_code in (401, 403) and kept_back else ""
                raise HubError(f"{shown}{path} refuses with {answer.status_code}: {said}{hint}")
            try:
                return answer.json()
            except ValueError:
                raise HubError(f"{shown}{path} answers with no JSON. Is {shown} the server's address?") from None

        try:
            replies = [APIS[api](post, model, expected, request) for request in expected["requests"]]
            for reply, request in zip(replies, expected["requests"], strict=True):
                if len(reply.log_odds) != len(request["suffixes"]):
                    raise IndexError(f"{len(reply.log_odds)} answers for {len(request['suffixes'])} candidates")
            return replies
        except HubError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise HubError(
                f"{shown} answers otherwise than an endpoint of the kind {api} ({type(error).__name__}: "
                f"{redacted(str(error), key, longest=200)}). Choose another --api."
            ) from None


def may_have_key(url: str) -> bool:
    """Whether a server may be sent the key: over https, or on this machine."""
    try:
        scheme = urlsplit(url).scheme
    except ValueError:  # no address at all
        return False
    return scheme == "https" or is_this_machine(url)


def is_this_machine(url: str) -> bool:
    """Whether the host of an address is a name or address of this machine itself."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:  # no address at all
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def decision(expected: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """A request as decision models take it: a state, and a question for each candidate, named by its number."""
    state = {"summary": request.get("summary"), "recent_items": newest(request["history"], expected["recent_items"])}
    questions = {
        str(number): {"type": "noul", "instructions": text} for number, text in enumerate(request["candidates"])
    }
    return {"state": state, "questions": questions}


def _systemone(post: Post, model: str, expected: Mapping[str, Any], request: Mapping[str, Any]) -> Reply:
    reply = post("/v1/systemone", {"model": model, **decision(expected, request["request"])})
    chances = [reply["answers"][str(number)]["noul"] for number in range(len(request["suffixes"]))]
    odds = [_log_odds(chance) * expected["temperature"] for chance in chances]
    total = reply.get("usage", {}).get("input_tokens")
    # The server gives the sum alone: it is right, or it is not known whose tokens are too many.
    wanted = [len(request["prefix"]) + len(suffix) for suffix in request["suffixes"]]
    gap = None if total is None else total - sum(wanted)
    each = [None if gap is None or gap % len(wanted) else size + gap // len(wanted) for size in wanted]
    return Reply(odds, each)


def _generative_scoring(post: Post, model: str, expected: Mapping[str, Any], request: Mapping[str, Any]) -> Reply:
    reply = post("/generative_scoring", {**_labelled(model, expected, request), "add_special_tokens": False})
    scores = {row["index"]: row["score"] for row in reply["data"]}
    return Reply(
        [_log_odds(scores[number]) for number in range(len(request["suffixes"]))], [None] * len(request["suffixes"])
    )


def _score(post: Post, model: str, expected: Mapping[str, Any], request: Mapping[str, Any]) -> Reply:
    reply = post("/v1/score", _labelled(model, expected, request))
    return Reply([_log_odds(row[0]) for row in reply["scores"]], [None] * len(request["suffixes"]))


def _labelled(model: str, expected: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """What vLLM and SGLang take for the probability of the first of two tokens behind each item."""
    labels = [expected["answers"][name]["id"] for name in ("yes", "no")]
    body = {"model": model, "query": request["prefix"], "items": request["suffixes"], "label_token_ids": labels}
    return {**body, "apply_softmax": True, "item_first": False}


def _completion(post: Post, model: str, expected: Mapping[str, Any], request: Mapping[str, Any]) -> Reply:
    ids = [expected["answers"][name]["id"] for name in ("yes", "no")]
    # Both answers are lifted above all other tokens, by as much: training raises one above the other, not both above the rest.
    lifted = {"logit_bias": [[token, _LIFT] for token in ids], "n_probs": 2, "post_sampling_probs": True}
    plain = {"temperature": 1.0, "samplers": ["temperature"]}
    odds: list[float] = []
    tokens: list[int | None] = []
    for suffix in request["suffixes"]:
        body = {"prompt": [*request["prefix"], *suffix], "n_predict": 1, "cache_prompt": True, **lifted, **plain}
        reply = post("/completion", body)
        chance = {token["id"]: token["prob"] for token in reply["completion_probabilities"][0]["top_probs"]}
        yes, no = (chance.get(token, 0.0) for token in ids)  # what is rounded to nothing may be left out
        if not yes + no:
            raise HubError(f"The tokens {ids} get no probability although they were asked for: another model answers.")
        odds.append(_log_odds(yes / (yes + no)))
        tokens.append(reply.get("tokens_evaluated"))
    return Reply(odds, tokens)


def _completions(post: Post, model: str, expected: Mapping[str, Any], request: Mapping[str, Any]) -> Reply:
    words = {name: expected["answers"][name]["text"] for name in ("yes", "no")}
    text = request["text"]
    odds: list[float] = []
    tokens: list[int | None] = []
    for number, suffix in enumerate(request["suffixes"]):
        prompt = text["prefix"] + text["suffixes"][number] if text else [*request["prefix"], *suffix]
        body = {"model": model, "prompt": prompt, "max_tokens": 1, "logprobs": LIKELIEST, "temperature": 0.0}
        reply = post("/v1/completions", body)
        logprobs = reply["choices"][0]["logprobs"]
        if "top_logprobs" in logprobs:
            likeliest = logprobs["top_logprobs"][0]
        else:  # llama.cpp's, which are those of chat completions
            likeliest = {token["token"]: token["logprob"] for token in logprobs["content"][0]["top_logprobs"]}
        odds.append(_difference(likeliest, words["yes"], words["no"], LIKELIEST))
        tokens.append(reply.get("usage", {}).get("prompt_tokens"))
    return Reply(odds, tokens)


def _log_odds(probability: float) -> float:
    bounded = min(max(float(probability), SMALLEST), 1 - SMALLEST)
    return math.log(bounded / (1 - bounded))


def _difference(likeliest: Mapping[Any, float], yes: Any, no: Any, count: int) -> float:
    """Log-odds from log probabilities of the likeliest tokens."""
    if missing := [word for word in (yes, no) if word not in likeliest]:
        raise HubError(
            f"{missing[0]!r} is not among the {count} likeliest tokens after the prompt (they are "
            f"{', '.join(repr(word) for word in list(likeliest)[:3])}, ...): another model, adapter or template answers, or training raised "
            "one answer above the other, and not both above all other tokens. Choose another --api."
        )
    return likeliest[yes] - likeliest[no]


def temperature_of(api: str, expected: Mapping[str, Any]) -> float | None:
    """What log-odds are divided by before a server makes the probabilities that it answers with; None where it gives logarithms."""
    if api == "completions":
        return None
    return float(expected["temperature"]) if api == "systemone" else 1.0


APIS: dict[str, Ask] = {
    "systemone": _systemone,
    "generative_scoring": _generative_scoring,
    "score": _score,
    "completion": _completion,
    "completions": _completions,
}
