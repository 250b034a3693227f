import json
import math
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import datasets
import numpy as np
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from transformers.utils import logging

from tests import tiny
from trsr.core.compat import use_adapter
from trsr.core.errors import InputError, TrsrError
from trsr.core.generation import ModelSummarizer
from trsr.core.pipeline import SUMMARIZERS, TextRichRecommendationPipeline, logger
from trsr.core.prompts import RankingPrompt

pytestmark = pytest.mark.compat


def nested(levels, value="x"):
    """A value in as many lists."""
    for _ in range(levels):
        value = [value]
    return value


HISTORY = [
    {"title": f"Book {n}", "author": "Mara Quill" if n % 2 else "Bo Stone", "genre": "mystery"} for n in range(8)
]
CANDIDATES = ["title: A; genre: mystery", {"title": "B", "item_id": "77"}, "title: C", "title: D"]


def recommender(model=None, tokenizer=None, **trsr):
    model = model or tiny.model("llama")
    if trsr:
        model.config.trsr = trsr
    return TextRichRecommendationPipeline(model=model, tokenizer=tokenizer or tiny.byte_level(), device="cpu")


def with_adapter(model):
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return inject_adapter_in_model(lora, model, "default").eval()


@pytest.fixture(scope="module")
def pipe():
    return recommender(with_adapter(tiny.model("llama")))


def test_temperature_and_bias_change_the_probability_alone(tmp_path):
    request = {"history": HISTORY, "candidates": CANDIDATES}
    plain = recommender()(request)["candidates"]
    fitted = recommender(temperature=2.0, bias=math.log(4))
    for one, before in zip(fitted(request)["candidates"], plain, strict=True):
        assert (one["index"], one["log_odds"], one["rank"]) == (before["index"], before["log_odds"], before["rank"])
        assert one["score"] == pytest.approx(1 / (1 + math.exp(-one["log_odds"] / 2) / 4))


def test_the_answer(pipe):
    answer = pipe({"history": HISTORY, "candidates": CANDIDATES})
    ranked = answer["candidates"]
    assert set(answer) == {"candidates"}
    assert [one["rank"] for one in ranked] == [1, 2, 3, 4]
    assert sorted(one["index"] for one in ranked) == [0, 1, 2, 3]
    assert all(one["item"] == CANDIDATES[one["index"]] for one in ranked)
    odds = [one["log_odds"] for one in ranked]
    assert odds == sorted(odds, reverse=True)
    assert odds[0] > odds[-1]
    for one in ranked:
        assert one["score"] == pytest.approx(1 / (1 + 2.718281828459045 ** -one["log_odds"]))


def test_json_in_json_out(pipe):
    request = json.loads(json.dumps({"history": HISTORY, "candidates": CANDIDATES}))
    assert json.loads(json.dumps(pipe(request, return_summary=True)))["candidates"]


def test_a_list_is_a_batch(pipe):
    one = {"history": HISTORY, "candidates": CANDIDATES}
    two = {"history": HISTORY[:2], "candidates": CANDIDATES[:1]}
    assert pipe([one, two]) == [pipe(one), pipe(two)]
    assert pipe([]) == []


def test_top_k_and_summary(pipe):
    answer = pipe({"history": HISTORY, "candidates": CANDIDATES}, top_k=2, return_summary=True, method="hierarchical")
    assert len(answer["candidates"]) == 2
    assert answer["summary"].startswith("author: ")
    assert len(answer["block_summaries"]) == 2


def test_the_methods_differ(pipe):
    request = {"history": HISTORY, "candidates": CANDIDATES}
    recurrent = pipe(request, return_summary=True, method="recurrent")["block_summaries"]
    hierarchical = pipe(request, return_summary=True, method="hierarchical")["block_summaries"]
    assert recurrent[0] == hierarchical[0]
    assert recurrent[1] != hierarchical[1]


