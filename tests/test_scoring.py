"""Shared-prefix scores against one prompt at a time, on tiny models of real architectures. Counts tokens, no clocks."""

import math

import accelerate
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from tests import tiny
from trsr.core import groups
from trsr.core.compat import cache_name
from trsr.core.errors import TrsrError
from trsr.core.fork import fork, same_rotation
from trsr.core.forward import prefill
from trsr.core.scoring import PLANS, Scorer, rank

pytestmark = pytest.mark.compat

YES, NO = 5, 6
SHARED = {
    "llama": "packed",
    "qwen3": "packed",
    "qwen3_5_text": "fork",
    "mistral": "packed",
    "gemma3_text": "packed",
    "gpt2": "packed",
}


def prompts(lengths=(3, 9, 5, 1, 14), prefix=40, seed=1, most=600):
    generator = torch.Generator().manual_seed(seed)

    def ids(count):
        return torch.randint(3, most, (count,), generator=generator).tolist()

    return ids(prefix), [ids(length) for length in lengths]


@torch.no_grad()
def one_by_one(model, prefix, suffixes):
    logits = [model(input_ids=torch.tensor([prefix + suffix])).logits[0, -1].float() for suffix in suffixes]
    return torch.stack([one[YES] - one[NO] for one in logits])


def watch(model):
    """The number of tokens of each forward from now on."""
    seen = []
    model.get_input_embeddings().register_forward_hook(lambda module, args, out: seen.append(args[0].numel()))
    return seen


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", SHARED)
def test_shared_scores_equal_one_by_one(kind, attention):
    model = tiny.model(kind, attn_implementation=attention)
    prefix, suffixes = prompts()
    scorer = Scorer(model, YES, NO)
    assert scorer.plan == SHARED[kind]
    expected = one_by_one(model, prefix, suffixes)
    assert expected.std() > 0.05, "scores that hardly differ would prove nothing"
    for plan in PLANS[PLANS.index(scorer.plan) :]:
        scores = Scorer(model, YES, NO, plan=plan).log_odds(prefix, suffixes)
        torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", SHARED)
