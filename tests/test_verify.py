"""`expected.json` and `trsr verify`: real servers over a real model, right and with a fault planted in each."""

import copy
import json
import math
import random
import re
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, pipeline

from tests.conftest import ROOT
from tests.hub import environment
from trsr.assets.paths import NANO, TASK
from trsr.cli import main
from trsr.core.modeling import RANKER, load_adapter
from trsr.core.scoring import Scorer
from trsr.errors import HubError, ReleaseError, UsageError
from trsr.hub import endpoints, expected, fresh_copy, fresh_process
from trsr.hub.diagnosis import HALF, diagnose, is_rounding
from trsr.hub.inputs import ReleaseInputs
from trsr.hub.rehearsal import rehearse
from trsr.hub.release import assemble
from trsr.hub.verify import verify


@pytest.fixture(scope="module")
def recommender():
    return pipeline(TASK, device="cpu")


@pytest.fixture(scope="module")
def known(recommender):
    """Content of an expected.json, as a release of the nano recommender would have it."""
    encoder = recommender.encoder
    output = fresh_process.answers(recommender, {"measured": list(expected.MADE_UP)})
    return {
        "made_from": {"dtype": output["dtype"]},
        "answers": {"yes": _answer(encoder, encoder.yes_id), "no": _answer(encoder, encoder.no_id)},
        "temperature": 1.5,
        "bias": 0.0,
        "recent_items": encoder.prompt.recent_items,
        "requests": [
            {"request": request, "summary": None, **measured}
            for request, measured in zip(expected.MADE_UP, output["measured"], strict=True)
        ],
    }


def _answer(encoder, token):
    return {"id": token, "text": encoder.tokenizer.decode([token])}


@pytest.fixture
def file(known, tmp_path):
    path = tmp_path / "expected.json"
    path.write_text(json.dumps(known), encoding="utf-8")
    return str(path)


def copied(recommender):
    """The nano recommender once more, whose weights a test may change."""
    model = AutoModelForCausalLM.from_pretrained(NANO / "base")
    load_adapter(model, RANKER, str(NANO / "adapter"), {})
    return Scorer(model.eval(), recommender.encoder.yes_id, recommender.encoder.no_id)


class Engine:
    """A server's inside: takes token ids, gives log-odds. Each fault is planted here or in the ids."""

    def __init__(self, recommender):
        self.scorer = recommender.scorer
        self.change_ids = lambda query, items: (query, items)
        self.change_odds = lambda odds: odds
        self.as_llama_cpp = False  # log probabilities of /v1/completions in the form of its own

    def log_odds(self, query, items):
        with torch.no_grad():
            return self.change_odds(self.scorer.log_odds(*self.change_ids(query, items)).tolist())


def probability(odds):
    return 1 / (1 + math.exp(-odds))


@contextmanager
def served(engine, known):
    """The endpoints of vLLM, SGLang and llama.cpp over an engine, as they are documented."""
    yes, no = (known["answers"][name] for name in ("yes", "no"))

    def completion(ids):
        (odds,) = engine.log_odds(ids[:-1], [ids[-1:]])
        return {yes["id"]: math.log(probability(odds)), no["id"]: math.log(probability(-odds))}

    def answer(path, body):
        if path in ("/generative_scoring", "/v1/score"):
            assert body["label_token_ids"] == [yes["id"], no["id"]]
            odds = engine.log_odds(body["query"], body["items"])
            if path == "/v1/score":
                return {"scores": [[probability(one), probability(-one)] for one in odds]}
            # Not in the order of the request: the index says which is which.
            return {"data": [{"index": n, "score": probability(one)} for n, one in reversed(list(enumerate(odds)))]}
        if path == "/completion":
            assert body["post_sampling_probs"]
            assert body["samplers"] == ["temperature"]
            found = {
                token: value + dict(body["logit_bias"])[token] for token, value in completion(body["prompt"]).items()
            }
            assert body["temperature"] == 1
            whole = sum(math.exp(value - max(found.values())) for value in found.values())  # all else is nothing beside
            likeliest = [
                {"id": token, "prob": math.exp(value - max(found.values())) / whole} for token, value in found.items()
            ]
            return {"completion_probabilities": [{"top_probs": likeliest}], "tokens_evaluated": len(body["prompt"])}
        if path == "/v1/completions":
            found = completion(body["prompt"])
            likeliest = {yes["text"]: found[yes["id"]], no["text"]: found[no["id"]]}
            logprobs = {"top_logprobs": [likeliest]}
            if engine.as_llama_cpp:
                each = [{"token": text, "logprob": value} for text, value in likeliest.items()]
                logprobs = {"content": [{**each[0], "top_logprobs": each}]}
            return {"choices": [{"logprobs": logprobs}], "usage": {"prompt_tokens": len(body["prompt"])}}
        return None

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = answer(self.path, body)
            text = json.dumps(found).encode()
            self.send_response(200 if found is not None else 404)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("api", ["generative_scoring", "score", "completion", "completions"])