def test_a_given_summary_is_used_as_it_is(pipe):
    request = {"history": HISTORY, "candidates": CANDIDATES, "summary": "likes ghosts"}
    answer = pipe(request, return_summary=True)
    assert answer["summary"] == "likes ghosts"
    assert answer["block_summaries"] == []
    assert answer["candidates"] != pipe({"history": HISTORY, "candidates": CANDIDATES})["candidates"]


def test_without_a_summarizer(pipe):
    answer = pipe({"history": HISTORY, "candidates": CANDIDATES}, summarizer=None, return_summary=True)
    assert answer["summary"] is None


def test_update_advances_a_summary_by_one_block(pipe):
    whole = pipe({"history": HISTORY, "candidates": CANDIDATES}, return_summary=True)["block_summaries"]
    assert pipe.update(whole[0], HISTORY[5:]) == whole[1]
    assert pipe.update("", HISTORY[:5]) == whole[0]
    with pytest.raises(ValueError, match="no new items"):
        pipe.update("s", [])
    with pytest.raises(ValueError, match="Without a summarizer"):
        pipe.update("s", HISTORY, summarizer=None)


def test_a_history_can_be_summarised_step_by_step(pipe):
    blocks = pipe.blocks(HISTORY * 5)
    assert [len(block) for block in blocks] == [5] * 5
    assert blocks[0][0].text == "title: Book 7; author: Mara Quill; genre: mystery"  # the newest 25 of 40
    parts = [pipe.update("", block) for block in blocks]
    asked = {"history": HISTORY * 5, "candidates": []}
    whole = pipe(asked, return_summary=True, method="hierarchical")
    assert (parts, pipe.merge(parts)) == (whole["block_summaries"], whole["summary"])
    with pytest.raises(ValueError, match="no summaries"):
        pipe.merge([])
    with pytest.raises(ValueError, match="Without a summarizer"):
        pipe.merge(parts, summarizer=None)


def test_corners(pipe):
    cold = pipe({"history": [], "candidates": CANDIDATES}, return_summary=True)
    assert len(cold["candidates"]) == 4
    assert cold["summary"] is None
    assert pipe({"history": HISTORY, "candidates": []}) == {"candidates": []}
    assert pipe({"history": HISTORY, "candidates": ["title: A"]})["candidates"][0]["rank"] == 1


def test_duplicates_are_kept_in_input_order(pipe):
    answer = pipe({"history": HISTORY, "candidates": ["title: A"] * 3})
    assert [one["index"] for one in answer["candidates"]] == [0, 1, 2]
    assert len({one["log_odds"] for one in answer["candidates"]}) == 1


def test_a_long_history_keeps_its_newest_blocks(pipe):
    answer = pipe({"history": HISTORY * 50, "candidates": CANDIDATES}, return_summary=True)
    assert len(answer["block_summaries"]) == 5