def test_groups_and_order_do_not_change_scores(kind):
    model = tiny.model(kind)
    prefix, suffixes = prompts()
    whole = Scorer(model, YES, NO).log_odds(prefix, suffixes)
    for plan in PLANS[PLANS.index(SHARED[kind]) :]:
        small = Scorer(model, YES, NO, plan=plan, group_tokens=10).log_odds(prefix, suffixes[::-1])
        torch.testing.assert_close(small, whole.flip(0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", SHARED)
def test_suffixes_of_one_token(kind):
    # Recurrent layers take another way then, and write into their state.
    model = tiny.model(kind)
    prefix, suffixes = prompts(lengths=(1, 1, 1))
    expected = one_by_one(model, prefix, suffixes)
    for plan in PLANS[PLANS.index(SHARED[kind]) :]:
        scores = Scorer(model, YES, NO, plan=plan).log_odds(prefix, suffixes)
        torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("plan", "tokens"),
    [
        ("packed", [40, 3 + 9 + 5 + 1 + 14]),  # the prefix, then all suffixes and no padding
        ("fork", [40, 5 * 14]),  # the prefix, then all suffixes as long as the longest
        ("batch", [5 * (40 + 14)]),
    ],
)
def test_tokens_sent_through_the_model(llama, plan, tokens):
    prefix, suffixes = prompts()
    scorer = Scorer(llama, YES, NO, plan=plan)
    seen = watch(llama)
    scorer.log_odds(prefix, suffixes)
    assert seen == tokens
    assert scorer.forwarded_tokens == sum(tokens)


@pytest.mark.parametrize("plan", ["packed", "fork"])
def test_what_all_suffixes_begin_with_joins_the_prefix(llama, plan):
    prefix, suffixes = prompts(lengths=(3, 9))
    headed = [[7, 8, 9, *suffix] for suffix in suffixes]
    scorer = Scorer(llama, YES, NO, plan=plan)
    seen = watch(llama)
    scores = scorer.log_odds(prefix, headed)
    assert seen[0] == 40 + 3
    torch.testing.assert_close(scores, one_by_one(llama, prefix, headed), atol=1e-4, rtol=0)


def test_short_prefixes_are_forked_unless_a_plan_is_named(llama, monkeypatch):
    prefix, suffixes = prompts()
    scorer = Scorer(llama, YES, NO)
    assert scorer.plan == "packed"
    scorer.log_odds(prefix, suffixes)
    assert scorer.forwarded_tokens == 40 + 5 * 14
    monkeypatch.setattr("trsr.core.scoring.SHORT_PREFIX", 40)
    scorer.log_odds(prefix, suffixes)
    assert scorer.forwarded_tokens == 40 + 5 * 14 + 40 + 32


def test_equal_suffixes_are_scored_once(llama):
    prefix, suffixes = prompts()
    scorer = Scorer(llama, YES, NO, plan="packed")
    scores = scorer.log_odds(prefix, suffixes + suffixes[::-1])
    assert scorer.forwarded_tokens == 40 + 32
    assert scores[:5].tolist() == scores[5:].flip(0).tolist()


def test_one_candidate_is_one_forward(llama):
    prefix, suffixes = prompts(lengths=(9,))
    scorer = Scorer(llama, YES, NO)
    seen = watch(llama)
    scores = scorer.log_odds(prefix, suffixes)
    assert seen == [49]
    torch.testing.assert_close(scores, one_by_one(llama, prefix, suffixes), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("plan", "most"), [("packed", 512), ("fork", 1500), ("batch", 1500)])
def test_a_forward_does_not_grow_with_the_number_of_candidates(llama, plan, most):
    prefix, suffixes = prompts(lengths=(6,) * 1000)
    seen = watch(llama)
    Scorer(llama, YES, NO, plan=plan, group_tokens=1500).log_odds(prefix, suffixes)
    assert max(seen) <= most


def test_even_groups_leave_no_small_rest():
    lengths = [40] * 27
    made = list(groups.split_evenly(lengths, 512))
    assert [len(group) for group in made] == [9, 9, 9]
    assert [place for group in made for place in group] == list(range(27))
    assert list(groups.split_evenly([7, 900, 7], 512)) == [[0], [1], [2]]


def test_level_groups_hardly_pad():
    lengths = [50, 20, 49, 21, 48, 20]
    assert list(groups.batch_by_length(lengths, most=1000, padding=10)) == [[0, 2, 4], [3, 1, 5]]
    assert list(groups.batch_by_length(lengths, most=100, padding=10)) == [[0, 2], [4], [3, 1, 5]]


@pytest.mark.parametrize("plan", ["packed", "fork"])
def test_only_answer_positions_go_through_the_head(llama, plan):
    prefix, suffixes = prompts()
    scorer = Scorer(llama, YES, NO, plan=plan)
    rows = []
    llama.lm_head.register_forward_hook(lambda module, args, out: rows.append(tuple(out.shape)))
    scorer.log_odds(prefix, suffixes)
    assert rows == [(0, 1, 600), (5, 1, 600)]
    assert not llama.lm_head._forward_pre_hooks


def test_a_model_without_a_cache_steps_down_and_says_so_once(caplog):
    model = tiny.model("mamba")
    prefix, suffixes = prompts()
    logging.warning_once.cache_clear()
    scorers = [Scorer(model, YES, NO) for _ in range(2)]
    assert caplog.text.count("MambaForCausalLM is scored by batch, not packed: it has linear_attention layers") == 1
    assert scorers[0].plan == "batch"
    assert set(scorers[0].stepped_down) == {"packed", "fork"}
    torch.testing.assert_close(
        scorers[0].log_odds(prefix, suffixes), one_by_one(model, prefix, suffixes), atol=1e-4, rtol=0
    )
    with pytest.raises(ValueError, match="cannot be scored by fork: its selective scan restarts from zero state"):
        Scorer(model, YES, NO, plan="fork")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_wrong_cache_is_noticed_by_the_probe(llama, dtype, monkeypatch):
    def wrong(cache, rows):
        forked = fork(cache, rows)
        forked.layers[0].values = forked.layers[0].values * 1.5
        return forked

    monkeypatch.setattr("trsr.core.forward.fork", wrong)
    scorer = Scorer(llama.to(dtype), YES, NO)
    assert scorer.plan == "batch"
    assert "would change the logits" in scorer.stepped_down["packed"]


def test_a_state_that_no_probe_could_judge_is_not_forked(monkeypatch):
    model = tiny.model("qwen3_5_text")
    monkeypatch.setattr("trsr.core.fork._STATEFUL", ())
    assert Scorer(model, YES, NO).plan == "fork"
    assert Scorer(model.to(torch.bfloat16), YES, NO).plan == "batch"


@pytest.mark.parametrize("kind", ["llama", "qwen3_5_text", "gemma3_text"])
def test_half_precision_is_as_near_to_the_truth_as_one_by_one(kind):
    prefix, suffixes = prompts(lengths=range(1, 25))
    truth = one_by_one(tiny.model(kind), prefix, suffixes)
    model = tiny.model(kind).to(torch.bfloat16)
    noise = (one_by_one(model, prefix, suffixes) - truth).abs()
    assert Scorer(model, YES, NO).plan == SHARED[kind]
    scorer = Scorer(model, YES, NO, plan=SHARED[kind])
    error = (scorer.log_odds(prefix, suffixes) - truth).abs()
    assert error.mean() < 1.5 * noise.mean()
    assert error.max() < 2 * noise.max()


def lora(model):
    torch.manual_seed(3)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    return adapted.eval()


@pytest.mark.parametrize("kind", ["llama", "qwen3_5_text"])
def test_an_active_adapter_counts(kind, tmp_path):
    prefix, suffixes = prompts()
    plain = one_by_one(tiny.model(kind), prefix, suffixes)
    adapted = lora(tiny.model(kind))
    expected = one_by_one(adapted, prefix, suffixes)
    assert (expected - plain).abs().max() > 0.1
    assert Scorer(adapted, YES, NO).plan == SHARED[kind]
    scorer = Scorer(adapted, YES, NO, plan=SHARED[kind])
    torch.testing.assert_close(scorer.log_odds(prefix, suffixes), expected, atol=1e-4, rtol=0)
    with adapted.disable_adapter():
        torch.testing.assert_close(scorer.log_odds(prefix, suffixes), plain, atol=1e-4, rtol=0)

    adapted.save_pretrained(tmp_path)
    model = tiny.model(kind)
    model.load_adapter(str(tmp_path))
    assert Scorer(model.eval(), YES, NO).plan == SHARED[kind]
    scorer = Scorer(model, YES, NO, plan=SHARED[kind])
    torch.testing.assert_close(scorer.log_odds(prefix, suffixes), expected, atol=1e-4, rtol=0)


def test_virtual_tokens_before_the_prompt_are_not_shared(llama):
    prefix, suffixes = prompts()
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    adapted = get_peft_model(llama, config).eval()
    scorer = Scorer(adapted, YES, NO)
    assert scorer.plan == "batch"
    torch.testing.assert_close(
        scorer.log_odds(prefix, suffixes), one_by_one(adapted, prefix, suffixes), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("kind", ["llama", "qwen3_5_text", "gemma3_text"])
@pytest.mark.parametrize("placed", ["cpu", "auto", "offloaded"])
def test_placed_by_accelerate(kind, placed, tmp_path):
    prefix, suffixes = prompts()
    model = tiny.model(kind)
    expected = one_by_one(model, prefix, suffixes)
    if placed == "offloaded":
        model = accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
        assert next(model.parameters()).device.type == "meta"
    else:
        model.save_pretrained(tmp_path)
        model = AutoModelForCausalLM.from_pretrained(tmp_path, device_map=placed)
        if model.device.type != "cpu":
            pytest.skip("there is an accelerator, and its arithmetic is another")
    assert Scorer(model, YES, NO).plan == SHARED[kind]
    scorer = Scorer(model, YES, NO, plan=SHARED[kind])
    torch.testing.assert_close(scorer.log_odds(prefix, suffixes), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("prefix_length", [20, 30, 50])
@pytest.mark.parametrize("plan", PLANS)
def test_frequencies_that_depend_on_the_length(plan, prefix_length):
    # Prompts of 31 to 44 tokens behind a prefix of 30 are rotated now by the short factors, now by the long ones.
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [1.0, 2.0, 4.0, 8.0],
        "original_max_position_embeddings": 36,
        "factor": 4.0,
    }
    model = tiny.model("llama", rope_parameters=rope, max_position_embeddings=144)
    prefix, suffixes = prompts(prefix=prefix_length)
    scores = Scorer(model, YES, NO, plan=plan).log_odds(prefix, suffixes)
    torch.testing.assert_close(scores, one_by_one(model, prefix, suffixes), atol=1e-4, rtol=0)


def test_dynamic_frequencies_are_shared_up_to_the_trained_length(llama):
    llama.config.rope_parameters = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    llama.config.max_position_embeddings = 64
    assert same_rotation(llama.config, 40, [50, 64])
    assert not same_rotation(llama.config, 40, [50, 65])


def test_the_prefix_cache_is_left_as_it_was(llama):
    prefix, suffixes = prompts()
    cache = prefill(llama, torch.tensor(prefix))
    before = [layer.keys.clone() for layer in cache.layers]
    llama(
        input_ids=torch.tensor([suffixes[1]] * 3),
        **{cache_name(llama): fork(cache, torch.zeros(3, dtype=torch.long))},
        position_ids=torch.arange(40, 49).expand(3, -1),
    )
    assert cache.get_seq_length() == 40
    for layer, keys in zip(cache.layers, before, strict=True):
        assert torch.equal(layer.keys, keys)


@pytest.mark.parametrize("kind", ["llama", "qwen3_5_text", "gemma3_text"])
def test_gradients_flow_back_through_the_fork(kind):
    model = tiny.model(kind).train()
    prefix, suffixes = prompts(lengths=(6, 6, 6))

    def gradients(logits):
        model.zero_grad()
        (logits[..., YES] - logits[..., NO]).sum().backward()
        return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])

    separate = gradients(model(input_ids=torch.tensor([prefix + suffix for suffix in suffixes])).logits[:, -1])
    cache = prefill(model, torch.tensor(prefix))
    shared = gradients(
        model(
            input_ids=torch.tensor(suffixes),
            **{cache_name(model): fork(cache, torch.zeros(3, dtype=torch.long))},
            position_ids=torch.arange(40, 46).expand(3, -1),
        ).logits[:, -1]
    )
    assert (shared - separate).abs().max() <= 1e-4 * separate.abs().max()