def test_a_server_that_is_right(recommender, known, file, api):
    ids_only = copy.deepcopy(known)
    for one in ids_only["requests"]:
        one["text"] = None  # as for a tokenizer whose text would give other ids
    with open(file, "w", encoding="utf-8") as out:
        json.dump(ids_only, out)
    with served(Engine(recommender), known) as url:
        found = verify(url, known=file, api=api, model="any")
    assert found["right"], found["said"]
    assert found["difference"] < 1e-3


def test_llama_cpp_gives_log_probabilities_of_completions_as_those_of_chat(recommender, known):
    engine = Engine(recommender)
    engine.as_llama_cpp = True
    for one in (ids_only := copy.deepcopy(known))["requests"]:
        one["text"] = None
    with served(engine, known) as url:
        replies = endpoints.ask("completions", url, "any", ids_only)
    for reply, one in zip(replies, known["requests"], strict=True):
        assert reply.log_odds == pytest.approx(one["log_odds"], abs=1e-3)


def test_a_server_without_the_tokens_of_the_answers(known):
    def post(path, body):
        return {"completion_probabilities": [{"top_probs": [{"id": 0, "prob": 1.0}]}]}

    with pytest.raises(HubError, match=r"get no probability although they were asked for"):
        endpoints.APIS["completion"](post, "any", known, known["requests"][0])


def test_a_decision_model_is_told_all_items_of_a_short_history(known):
    request = {"history": ["a", "b", "c", "d"], "candidates": ["x"]}
    shown = {
        count: endpoints.decision({"recent_items": count}, request)["state"]["recent_items"] for count in (0, 3, 5, 9)
    }
    assert shown == {0: [], 3: ["b", "c", "d"], 5: ["a", "b", "c", "d"], 9: ["a", "b", "c", "d"]}


def without_adapter(engine, recommender, known):
    model = AutoModelForCausalLM.from_pretrained(NANO / "base").eval()
    engine.scorer = Scorer(model, recommender.encoder.yes_id, recommender.encoder.no_id)


def another_template(engine, recommender, known):
    line_end = recommender.encoder.text_ids("\n")
    engine.change_ids = lambda query, items: (query, [[*item, *line_end] for item in items])


def doubled_bos(engine, recommender, known):
    bos = recommender.tokenizer.bos_token_id
    engine.change_ids = lambda query, items: ([bos, *query], items)


def swapped(engine, recommender, known):
    engine.change_odds = lambda odds: [-one for one in odds]


def another_revision(engine, recommender, known):
    engine.scorer = copied(recommender)
    for name, weight in engine.scorer.model.named_parameters():
        if "lora_B" in name:
            weight.data *= -4  # what it learnt, it learnt the other way round


def quantised(engine, recommender, known):
    engine.scorer = copied(recommender)
    for weight in engine.scorer.model.parameters():
        if weight.ndim == 2:
            step = weight.data.abs().amax(1, keepdim=True) / 127
            weight.data = (weight.data / step.clamp(min=1e-9)).round() * step