def test_a_prompt_longer_than_the_context_is_shortened_and_says_so():
    pipe = recommender(tiny.model("llama", max_position_embeddings=300))
    history = [f"title: {'long ' * 60}{n}" for n in range(6)]
    answer = pipe({"history": history, "candidates": ["title: A"]})
    assert answer["shortened"]["recent_items_dropped"] > 0
    with pytest.raises(ValueError, match="does not fit into 300"):
        pipe({"history": history, "candidates": ["title: " + "long " * 400]})


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ("text", TypeError, "A request is a dict"),
        ({"history": []}, ValueError, "missing: \\['candidates'\\]"),
        ({"history": [], "candidates": [], "user": 1}, ValueError, "unknown: \\['user'\\]"),
        ({"history": "title: A", "candidates": []}, TypeError, "'history' is a list of items, got str"),
        ({"history": [], "candidates": [3]}, TypeError, r"candidates\[0\]: An item is a string or a dict"),
        ({"history": ["x", ""], "candidates": []}, ValueError, r"history\[1\]: An item has no text"),
        ({"history": [], "candidates": [], "summary": ["x"]}, TypeError, "A summary is a string, got list"),
        (
            [{"history": [], "candidates": []}, {"history": [], "candidates": ["x", ""]}],
            ValueError,
            r"^requests\[1\]: candidates\[1\]: An item has no text",
        ),
        ({"history": [{"title": iter("ab")}], "candidates": []}, ValueError, r"history\[0\]: values in a str_"),
        (
            {"history": [{"title": {"a": 1}.keys()}], "candidates": []},
            ValueError,
            r"history\[0\]: values in a dict_keys",
        ),
        (
            {"history": [{"title": b"\xff"}], "candidates": []},
            ValueError,
            r"history\[0\]: text that is not UTF-8: decode",
        ),
        (
            {"history": [{"title": nested(3000)}], "candidates": []},
            ValueError,
            r"history\[0\]: lists .* than 100 levels",
        ),
        ({"history": [{"title": Decimal("sNaN")}], "candidates": []}, ValueError, r"history\[0\]: An item has no text"),
        ({"history": [{"title": 10**5000}], "candidates": []}, ValueError, r"history\[0\]: .*4300 digits"),
        ({"history": [], "candidates": [], "user": 1, 2: 3}, ValueError, r"unknown: \['2', 'user'\]"),
    ],
)
def test_broken_requests(pipe, request_, error, message):
    with pytest.raises(error, match=message) as raised:
        pipe(request_)
    assert isinstance(raised.value, TrsrError)


@pytest.mark.parametrize(
    "options", [{"summarizer": "gpt"}, {"method": "cnn"}, {"top_k": 0}, {"top_k": "3"}, {"temperature": 1},
                {"top_k": True}, {"top_k": 1.0}, {"max_new_tokens": 0}, {"max_new_tokens": "5"}, {"max_new_tokens": True}]
)  # fmt: skip
def test_broken_options(pipe, options):
    with pytest.raises((ValueError, TypeError), match=next(iter(options))):
        pipe({"history": [], "candidates": ["x"]}, **options)


def test_whole_numbers_of_numpy_are_options(pipe):
    assert len(pipe({"history": [], "candidates": ["x", "y"]}, top_k=np.int64(1))["candidates"]) == 1
    asked = {"summarizer": "base-model", "return_summary": True}
    request = {"history": HISTORY, "candidates": []}
    assert pipe(request, **asked, max_new_tokens=np.int32(3)) == pipe(request, **asked, max_new_tokens=3)


def test_broken_summaries_and_summarizers(pipe, monkeypatch):
    monkeypatch.setattr(pipe.model, "generate", None)
    for name in ("extractve", "", ["extractive"]):
        for write, given in ((pipe.update, ("", HISTORY)), (pipe.merge, (["a", "b"],))):
            with pytest.raises(InputError, match=r"Unknown summarizer .* expected 'auto'"):
                write(*given, name)
    for write in (lambda: pipe.update(5, HISTORY, "extractive"), lambda: pipe.merge(["genre: a x1", 5], "extractive")):
        with pytest.raises(TypeError, match="A summary is a string, got int"):
            write()
    with pytest.raises(InputError, match="max_new_tokens must be a positive integer, got 0"):
        pipe.update("", HISTORY, "base-model", 0)


def test_a_candidate_that_does_not_fit_is_named():
    pipe = recommender(tiny.model("llama", max_position_embeddings=300))
    candidates = ["title: A", "title: " + "long " * 400, "title: B"]
    with pytest.raises(InputError, match=r"^candidates\[1\], 'title: long long .*': A candidate of .* does not fit"):
        pipe({"history": [], "candidates": candidates})


def test_the_base_summarises_with_the_adapter_off():
    base = tiny.model("llama")
    request = {"history": HISTORY, "candidates": CANDIDATES}
    options = {"summarizer": "base-model", "return_summary": True, "max_new_tokens": 8}
    plain = recommender(base)(request, **options)
    pipe = recommender(with_adapter(base))
    tuned = pipe(request, **options)
    # The same summary, word for word, though the adapter changes every score.
    assert tuned["block_summaries"] == plain["block_summaries"]
    assert tuned["candidates"] != plain["candidates"]
    assert pipe(request, **options) == tuned


