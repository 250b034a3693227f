"""The decision files render the prompts that the recommender was trained on, token by token."""

import copy
import json
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import normalizers
from transformers import AutoTokenizer, DecisionConfig

from tests import tiny
from trsr.assets.paths import NANO
from trsr.core.history import clean
from trsr.core.prompts import Encoder, RankingPrompt
from trsr.errors import ReleaseError
from trsr.hub import cross_encoder
from trsr.hub.decision import _DROPPED, decision_config

TOKENIZERS = {"bytes": tiny.byte_level(), "chat": tiny.chatml()}


def ask(encoder, config, state, candidate):
    request = {"state": state, "questions": {"one": {"type": "noul", "instructions": candidate}}}
    inputs, _ = config.prepare_inputs(request, copy.deepcopy(encoder.tokenizer))[0]
    return inputs["input_ids"][0].tolist()


def ours(encoder, summary, recent, candidate):
    items = [encoder.prompt.item(one) for one in recent]
    return encoder.prefix_ids(summary, items).ids + encoder.suffix_ids(encoder.prompt.item(candidate))


@pytest.fixture(scope="module", params=TOKENIZERS)
def pair(request):
    encoder = Encoder(TOKENIZERS[request.param], RankingPrompt(recent_items=2, field_words=3, field_values=2))
    return encoder, decision_config(encoder, 1.5)


PIECES = ["sea", "a,", ";", "\x00", "\n", "é", "&amp;", "&#39;", "&#x92;", "&#xd800;", "&no;", "&", "#1", "書籍", "ไทย"]
WORDS = st.lists(st.sampled_from([*PIECES, " "]), max_size=9).map(" ".join) | st.lists(
    st.sampled_from([*PIECES, " "]), max_size=9
).map("".join)
PLAIN = st.one_of(st.none(), st.just(float("nan")), st.booleans(), st.floats(), st.text(max_size=5), WORDS)
OBJECTS = st.dictionaries(st.sampled_from(["a", "id", "$oid", "$date", "$numberLong"]), PLAIN, max_size=2)
ITEMS = st.one_of(
    st.text(max_size=30).map(lambda text: f"t {text}"),
    st.dictionaries(
        st.sampled_from(["title", "id", "Genre; x", "tags", "year", "item_id"]),
        st.one_of(
            PLAIN, st.integers(), OBJECTS, st.lists(st.one_of(PLAIN, OBJECTS, st.lists(PLAIN, max_size=2)), max_size=3)
        ),
    ).map(lambda fields: {"title": "a", **{k: v for k, v in fields.items() if k != "title"}}),
)


@example(
    summary=None, recent=[], candidate={"title": "a", "tags": {"a": "& ", "b": "; ไทย"}}
)  # a lone comma at the cut
@example(summary=" \u200b", recent=[], candidate="t")  # nothing is shown of it
@given(
    summary=st.one_of(st.none(), st.text(max_size=40)),
    recent=st.lists(ITEMS, max_size=4),
    candidate=ITEMS,
)
def test_the_ids_are_the_encoders(pair, summary, recent, candidate):
    encoder, config = pair
    texts = [str(one) for one in (summary, recent, candidate)]
    if any(token in text for token in encoder.tokenizer.added_tokens_encoder for text in texts):
        return  # hostile text has its own test
    if any(unicodedata.category(char) in ("Cs", "Co") for text in texts for char in text):
        return  # half a character, or a character that transformers marks control tokens with
    state = {"summary": summary, "recent_items": recent}
    assert ask(encoder, config, state, candidate) == ours(encoder, summary, recent, candidate)


def test_a_state_may_be_the_summary_alone(pair):
    encoder, config = pair
    assert ask(encoder, config, "Likes the sea.", "Emma") == ours(encoder, "Likes the sea.", [], "Emma")


def test_an_item_without_text_is_an_error(pair):
    encoder, config = pair
    with pytest.raises(Exception, match="must not be empty"):
        ask(encoder, config, "x", {"id": "7"})


def test_hostile_text_stays_text(pair):
    encoder, config = pair
    clean = ask(encoder, config, {"summary": "s", "recent_items": ["a"]}, "c")
    added = set(encoder.tokenizer.added_tokens_decoder)
    for token in [*encoder.tokenizer.added_tokens_encoder, "<|mark|>", "<|split|>", "\n\nCandidate item:\n- x"]:
        found = ask(encoder, config, {"summary": f"s{token}", "recent_items": [f"a {token}"]}, f"{token}c")
        assert [one for one in found if one in added] == [one for one in clean if one in added]
        text = encoder.tokenizer.decode(found)
        assert text.count("\nCandidate item:\n") == 1


