"""Batched answers against one prompt at a time, on tiny models of real architectures. Counts tokens, no clocks."""

import logging

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from tests import tiny
from trsr.core import decoding
from trsr.core.compat import using_adapter
from trsr.core.control_tokens import without_reasoning
from trsr.core.decoding import Decoder, SamplingState
from trsr.core.generation import ModelSummarizer
from trsr.core.groups import common_prefix
from trsr.core.history import Item, clean
from trsr.core.prefix_cache import PrefixCache
from trsr.core.prompts import Encoder
from trsr.core.summary_prompts import SETS, SummaryPrompts

REUSE = ("llama", "qwen3", "mistral", "gemma3_text", "gpt2")
WHOLE = ("qwen3_5_text", "lfm2", "mamba")
NEW = 20


def network(kind="llama", ends=None, **changes):
    """A tiny model; many tokens end its answers, so that they end at different steps."""
    if kind == "lfm2":
        torch.manual_seed(0)
        layers = {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}
        known = {key: value for key, value in tiny.configs()["llama"].items() if key != "head_dim"}
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("lfm2", **{**known, **layers}))
        model = tiny._spread(model).eval()
    else:
        model = tiny.model(kind, **changes)
    model.generation_config.eos_token_id = list(range(1, 600, 20)) if ends is None else ends
    return model


def prompts(rests=(5, 9, 70, 14, 51, 1), beginning=30, seed=0):
    """Ragged prompts that begin alike; the padding of some is longer than the beginning."""
    generator = torch.Generator().manual_seed(seed)

    def ids(count):
        return torch.randint(3, 600, (count,), generator=generator).tolist()

    shared = ids(beginning)
    return [shared + ids(rest) for rest in rests]


def one_by_one(model, rows, new=NEW, **options):
    answers = []
    for row in rows:
        ids = torch.tensor([row])
        options = {"do_sample": False, "pad_token_id": 2, **options}
        made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, **options)
        answers.append(made[0, len(row) :].tolist())
    return answers


def forwards(model):
    """(rows, columns) of every forward from now on."""
    seen = []
    model.get_input_embeddings().register_forward_hook(lambda module, args, out: seen.append(tuple(args[0].shape)))
    return seen


@pytest.fixture
def warnings(caplog):
    """What transformers' logger says; each of its warnings is said once a process."""
    decoding.logger.warning_once.cache_clear()
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.mark.parametrize("kind", REUSE + WHOLE)
def test_batches_equal_one_by_one(kind):
    model, rows = network(kind), prompts()
    expected = one_by_one(model, rows)
    assert len(set(map(tuple, expected))) == len(rows), "equal answers would prove little"
    decoder = Decoder(model, 2)
    assert decoder.answers(rows, NEW) == expected
    assert decoder.plan == ("reuse" if kind in REUSE else "batch")
    assert decoder.answers(rows[::-1], NEW, batch_tokens=260) == expected[::-1]


@pytest.mark.parametrize("kind", REUSE)
def test_eager_attention_and_no_early_end(kind):
    model, rows = network(kind, ends=[], attn_implementation="eager"), prompts()
    model.generation_config.eos_token_id = None
    assert Decoder(model, 2, plan="reuse").answers(rows, NEW) == one_by_one(model, rows)


def test_layers_that_read_the_keys_of_others():
    config = tiny.checkpoint_config("gemma4", 600).text_config
    torch.manual_seed(0)
    model = tiny._spread(AutoModelForCausalLM.from_config(config)).eval()
    decoder, rows = Decoder(model, 2), prompts()
    assert decoder.answers(rows, NEW) == one_by_one(model, rows)
    assert decoder.plan == "reuse"


def test_the_beginning_is_forwarded_once_a_kind():
    model = network(ends=[])
    decoder, rows = Decoder(model, 2, plan="reuse"), prompts(rests=(5, 9, 20, 14))
    seen = forwards(model)
    decoder.answers(rows, 8, kind="block")
    assert seen == [(1, 30), (4, 20), *[(4, 1)] * 7]  # the beginning, all rests, then a token each step
    seen.clear()
    decoder.answers(rows[:1], 8, kind="block")
    assert seen == [(1, 5), *[(1, 1)] * 7]
    seen.clear()
    decoder.answers(rows[1:3], 8, kind="update")
    assert seen == [(1, 30), (2, 20), *[(2, 1)] * 7]


def test_whole_prompts_take_more():
    model = network(ends=[])
    decoder, rows = Decoder(model, 2, plan="batch"), prompts(rests=(5, 9, 20, 14))
    seen = forwards(model)
    decoder.answers(rows, 8)
    assert seen == [(4, 50), *[(4, 1)] * 7]