def test_the_adapter_is_on_again_after_an_error(monkeypatch):
    pipe = recommender(with_adapter(tiny.model("llama")))
    request = {"history": HISTORY, "candidates": CANDIDATES}
    before = pipe(request)

    def broken(*args, **kwargs):
        raise RuntimeError("generation broke")

    monkeypatch.setattr(pipe.model, "generate", broken)
    with pytest.raises(RuntimeError, match="generation broke"):
        pipe(request, summarizer="base-model")
    assert pipe(request) == before


def with_two_adapters(model):
    """One that ranks, as `with_adapter`, and one that summarises."""
    model = with_adapter(model)
    torch.manual_seed(1)
    lora = LoraConfig(r=4, target_modules=["q_proj", "o_proj"], init_lora_weights=False)
    inject_adapter_in_model(lora, model, "summarizer")
    use_adapter(model, "default")
    return model.eval()


def test_one_adapter_summarises_and_the_other_ranks():
    torch.manual_seed(0)
    pipe = recommender(with_two_adapters(tiny.model("llama")), summarizer="adapter", summarizer_adapter="summarizer")
    request = {"history": HISTORY, "candidates": CANDIDATES}
    options = {"return_summary": True, "max_new_tokens": 8}
    answer = pipe(request, **options)
    assert answer["summary"] != pipe(request, summarizer="base-model", **options)["summary"]
    given = pipe({**request, "summary": answer["summary"]})
    assert answer["candidates"] == given["candidates"]
    torch.manual_seed(0)
    ranks = recommender(with_adapter(tiny.model("llama")))
    assert ranks({**request, "summary": answer["summary"]}) == given
    use_adapter(pipe.model, "summarizer")
    blocks = pipe.blocks(HISTORY)
    alone = ModelSummarizer(pipe.model, pipe.encoder, max_new_tokens=8).block(blocks)
    use_adapter(pipe.model, "default")
    assert [pipe.update("", block, max_new_tokens=8) for block in blocks] == alone
    assert pipe.merge(alone, max_new_tokens=8)


def test_the_ranking_adapter_is_on_again_after_an_error(monkeypatch):
    pipe = recommender(with_two_adapters(tiny.model("llama")), summarizer="adapter", summarizer_adapter="summarizer")
    request = {"history": HISTORY, "candidates": CANDIDATES, "summary": "likes ghosts"}
    before = pipe(request)

    def broken(*args, **kwargs):
        raise RuntimeError("generation broke")

    monkeypatch.setattr(pipe.model, "generate", broken)
    with pytest.raises(RuntimeError, match="generation broke"):
        pipe.update("", HISTORY)
    assert pipe(request) == before


def written_by(pipe):
    """Which summarizer `auto` is, told by its summary."""
    options = {"return_summary": True, "max_new_tokens": 4, "method": "recurrent"}
    request = {"history": HISTORY[:5], "candidates": []}
    wanted = pipe(request, **options)["summary"]
    names = [
        name for name in SUMMARIZERS if name not in ("auto", "adapter") or (name == "adapter" and pipe._has_adapter)
    ]
    (found,) = [name for name in names if pipe(request, summarizer=name, **options)["summary"] == wanted]
    return found


@pytest.mark.parametrize(
    ("settings", "chat", "expected"),
    [
        ({}, True, "base-model"),
        ({}, False, "extractive"),
        ({"summarizer": "extractive"}, True, "extractive"),
        ({"summarizer": "none"}, True, None),
        ({"summarizer": "base-model"}, False, "base-model"),
        ({"summarizer": "adapter", "summarizer_adapter": "summarizer"}, False, "adapter"),
        ({"summarizer": "extractive", "summarizer_adapter": "summarizer"}, False, "extractive"),
        ({"summarizer": "server", "summarizer_adapter": "summarizer"}, False, "adapter"),
        ({"summarizer": "other-model"}, True, "base-model"),
        ({"summarizer": "server"}, False, "extractive"),
    ],
)
def test_auto_takes_what_the_model_was_trained_with_where_it_is_here(settings, chat, expected):
    tokenizer = tiny.chatml() if chat else tiny.byte_level()
    assert written_by(recommender(with_two_adapters(tiny.model("llama")), tokenizer, **settings)) == expected