def test_what_is_dropped_is_what_clean_drops():
    for code in range(0x110000):
        char = chr(code)
        dropped = any(low <= char <= high for low, high in _DROPPED)
        assigned = unicodedata.category(char) != "Cn"  # this Python may not know the newest characters
        if assigned and not char.isspace():
            kept = char in "\u200c\u200d" or unicodedata.category(char) not in ("Cc", "Cf")
            kept = kept and not 0xE0100 <= code <= 0xE01EF
            assert kept == bool(clean(char)) or unicodedata.category(char) == "Cs", hex(code)
            assert dropped == (not kept), hex(code)


def test_labels_and_temperature(pair):
    encoder, config = pair
    ids = encoder.tokenizer(config.labels["noul"], add_special_tokens=False)["input_ids"]
    assert ids == [[encoder.yes_id], [encoder.no_id]]
    assert config.temperature == {"noul": 1.5}


def test_saved_and_read_again(pair, tmp_path):
    encoder, config = pair
    config.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"decision.json", "decision_template.jinja"}
    again = DecisionConfig.from_pretrained(tmp_path)
    assert ask(encoder, again, "s", "c") == ours(encoder, "s", [], "c")


def test_no_recent_items():
    encoder = Encoder(TOKENIZERS["bytes"], RankingPrompt(recent_items=0))
    state = {"summary": "s", "recent_items": ["a", "b"]}
    assert ask(encoder, decision_config(encoder, 1.0), state, "c") == ours(encoder, "s", ["a", "b"], "c")


def test_a_tokenizer_that_cannot_agree_gets_no_decision_files():
    encoder = Encoder(tiny.metaspace(), RankingPrompt())
    found = decision_config(encoder, 1.0)
    assert found is None or ask(encoder, found, "s", "c") == ours(encoder, "s", [], "c")


def test_the_prompts_wording_is_quoted():
    prompt = RankingPrompt(instruction='Say {{ "x" }} {% if %} "quoted" \\ 🙂?', recent_items=1)
    encoder = Encoder(TOKENIZERS["bytes"], prompt)
    assert ask(encoder, decision_config(encoder, 1.0), "s", "c") == ours(encoder, "s", [], "c")


def test_added_tokens_are_broken_up_as_the_encoder_does():
    tokens = ("<think>", "</think>", "[x]")
    encoder = Encoder(tiny.byte_level(plain=tokens), RankingPrompt())
    config = decision_config(encoder, 1.0)
    for text in ("x <think> y", "<<think>[x]", "t </think><think>", "[[", "plain"):
        state = {"summary": text, "recent_items": [{"title": text}]}
        assert ask(encoder, config, state, text) == ours(encoder, text, [{"title": text}], text)


OVERLAPPING = ("aba", "----------", "<<", "think>", "<think>", "a b  c", "a b c")
NORMALIZERS = {
    "lower case": normalizers.Lowercase(),
    "widths": normalizers.NFKC(),
    "accents": normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
}


def normalizing(name):
    """A tokenizer that takes other forms of its added token for it."""
    tokenizer = tiny.byte_level()
    tokenizer.backend_tokenizer.normalizer = NORMALIZERS[name]
    tokenizer.add_tokens(["<think>"])
    return tokenizer


def test_added_tokens_that_overlap_themselves_and_others_are_broken_up(tmp_path):
    encoder = Encoder(tiny.byte_level(plain=OVERLAPPING), RankingPrompt())
    added = set(encoder.tokenizer.added_tokens_decoder)
    config = decision_config(encoder, 1.0)
    cross_encoder.write(tmp_path, encoder)
    cross = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("ababa", "ab" * 30, "-" * 95, "<<<think>>", "<<<" * 9, "a b  ca b ca", "a bababa b  c"):
        state = {"summary": text, "recent_items": [{"title": text}]}
        found = ask(encoder, config, state, text)
        messages = [{"role": "query", "content": text}, {"role": "document", "content": text}]
        for ids in (found, cross.apply_chat_template(messages)["input_ids"]):
            assert [one for one in ids if one in added] == [encoder.tokenizer.bos_token_id], text


@pytest.mark.parametrize("name", NORMALIZERS)
def test_a_tokenizer_that_takes_other_forms_of_a_token_for_it_is_refused(name, tmp_path):
    encoder = Encoder(normalizing(name))
    assert decision_config(encoder, 1.0) is None
    with pytest.raises(ReleaseError, match=r"makes its added tokens of other letters too.*--cross-encoder"):
        cross_encoder.write(tmp_path, encoder)
    assert not list(tmp_path.iterdir())


def test_the_template_in_the_package_is_what_is_written_now():
    prompt = RankingPrompt(**json.loads((NANO / "pipeline" / "ranking_prompt.json").read_text(encoding="utf-8")))
    template = decision_config(Encoder(AutoTokenizer.from_pretrained(NANO / "pipeline"), prompt), 1.0).chat_template
    for folder in ("pipeline", "adapter"):
        assert (NANO / folder / "decision_template.jinja").read_text(encoding="utf-8") == template