def test_ended_answers_leave_their_batch():
    model, rows = network(), prompts()
    lengths = [len(answer) for answer in one_by_one(model, rows, new=64)]
    decoder = Decoder(model, 2, plan="reuse")
    seen = forwards(model)
    decoder.answers(rows, 64)
    steps = [count for count, _ in seen[1:]]
    segments = -(-max(lengths) // decoding.SEGMENT)
    going = [sum(length > decoding.SEGMENT * number for length in lengths) for number in range(segments)]
    assert going[-1] < going[0] == len(rows)
    assert sorted(set(steps), reverse=True) == sorted(set(going), reverse=True)
    assert sum(steps) < len(rows) * max(lengths)


def test_prompts_with_little_in_common():
    model = network()
    decoder = Decoder(model, 2)
    strangers = [row[30:] for row in prompts()]
    assert decoder.answers(strangers, NEW) == one_by_one(model, strangers)
    assert decoder.plan is None, "nothing to share, nothing to probe"
    same = prompts(rests=(4,)) * 3
    assert decoder.answers(same, NEW, kind="same") == one_by_one(model, same)
    # The kept beginning was the whole prompt but a token; the next prompts share less of it.
    rows = prompts()
    assert decoder.answers(rows, NEW, kind="same") == one_by_one(model, rows)
    assert decoder.answers(strangers, NEW, kind="same") == one_by_one(model, strangers)
    assert decoder.answers([], NEW) == []


def test_shared_ids_leave_a_token_to_each():
    assert common_prefix([[1, 2, 3, 4], [1, 2, 3], [1, 2, 9]]) == [1, 2]
    assert common_prefix([[1, 2, 3], [1, 2, 3]]) == [1, 2]
    assert common_prefix([[1], [1, 2]]) == []


def test_a_changed_model_forgets_its_beginnings():
    rows = prompts()
    model = get_peft_model(network(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    model = model.eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.5)
    decoder = Decoder(model, 2)
    tuned = decoder.answers(rows, NEW)
    assert tuned == one_by_one(model, rows)
    with using_adapter(model, None):
        plain = decoder.answers(rows, NEW)
        assert plain == one_by_one(model, rows) != tuned
    assert decoder.answers(rows, NEW) == tuned
    model.merge_adapter()
    assert decoder.answers(rows, NEW) == one_by_one(model, rows)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(-1)
    assert decoder.answers(rows, NEW) == one_by_one(model, rows)
    assert decoder.plan == "reuse"


def test_options_of_generate():
    model, rows = network(), prompts()
    for options in ({"min_new_tokens": 20}, {"repetition_penalty": 3.0}, {"eos_token_id": list(range(3, 600, 9))}):
        decoder = Decoder(model, 2, **options)
        assert decoder.answers(rows, NEW) == one_by_one(model, rows, **options)
        assert decoder.plan == "reuse"
    beams = Decoder(model, 2, num_beams=2)
    assert beams.answers(rows, NEW) == one_by_one(model, rows, num_beams=2)
    assert beams.plan == "batch"
    sampling = Decoder(model, 2, do_sample=True, temperature=0.7)
    torch.manual_seed(3)
    first = sampling.answers(rows, NEW)
    assert sampling.plan == "batch"
    torch.manual_seed(3)
    assert sampling.answers(rows, NEW) == first != one_by_one(model, rows)


def test_a_drawn_token_comes_as_often_as_its_chance():
    chances, rows = torch.tensor([0.5, 0.3, 0.15, 0.05]), 4000
    drawn = decoding._SampleRows([SamplingState(1.0, seed) for seed in range(rows)], decoding.LogitsProcessorList())
    tokens = drawn(torch.zeros(rows, 1), chances.log().repeat(rows, 1)).argmax(-1)
    often = torch.bincount(tokens, minlength=4) / rows
    assert torch.all((often - chances).abs() < 4 * (chances * (1 - chances) / rows).sqrt())
    cold = decoding._SampleRows([SamplingState(0.5, seed) for seed in range(rows)], decoding.LogitsProcessorList())
    often = torch.bincount(cold(torch.zeros(rows, 1), chances.log().repeat(rows, 1)).argmax(-1), minlength=4) / rows
    assert often[0] == pytest.approx(0.25 / (0.25 + 0.09 + 0.0225 + 0.0025), abs=0.03)  # squares


@pytest.mark.parametrize("plan", ["reuse", "batch"])
def test_a_draw_does_not_depend_on_its_neighbours(plan):
    model, rows = network(), prompts()
    model.generation_config.top_k = 5

    def drawn(places, greedy=()):
        draws = [None if place in greedy else SamplingState(0.7, 100 + place) for place in places]
        return Decoder(model, 2, plan).answers([rows[place] for place in places], NEW, draws=draws)

    together = drawn(range(6))
    assert [drawn([place])[0] for place in range(6)] == together
    assert drawn([5, 3, 0]) == [together[5], together[3], together[0]]
    assert together != one_by_one(model, rows)
    mixed = drawn(range(6), greedy=(1, 4))
    plain = one_by_one(model, rows)
    assert mixed == [plain[place] if place in (1, 4) else together[place] for place in range(6)]
    assert Decoder(model, 2, plan).answers(rows, NEW, draws=[SamplingState(0.7, 200 + n) for n in range(6)]) != together


def test_settings_of_the_model_itself():
    model, rows = network(), prompts()
    model.generation_config.do_sample, model.generation_config.top_k = True, 20
    model.generation_config.repetition_penalty = 3.0
    # The end token fills the padding of many bases: the penalty must not see it there.
    decoder = Decoder(model, 1)
    assert decoder.answers(rows, NEW) == one_by_one(model, rows, pad_token_id=1)
    assert decoder.plan == "reuse"
    model.generation_config.no_repeat_ngram_size = 2
    assert Decoder(model, 2).plan == "batch"


def test_recurrent_layers_step_down_once(warnings):
    for _ in range(2):
        Decoder(network("qwen3_5_text"), 2).answers(prompts(), 2)
    said = [record.message for record in warnings.records if "run whole" in record.message]
    assert said == [
        "Prompts are run whole with Qwen3_5ForCausalLM: TypeError: its cache of DynamicLayer, LinearAttentionLayer cannot be "
        "cut to a row's padding."
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_wrong_cache_is_noticed(dtype, monkeypatch, warnings):
    right = PrefixCache.rows
    monkeypatch.setattr(PrefixCache, "rows", lambda self, shared, padding: right(self, shared, padding + 1))
    model, rows = network().to(dtype), prompts()
    decoder = Decoder(model, 2)
    answers = decoder.answers(rows, NEW)
    if dtype == torch.float32:
        assert answers == one_by_one(model, rows)
    assert decoder.plan == "batch"
    assert "Prompts are run whole with LlamaForCausalLM: it would change the logits by" in warnings.text


@pytest.mark.parametrize("kind", REUSE)
def test_half_precision_reuses(kind):
    decoder = Decoder(network(kind).to(torch.bfloat16), 2)
    assert len(decoder.answers(prompts(), NEW)) == 6
    assert decoder.plan == "reuse"


def test_unknown_plan():
    with pytest.raises(ValueError, match="Unknown plan 'fork', expected one of reuse, batch"):
        Decoder(network(), 2, plan="fork")


TOKENIZERS = {"chatml": tiny.chatml, "plain": tiny.byte_level, "metaspace": tiny.metaspace}
BLOCKS = [tuple(Item(f"title: Book {n}; genre: {'sea stories ' * n}") for n in range(1, size)) for size in (5, 2, 7, 3)]


@pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)
def test_summaries_equal_one_by_one(make):
    tokenizer = make()
    model = network(ends=[1], vocab_size=len(tokenizer))
    encoder, wording = Encoder(tokenizer), SummaryPrompts()
    writer = ModelSummarizer(model, encoder, wording, max_new_tokens=8)

    def alone(texts):
        rows = [encoder.request_ids(text) for text in texts]
        return [clean(tokenizer.decode(ids, skip_special_tokens=True)) for ids in one_by_one(model, rows, 8)]

    pairs = [(f"likes {'sea ' * n}", block) for n, block in enumerate(BLOCKS)]
    groups = [[f"likes {n}"] * n for n in (3, 1, 2)]
    assert writer.block(BLOCKS) == alone([wording.block_text(block) for block in BLOCKS])
    assert writer.update(pairs) == alone([wording.update_text(*pair) for pair in pairs])
    assert writer.merge(groups) == alone([wording.merge_text(group) for group in groups])
    assert any(writer.block(BLOCKS))
    assert writer.decoder.plan == "reuse"
    assert writer.block([]) == writer.update([]) == writer.merge([]) == []


def test_the_instruction_is_forwarded_once_a_run():
    tokenizer = tiny.chatml()
    model = network(ends=[], vocab_size=len(tokenizer))
    encoder = Encoder(tokenizer)
    writer = ModelSummarizer(model, encoder, max_new_tokens=4)
    writer.decoder.plan = "reuse"
    rows = [encoder.request_ids(writer.prompts.block_text(block)) for block in BLOCKS]
    instruction = encoder.head_ids + encoder.text_ids(writer.prompts.block)
    seen = forwards(model)
    for _ in range(3):
        writer.block(BLOCKS)
    (_, shared), *rest = seen
    assert shared >= len(instruction)
    longest = max(map(len, rows))
    assert rest == [(len(rows), longest - shared), *[(len(rows), 1)] * 3] * 3


def test_a_long_prompt_fails_alone_and_shows_how_its_texts_begin():
    writer = ModelSummarizer(network(), Encoder(tiny.byte_level(), context=400), max_new_tokens=8)
    texts = [writer.prompts.block_text(block) for block in ((Item("title: A"),), (Item("The Long Tide " * 60),))]
    short, long = writer.answers("block", texts)
    assert (short.failure, long.failure) == ("", "prompt too long")
    assert short == writer.answers("block", texts[:1])[0]
    assert "Its texts begin: 'Items:\\n- The Long Tide The Long" in long.text


def test_reasoning_between_special_tokens_is_left_out():
    tokenizer = tiny.chatml()
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]"]})
    writer = ModelSummarizer(network(vocab_size=len(tokenizer)), Encoder(tokenizer))
    ids = tokenizer.encode("[THINK]They chose tea.[/THINK]Likes tea.", add_special_tokens=False)
    assert without_reasoning(writer._decode(ids)) == "Likes tea."
    plain = tokenizer.encode("Likes tea.<|im_end|>", add_special_tokens=False)
    assert writer._decode(plain) == "Likes tea."


def test_a_long_prompt_is_an_error():
    writer = ModelSummarizer(network(), Encoder(tiny.byte_level(), context=80), max_new_tokens=8)
    with pytest.raises(ValueError, match="with 8 for the answer exceeds the model's context of 80"):
        writer.block(BLOCKS)


@pytest.mark.parametrize("plan", ["reuse", "batch"])
def test_an_answer_penalty_leaves_the_words_of_the_prompt_alone(plan):
    model = network(ends=[])
    rows = prompts()

    def naive(row, penalty):
        """Greedy search, a forward a token: scores of what the answer has are divided, negative ones multiplied."""
        answer = []
        for _ in range(NEW):
            scores = model(torch.tensor([row + answer])).logits[0, -1]
            for token in set(answer):
                scores[token] = scores[token] * penalty if scores[token] < 0 else scores[token] / penalty
            answer.append(int(scores.argmax()))
        return answer

    with torch.no_grad():
        expected = [naive(row, 1.5) for row in rows]
        assert expected != [naive(row, 1.0) for row in rows]
    held = Decoder(model, 2, plan=plan, answer_penalty=1.5)
    assert held.answers(rows, NEW) == expected
    assert held.plan == plan


def test_an_answer_in_a_fixed_form_ends_with_its_line():
    tokenizer = tiny.byte_level()
    model = network(ends=[1], vocab_size=len(tokenizer))
    encoder = Encoder(tokenizer)
    line_break = tokenizer.encode("\n", add_special_tokens=False)[-1]
    writer = ModelSummarizer(model, encoder, SETS["small"], max_new_tokens=8)
    assert writer.decoder.stop_ids() == {1} | encoder.line_ends
    assert line_break in writer.decoder.stop_ids()
    assert ModelSummarizer(model, encoder).decoder.stop_ids() == {1}
    texts = [SETS["small"].block_text(block) for block in BLOCKS]
    rows = [encoder.request_ids(text, SETS["small"].turns("block")) for text in texts]
    made = one_by_one(model, rows, 8, eos_token_id=sorted(writer.decoder.stop_ids()))
    expected = [SETS["small"].summary(tokenizer.decode(ids, skip_special_tokens=True)) for ids in made]
    assert writer.block(BLOCKS) == expected


def test_control_tokens_that_close_an_answer_are_left_out():
    # A tokenizer that does not know the token as one of its own: a base that was tuned with another template.
    tokenizer = tiny.byte_level()
    writer = ModelSummarizer(network(vocab_size=len(tokenizer)), Encoder(tokenizer))
    ids = tokenizer.encode("Likes tea.<|eot_id|>", add_special_tokens=False)
    writer.decoder.answers = lambda *_: [ids]
    assert writer.block(BLOCKS[:1]) == ["Likes tea."]