def test_a_summarizer_that_is_not_here_is_told_once(caplog, monkeypatch):
    monkeypatch.setattr(logging.get_logger("transformers"), "propagate", True)
    logger.warning_once.cache_clear()
    pipe = recommender(summarizer="server")
    pipe.update("", HISTORY)
    pipe.update("", HISTORY)
    assert [one.getMessage() for one in caplog.records if "stands in for it" in one.getMessage()] == [
        "The summaries it was trained with are those of another model (server); the summarizer 'extractive' stands in "
        "for it. Give a summary in the request to have none made."
    ]


def test_a_repo_without_a_summarising_adapter(pipe):
    with pytest.raises(ValueError, match="no adapter that summarises"):
        pipe({"history": HISTORY, "candidates": CANDIDATES}, summarizer="adapter")


def test_the_ranking_prompt_travels_with_the_model():
    prompt = RankingPrompt(recent_items=1)
    pipe = recommender(ranking_prompt=prompt.to_dict())
    assert pipe.encoder.prompt == prompt


def test_generation_in_batches_equals_one_by_one():
    pipe = recommender(tokenizer=tiny.chatml())
    writer = ModelSummarizer(pipe.model, pipe.encoder, max_new_tokens=6)
    blocks = [tuple(pipe.preprocess({"history": HISTORY[:n], "candidates": []})["history"]) for n in (1, 5, 3, 2)]
    together = writer.block(blocks)
    assert together == [writer.block([block])[0] for block in blocks]
    assert any(together)
    writer.batch_tokens = 1
    assert writer.block(blocks) == together


def test_half_precision_scores_are_close():
    request = {"history": HISTORY, "candidates": CANDIDATES}
    full = recommender(tiny.model("llama"))(request)["candidates"]
    half = recommender(tiny.model("llama").to(torch.bfloat16))(request)["candidates"]
    by_index = {one["index"]: one["log_odds"] for one in half}
    assert all(abs(by_index[one["index"]] - one["log_odds"]) < 0.5 for one in full)


def requests(count):
    """Requests of various lengths."""
    return [
        {
            "history": HISTORY[: 1 + number % 8],
            "candidates": [f"title: Book {number}; genre: mystery", *CANDIDATES][: 2 + number % 4],
        }
        for number in range(count)
    ]


def test_eight_threads_get_what_one_gets(pipe):
    asked = requests(50)
    alone = [pipe(request) for request in asked]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda _: [pipe(request) for request in asked], range(8)))
    assert together == [alone] * 8


def test_threads_that_summarise_and_threads_that_rank_do_not_disturb_one_another():
    pipe = recommender(with_two_adapters(tiny.model("llama")), summarizer="adapter", summarizer_adapter="summarizer")
    asked = requests(6)
    given = [{**request, "summary": "likes ghosts"} for request in asked]
    writes = {"return_summary": True, "max_new_tokens": 4}
    alone = [pipe(request, **writes) for request in asked], [pipe(request) for request in given]
    with ThreadPoolExecutor(4) as pool:
        together = list(
            pool.map(
                lambda turn: [pipe(one, **writes) for one in asked] if turn % 2 else [pipe(one) for one in given],
                range(8),
            )
        )
    assert together == [alone[1 - turn % 2] for turn in range(8)]


def test_pipelines_and_scorers_of_one_model_share_its_lock(pipe):
    other = recommender(pipe.model)
    request = requests(8)[7]
    prefix, suffixes = [5] * 30, [[7, 8], [9, 10, 11], [12]]
    alone = pipe(request), other.scorer.log_odds(prefix, suffixes).tolist()
    with ThreadPoolExecutor(4) as pool:
        asks = [lambda: pipe(request), lambda: other.scorer.log_odds(prefix, suffixes).tolist()] * 40
        assert list(pool.map(lambda ask: ask(), asks)) == [*alone] * 40