def cut(engine, recommender, known):
    engine.change_ids = lambda query, items: (query[len(query) // 2 :], items)


def other_summary(engine, recommender, known):
    encoder = recommender.encoder
    others = {}
    for number, one in enumerate(known["requests"]):
        read = recommender.preprocess(one["request"])
        summary = known["requests"][number - 1]["request"]["summary"]
        others[tuple(one["prefix"])] = encoder.prefix_ids(summary, read["history"], 0).ids
    engine.change_ids = lambda query, items: (others[tuple(query)], items)


def wrong_base(engine, recommender, known):
    engine.scorer = copied(recommender)
    generator = torch.Generator().manual_seed(1)
    for weight in engine.scorer.model.parameters():
        if weight.ndim == 2:
            weight.data = weight.data.std() * torch.randn(weight.shape, generator=generator)


def sampled(engine, recommender, known):
    draw = random.Random(0)
    engine.change_odds = lambda odds: [14.0 if draw.random() < probability(one) else -14.0 for one in odds]


FAULTS = [
    (without_adapter, "the adapter is missing"),
    (another_template, "a line break follows the prompt"),
    (doubled_bos, "BOS"),
    (swapped, "yes and no are swapped"),
    (another_revision, "weights of another revision"),
    (quantised, "quantised"),
    (cut, "cut from the left"),
    (other_summary, "the summary is another user's"),
    (wrong_base, "another base"),
    (sampled, "sampled"),
]


@pytest.mark.parametrize(("plant", "named"), FAULTS, ids=lambda one: getattr(one, "__name__", ""))
def test_ten_planted_faults_are_named(recommender, known, file, plant, named):
    engine = Engine(recommender)
    plant(engine, recommender, known)
    with served(engine, known) as url:
        found = verify(url, known=file, api="generative_scoring", model="any")
    assert not found["right"]
    assert named in found["said"][0], found["said"]


def test_lengths_of_prompts_tell_too(known):
    right = [one["log_odds"] for one in known["requests"]]
    wrong = [[value + 1 for value in some] for some in right]
    sizes = [[len(one["prefix"]) + len(suffix) for suffix in one["suffixes"]] for one in known["requests"]]

    def said(change):
        return diagnose(known, wrong, wrong, [[size + change for size in some] for some in sizes]).said[0]

    assert "one token too many" in said(1)
    assert "3 tokens are missing" in said(-3)
    assert "another template" in said(30)


def test_quantised_weights_that_shift_all_answers_alike(known):
    """As q8_0 does with SmolLM2: by nine times the noise."""
    draw = random.Random(0)
    moved = [[value + 0.38 + draw.gauss(0, 0.04) for value in one["log_odds"]] for one in known["requests"]]
    assert is_rounding(known, moved)
    [said] = diagnose(known, moved).said
    assert "the weights are quantised" in said
    assert re.search(r"are \+0\.3\d off on average", said)
    again = [[some[0] - HALF - 0.02, *some[1:]] for some in moved]
    assert "the weights are quantised" in diagnose(known, moved, again).said[0]  # and not sampled
    mixed = [some[1:] + some[:1] for some in moved]
    assert not is_rounding(known, mixed)
    assert not is_rounding(known, [[math.nan, *some[1:]] for some in moved])


def sure_of(known, scale):
    """Content of an expected.json whose log-odds are `scale` at most, as a model gives them that is sure."""
    values = copy.deepcopy(known)
    largest = max(abs(value) for one in values["requests"] for value in one["log_odds"])
    for one in values["requests"]:
        for log_odds in (one["log_odds"], *one["if_wrong"].values()):
            log_odds[:] = [value * scale / largest for value in log_odds]
    return values


def fp32(probability):
    return torch.tensor(probability, dtype=torch.float32).item()


@contextmanager
def sure_server(values, change=lambda odds: odds):
    """A server that answers with probabilities in fp32, as all of them do."""
    rows = {tuple(one["prefix"]): one["log_odds"] for one in values["requests"]}
    states = {json.dumps(endpoints.decision(values, one["request"])["state"]): one for one in values["requests"]}

    def respond(request):
        body = json.loads(request.content)
        if request.url.path == "/v1/systemone":
            odds = change(states[json.dumps(body["state"])]["log_odds"])
            chances = [fp32(probability(one / values["temperature"])) for one in odds]
            return httpx.Response(200, json={"answers": {str(n): {"noul": one} for n, one in enumerate(chances)}})
        odds = change(rows[tuple(body["query"])])
        return httpx.Response(200, json={"scores": [[fp32(probability(one)), 0.0] for one in odds]})

    client = httpx.Client
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(httpx, "Client", lambda **how: client(**how, transport=httpx.MockTransport(respond)))
        yield "http://127.0.0.1:8000"


@pytest.mark.parametrize("api", ["score", "systemone"])
@pytest.mark.parametrize("scale", [8, 12, 15.5, 20, 60])
def test_a_right_server_that_is_sure_is_right(known, file, api, scale):
    values = sure_of(known, scale)
    with open(file, "w", encoding="utf-8") as out:
        json.dump(values, out)
    with sure_server(values) as url:
        found = verify(url, known=file, api=api, model="any")
    assert found["right"], found["said"]
    assert ("as far as probabilities" in found["said"][0]) == (scale > 8)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda odds: [-one for one in odds], "yes and no are swapped"),
        (lambda odds: [odds[0] - 0.4, *odds[1:]], "differ"),
        (lambda odds: [one + 1 for one in odds], "quantised"),
    ],
)
def test_what_is_wrong_with_a_sure_server_is_still_found(known, file, change, named):
    values = sure_of(known, 12)
    with open(file, "w", encoding="utf-8") as out:
        json.dump(values, out)
    with sure_server(values, change) as url:
        found = verify(url, known=file, api="score", model="any")
    assert not found["right"]
    assert named in found["said"][0]