def test_corners(llama):
    scorer = Scorer(llama, YES, NO)
    assert scorer.log_odds([1, 2], []).shape == (0,)
    with pytest.raises(ValueError, match="at least one token"):
        scorer.log_odds([], [[1]])
    with pytest.raises(ValueError, match="at least one token"):
        scorer.log_odds([1], [[1], []])
    with pytest.raises(ValueError, match="expected one of packed, fork, batch"):
        Scorer(llama, YES, NO, plan="tree")


def test_equal_scores_keep_their_order():
    assert rank([0.5, 2.0, 0.5, 2.0]) == [1, 3, 0, 2]
    assert rank([1.0, -math.inf, math.inf]) == [2, 0, 1]


def test_scores_that_are_no_numbers_have_no_order():
    with pytest.raises(TrsrError, match="NaN cannot be ranked"):
        rank([1.0, math.nan, 3.0])


@torch.no_grad()
def test_log_odds_that_are_not_finite_are_no_scores():
    """Values beyond 65,504 are infinite in fp16; of damaged weights they are in fp32 too."""
    model = tiny.model("llama")
    prefix, suffixes = prompts()
    weight = model.model.layers[-1].mlp.down_proj.weight
    weight *= 1e7
    assert Scorer(model, YES, NO).log_odds(prefix, suffixes).isfinite().all()
    with pytest.raises(TrsrError, match=r"5 of 5 log-odds are not finite.* torch.float16.* dtype=torch.float32\."):
        Scorer(model.half(), YES, NO).log_odds(prefix, suffixes)
    model.float()
    weight[0, 0] = math.nan
    with pytest.raises(
        TrsrError, match=r"5 of 5 log-odds are not finite.* torch.float32 already: its weights are damaged"
    ):
        Scorer(model, YES, NO).log_odds(prefix, suffixes)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