class Requests(torch.utils.data.Dataset):
    """A Dataset of torch."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        return self.rows[number]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 2, 8, 64])
def test_lists_datasets_and_generators_in_batches(pipe, batch_size, workers):
    asked = requests(9)
    alone = [pipe(request) for request in asked]
    options = {"batch_size": batch_size, "num_workers": workers}
    assert pipe(asked, **options) == alone
    assert pipe(tuple(asked), **options) == alone
    assert list(pipe(Requests(asked), **options)) == alone
    columns = [
        {"history": [str(item) for item in one["history"]], "candidates": [str(item) for item in one["candidates"]]}
        for one in asked
    ]
    alone = [pipe(request) for request in columns]
    assert list(pipe((request for request in columns), batch_size=batch_size, num_workers=min(workers, 1))) == alone
    assert list(pipe(datasets.Dataset.from_list(columns), **options)) == alone


def test_a_batch_size_may_be_given_when_it_is_made():
    pipe = TextRichRecommendationPipeline(
        model=tiny.model("llama"), tokenizer=tiny.byte_level(), device="cpu", batch_size=4
    )
    asked = requests(9)
    assert pipe(asked) == [pipe(request) for request in asked]


def test_rank(pipe):
    ranked = pipe.rank(HISTORY, CANDIDATES)
    assert ranked == pipe({"history": HISTORY, "candidates": CANDIDATES})["candidates"]
    assert pipe.rank(HISTORY, CANDIDATES, top_k=2) == ranked[:2]
    given = pipe.rank(HISTORY, CANDIDATES, summary="likes ghosts")
    assert given == pipe({"history": HISTORY, "candidates": CANDIDATES, "summary": "likes ghosts"})["candidates"]
    assert pipe.rank([], CANDIDATES)
    assert pipe.rank(HISTORY, []) == []
    with pytest.raises(TypeError, match="'history' is a list of items"):
        pipe.rank("title: Emma", CANDIDATES)


def test_a_repo_that_does_not_say_how_histories_were_cut_is_refused():
    with pytest.raises(ValueError, match="does not say max_blocks"):
        recommender(method="recurrent", summarizer="extractive", block_size=3)
    sizes = {"method": "recurrent", "summarizer": "extractive", "block_size": 3, "max_blocks": 2}
    assert [len(block) for block in recommender(**sizes).blocks(HISTORY)] == [3, 2]


def test_items_are_read_as_the_dataset_was_built():
    short = recommender(ranking_prompt={"field_words": 2, "field_values": 1})
    asked = {
        "history": [{"title": "a b c", "genres": ["x", None, "y"], "price": float("nan")}],
        "candidates": [{"title": "long title here"}, {"title": "B", "tags": [None]}],
    }
    plain = {"history": ["title: a b; genres: x"], "candidates": ["title: long title", "title: B"]}
    odds = [[one["log_odds"] for one in short(one, summarizer=None)["candidates"]] for one in (asked, plain)]
    assert odds[0] == odds[1]
    assert short.blocks(asked["history"]) == short.blocks(plain["history"])


@pytest.mark.parametrize("template", [tiny.DATED, tiny.THINKING], ids=["dated", "thinking"])
def test_templates_that_name_the_day_or_think_rank_and_summarise(template):
    tokenizer = tiny.chatml()
    tokenizer.chat_template = template
    pipe = recommender(tokenizer=tokenizer)
    request = {"history": HISTORY, "candidates": CANDIDATES}
    answer = pipe(request, summarizer="base-model", max_new_tokens=4, return_summary=True)
    assert len(answer["candidates"]) == len(CANDIDATES)
    assert answer == recommender(tokenizer=tokenizer)(
        request, summarizer="base-model", max_new_tokens=4, return_summary=True
    )