@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_a_decision_that_was_rounded_to_certainty_has_log_odds(chance):
    assert fresh_copy._log_odds_of(chance) == pytest.approx(endpoints._log_odds(chance))


def test_the_command_ends_with_1_where_something_is_wrong(recommender, known, file, capsys):
    engine = Engine(recommender)
    swapped(engine, recommender, known)
    with served(engine, known) as url, pytest.raises(SystemExit) as ended:
        main(["verify", url, "--expected", file, "--api", "score", "--model", "any"])
    assert ended.value.code == 1
    assert "yes and no are swapped" in capsys.readouterr().out


def test_servers_that_do_not_answer(recommender, known):
    with pytest.raises(HubError, match="does not answer: ConnectError"):
        endpoints.ask("score", "http://127.0.0.1:9", "m", known)
    with served(Engine(recommender), known) as url, pytest.raises(HubError, match="refuses with 404"):
        endpoints.ask("systemone", url, "m", known)
    with pytest.raises(HubError, match="name the release that it serves"):
        verify("http://127.0.0.1:9")


def test_a_key_is_sent_and_never_said(known, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    with pytest.raises(HubError) as error:
        endpoints.ask("score", "http://127.0.0.1:9", "m", known)
    assert "secret-key" not in str(error.value)
    assert "secret-key" not in str(error.value.__cause__)


def test_a_revision_is_that_of_the_release_where_a_server_is_asked(monkeypatch):
    asked = []

    def missing(repo, name, options):
        asked.append((repo, options["revision"]))

    monkeypatch.setattr("trsr.hub.verify.optional_file", missing)
    with pytest.raises(HubError, match=r"holds no expected\.json"):
        verify("http://127.0.0.1:9", known="ORG/trsr-books", revision="v1.0")
    with pytest.raises(HubError, match=r"holds no expected\.json"):
        verify("ORG/other", known="ORG/trsr-books", revision="v1.0")
    assert asked == [("ORG/trsr-books", "v1.0"), ("ORG/trsr-books", None)]


@pytest.mark.parametrize(
    ("target", "words", "told"),
    [
        (str(NANO / "pipeline"), ["--api", "score", "--model", "m"], "--api and --model: for the address of a server"),
        (str(NANO / "pipeline"), ["--revision", "v1"], "--revision is of a repo, and .* lies here"),
        ("http://127.0.0.1:9", ["--expected", str(NANO / "pipeline"), "--revision", "v1"], "--revision is of a repo"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(target, words, told, capsys):
    with pytest.raises(SystemExit) as end:
        main(["verify", target, *words])
    assert end.value.code == 2
    assert re.search(told, capsys.readouterr().err)


class Repeating(BaseHTTPRequestHandler):
    """Answers with the key that it was sent, where a cut at 200 characters goes through it."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(401)
        self.end_headers()
        self.wfile.write(f"\x1b[31m{'x' * 180} {self.headers['Authorization']}".encode())

    def log_message(self, *args):
        pass


def test_a_key_that_a_server_repeats_is_not_shown(known, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key-of-mine")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Repeating)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        with pytest.raises(HubError, match="/v1/score refuses with 401") as error:
            endpoints.ask("score", f"http://me:pass@127.0.0.1:{server.server_port}/v1", "m", known)
    finally:
        server.shutdown()
        server.server_close()
    assert "secret" not in str(error.value)
    assert "pass" not in str(error.value)
    assert str(error.value).isprintable()
    with pytest.raises(HubError, match="What http://host/v1 should answer"):
        verify("http://me:pass@host/v1?key=1")


def test_a_server_of_this_machine_is_asked_past_a_proxy(known, monkeypatch):
    class Recording(Repeating):
        def do_POST(self):
            asked.append(self.path)
            super().do_POST()

    asked = []
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), kind) for kind in (Repeating, Recording)]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{servers[1].server_port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("OPENAI_API_KEY", "secret-key-of-mine")
        for host in ("127.0.0.1", "localhost"):
            with pytest.raises(HubError, match="refuses with 401"):
                endpoints.ask("score", f"http://{host}:{servers[0].server_port}", "m", known)
        assert asked == []
        with pytest.raises(HubError, match="refuses with 401"):
            endpoints.ask("score", "http://host.invalid", "m", known)
        assert len(asked) == 1
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


@pytest.mark.parametrize(
    ("url", "may"),
    [
        ("https://host/v1", True), ("http://127.0.0.1:8000", True), ("http://localhost:8000", True), ("http://[::1]:8000", True),
        ("http://host:8000", False), ("http://10.0.0.7", False), ("http://localhost.host", False), ("http://127.0.0.1@host", False),
        ("http://[", False),
    ],
)  # fmt: skip
def test_a_key_goes_over_plain_http_to_this_machine_alone(url, may):
    assert endpoints.may_have_key(url) == may


def test_that_a_key_was_kept_back_is_said(known, monkeypatch):
    sent = []

    def refuse(request):
        sent.append(request.headers.get("Authorization"))
        return httpx.Response(401, text="no key")

    monkeypatch.setenv("OPENAI_API_KEY", " secret-key\n")  # as a file with a line break gives it
    client = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **how: client(**how, transport=httpx.MockTransport(refuse)))
    with pytest.raises(HubError, match=r"refuses with 401: no key OPENAI_API_KEY was not sent.*Give an https address"):
        endpoints.ask("score", "http://host:8000", "m", known)
    with pytest.raises(HubError, match=r"refuses with 401: no key$"):
        endpoints.ask("score", "https://host:8000", "m", known)
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key\u00e9")  # no header can hold it, and none has to
    with pytest.raises(HubError, match=r"refuses with 401: no key OPENAI_API_KEY was not sent"):
        endpoints.ask("score", "http://host:8000", "m", known)
    assert sent == [None, "Bearer secret-key", None]


def test_a_key_that_no_header_can_hold_is_not_blamed_on_the_server(known, monkeypatch):
    for broken in ("secret-key\nX-Other: 1", "secret-key\u00e9"):
        monkeypatch.setenv("OPENAI_API_KEY", broken)
        with pytest.raises(UsageError, match="OPENAI_API_KEY holds characters that no key has") as error:
            endpoints.ask("score", "https://host:8000", "m", known)
        assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "answer", [{}, [], {"scores": [["x"]] * 6}, {"scores": [[]]}, {"scores": None}, {"scores": [[0.5, 0.5]]}]
)
def test_a_server_with_other_answers_than_documented(known, monkeypatch, answer):
    client, respond = httpx.Client, httpx.MockTransport(lambda request: httpx.Response(200, json=answer))
    monkeypatch.setattr(httpx, "Client", lambda **how: client(**how, transport=respond))
    with pytest.raises(HubError, match="answers otherwise than an endpoint of the kind score"):
        endpoints.ask("score", "http://127.0.0.1:8000", "m", known)


def damaged(known, change):
    values = copy.deepcopy(known)
    change(values, values["requests"][0])
    return values


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda values, one: one.clear(), r"in requests\[0\], request.history is missing"),
        (lambda values, one: one["log_odds"].pop(), r"in requests\[0\], log_odds has 5 entries for 6 candidates"),
        (lambda values, one: one["suffixes"].pop(), "suffixes has 5 entries for 6 candidates"),
        (
            lambda values, one: one["if_wrong"]["a line break follows the prompt"].pop(),
            "if_wrong.* has 5 entries for 6 candidates",
        ),
        (lambda values, one: one["text"]["suffixes"].pop(), "text.suffixes has 5 entries for 6 candidates"),
        (lambda values, one: one["log_odds"].__setitem__(0, math.nan), "log_odds is not what it must be"),
        (lambda values, one: one["log_odds"].__setitem__(0, "1"), "log_odds is not what it must be"),
        (lambda values, one: one.update(if_wrong=[]), "if_wrong is not what it must be"),
        (lambda values, one: one["request"].update(candidates=[]), "request.candidates is not what it must be"),
        (lambda values, one: one.pop("summary"), "summary is missing"),
        (lambda values, one: values.update(requests=[]), "requests is not what it must be"),
        (lambda values, one: values.update(requests=[3]), "request.history is missing"),
        (lambda values, one: values.update(temperature=0), "temperature is not what it must be"),
        (lambda values, one: values.pop("made_from"), "made_from.dtype is missing"),
        (lambda values, one: values["answers"].update(yes=None), "answers.yes.id is missing"),
        (lambda values, one: values.pop("recent_items"), "recent_items is missing"),
        (lambda values, one: values.update(bias="no"), "bias is not what it must be"),
        (lambda values, one: values.update(catalogue=[]), "catalogue.weight is missing"),
    ],
)
def test_a_damaged_file_is_told_in_one_line(known, file, capsys, change, told):
    with open(file, "w", encoding="utf-8") as out:
        json.dump(damaged(known, change), out)
    with pytest.raises(SystemExit) as ended:
        main(["verify", "http://127.0.0.1:9", "--expected", file])
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip()
    assert re.search(rf"is no whole expected\.json: .*{told}\. Take the release's own again", said), said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("content", ["[]", "3", '{"requests": [{}]}', "null"])
def test_a_file_of_something_else(file, content):
    with open(file, "w", encoding="utf-8") as out:
        out.write(content)
    with pytest.raises(HubError, match=r"is no whole expected\.json: made_from.dtype is missing"):
        verify("http://127.0.0.1:9", known=file)


def test_a_repo_is_right(published, tmp_path):
    hub, _ = published
    done = subprocess.run(
        [sys.executable, "-m", "trsr", "verify", "ORG/trsr-sample", "--json"],
        env={**environment(hub, tmp_path, token=None), "PYTHONPATH": str(ROOT / "hub_recipes"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["right"]
    assert found["difference"] <= 1e-3


def test_a_folder_whose_adapter_or_summaries_are_others(quickstarted, tmp_path):
    release = tmp_path / "release"
    shutil.copytree(quickstarted[0] / "release", release)
    first = verify(str(release))
    assert first["right"], first["said"]
    values = json.loads((release / "pipeline" / "expected.json").read_text(encoding="utf-8"))
    assert [one["summary"] for one in values["requests"]] == [one["request"]["summary"] for one in values["requests"]]
    values["requests"][0]["summary"] = "written by another"
    (release / "pipeline" / "expected.json").write_text(json.dumps(values), encoding="utf-8")
    other = verify(str(release))
    assert not other["right"]
    assert "1 of 3 summaries" in other["said"][0]
    values["requests"][0]["summary"] = values["requests"][0]["request"]["summary"]
    (release / "pipeline" / "expected.json").write_text(json.dumps(values), encoding="utf-8")
    weights = release / "adapter" / "adapter_model.safetensors"
    changed = {name: weight * (-20 if "lora_B" in name else 1) for name, weight in load_file(weights).items()}
    save_file(changed, weights, {"format": "pt"})
    other = verify(str(release))
    assert not other["right"]
    assert "weights of another revision" in other["said"][0]


@pytest.fixture(scope="module")
def with_catalogue(quickstarted, retriever, tmp_path_factory):
    """A release that carries a catalogue, rehearsed and not pushed."""
    inputs = ReleaseInputs.read(quickstarted[0] / "runs" / "recurrent", None, retriever)
    made = assemble(inputs, tmp_path_factory.mktemp("carrying") / "release")
    rehearse(made, inputs)
    return made.folder


def change_settings(folder, **values):
    path = folder / "pipeline" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["trsr"] |= values
    path.write_text(json.dumps(config), encoding="utf-8")


def change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def change_vectors(folder):
    path = folder / "pipeline" / "catalogue" / "retriever.safetensors"
    weights = load_file(path)
    save_file({**weights, "items": weights["items"].flip(0).contiguous()}, path)


def test_what_no_log_odds_show_is_compared_too(with_catalogue, tmp_path):
    folder = shutil.copytree(with_catalogue, tmp_path / "release")
    change_settings(folder, temperature=7.5, bias=2.5)
    change_json(folder / "pipeline" / "decision.json", temperature={"noul": 6.5})
    change_json(folder / "pipeline" / "catalogue" / "catalogue.json", weight=9.0)
    change_vectors(folder)
    template = folder / "pipeline" / "decision_template.jinja"
    template.write_text(template.read_text("utf-8").replace("candidate", "item"), "utf-8")
    found = verify(str(folder))
    assert not found["right"]
    assert found["difference"] < 1e-3
    told = (
        "Its temperature is 7.5, and that of the release ", "Its bias is 2.5, and that of the release ",
        "Its decision.json has the temperature 6.5", "first stage of its catalogue has the weight 9, and in the release 1",
        "Its decision_template.jinja differs",
        "It does not retrieve what the release does: the score of ",
    )  # fmt: skip
    assert len(found["said"]) == len(told)
    assert all(part in line for part, line in zip(told, found["said"], strict=True)), found["said"]


def test_a_catalogue_in_which_items_have_the_texts_of_others_is_not_right(with_catalogue, tmp_path):
    folder = shutil.copytree(with_catalogue, tmp_path / "release")
    path = folder / "pipeline" / "catalogue" / "items.parquet"
    table = pq.read_table(path)
    texts = table["text"].to_pylist()
    pq.write_table(table.set_column(table.column_names.index("text"), "text", pa.array([*texts[1:], texts[0]])), path)
    found = verify(str(folder))
    assert not found["right"]
    [said] = found["said"]
    assert re.fullmatch(r"It does not retrieve what the release does: the text of '.*' differs: '.*'\.", said)


def test_a_catalogue_is_right_and_one_that_is_gone_is_not(with_catalogue, tmp_path):
    folder = shutil.copytree(with_catalogue, tmp_path / "release")
    known = json.loads((folder / "pipeline" / "expected.json").read_text(encoding="utf-8"))
    assert len(known["catalogue"]["candidates"]) == expected.RETRIEVED
    assert all(set(item) == {"item_id"} for item in known["catalogue"]["request"]["history"])
    found = verify(str(folder))
    assert found["right"], found["said"]
    del known["catalogue"]
    (folder / "pipeline" / "expected.json").write_text(json.dumps(known), encoding="utf-8")
    shutil.rmtree(folder / "pipeline" / "catalogue")  # config.json names it still
    with pytest.raises(ReleaseError, match=r"cannot be loaded: .*The catalogue of .* lacks retriever\.safetensors"):
        verify(str(folder))


def test_what_an_answer_without_candidates_has_to_hold():
    wanted = {
        "candidates": [
            {"item_id": name, "stage_one": score, "text_sha256": expected.text_digest(f"title: {name}")}
            for name, score in (("a", 2.0), ("b", 1.0))
        ]
    }

    def told(**scores):
        answer = [{"item_id": name, "stage_one": score, "item": f"title: {name}"} for name, score in scores.items()]
        return expected.catalogue_problem(wanted, {"candidates": answer})

    assert told(b=1.0, a=2.0, c=0.5) is None
    assert told(a=2.0, b=1.0, c=1.0) is None  # as good as the last one
    assert told(a=2.0, b=1.5) == "the score of 'b' is 1.5, not 1.0"
    assert told(a=2.0) == "the score of 'b' is None, not 1.0"
    assert expected.catalogue_problem(wanted, None) == "it carries no catalogue"
    assert told(a=2.0, b=1.0, c=1.5) == "'c' has a score of 1.5, and should not be among the first"


def test_a_folder_that_is_no_release():
    with pytest.raises(HubError, match=r"holds no expected\.json"):
        verify(str(NANO / "base"))