@torch.no_grad()
def test_a_head_in_half_precision_tells_candidates_apart(kind, plan):
    """In bf16 logits of about 20 come in steps of 1/8; the two answers' are computed in fp32 from the same hidden states."""
    model = tiny.model(kind)
    weight = model.get_output_embeddings().weight
    weight[YES] *= 40 / model(torch.tensor([[7, 8, 9]])).logits[0, -1, YES].abs()
    weight[NO] = weight[YES] * (1 + 0.05 * torch.randn(len(weight[YES]), generator=torch.Generator().manual_seed(0)))
    model = model.to(torch.bfloat16)
    prefix, suffixes = prompts(lengths=(4,) * 40)
    scores = Scorer(model, YES, NO, plan=plan).log_odds(prefix, suffixes)
    coarse = one_by_one(model, prefix, suffixes)
    assert len(coarse.unique()) < 40
    assert len(scores.unique()) == 40
    weight = model.get_output_embeddings().weight.float()
    hidden = [
        model.model(input_ids=torch.tensor([prefix + suffix])).last_hidden_state[0, -1].float() for suffix in suffixes
    ]
    expected = torch.stack(hidden) @ (weight[YES] - weight[NO])
    # What is left is the noise of the hidden states, whose batches differ.
    assert (scores - expected).abs().mean() < (coarse - expected).abs().mean()
    # The head is as before.
    assert model(torch.tensor([[7, 8, 9]])).logits.dtype == torch.bfloat16
