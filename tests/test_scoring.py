"""Shared-prefix scores against one prompt at a time, on tiny models of real architectures. Counts tokens, no clocks."""

import pytest
import torch

from tests import tiny
from trsr.core.fork import fork
from trsr.core.scoring import Scorer, rank

YES, NO = 5, 6
SHARED = ("llama", "qwen3", "qwen3_5_text", "mistral", "gemma3_text", "gpt2")


def prompts(lengths=(3, 9, 5, 1, 14), prefix=40, seed=1):
    generator = torch.Generator().manual_seed(seed)

    def ids(count):
        return torch.randint(3, 600, (count,), generator=generator).tolist()

    return ids(prefix), [ids(length) for length in lengths]


@torch.no_grad()
def one_by_one(model, prefix, suffixes):
    logits = [model(input_ids=torch.tensor([prefix + suffix])).logits[0, -1].float() for suffix in suffixes]
    return torch.stack([one[YES] - one[NO] for one in logits])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", SHARED)
def test_shared_scores_equal_one_by_one(kind, attention):
    model = tiny.model(kind, attn_implementation=attention)
    prefix, suffixes = prompts()
    scorer = Scorer(model, YES, NO)
    assert scorer.plan == "fork"
    expected = one_by_one(model, prefix, suffixes)
    assert expected.std() > 0.05, "scores that hardly differ would prove nothing"
    torch.testing.assert_close(scorer.log_odds(prefix, suffixes), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", SHARED)
def test_groups_and_order_do_not_change_scores(kind):
    model = tiny.model(kind)
    prefix, suffixes = prompts()
    whole = Scorer(model, YES, NO, plan="fork").log_odds(prefix, suffixes)
    small = Scorer(model, YES, NO, plan="fork", group_tokens=100).log_odds(prefix, suffixes[::-1])
    torch.testing.assert_close(small, whole.flip(0), atol=1e-4, rtol=0)


def test_the_prefix_is_forwarded_once(llama):
    prefix, suffixes = prompts()
    scorer = Scorer(llama, YES, NO)
    seen = []
    llama.get_input_embeddings().register_forward_hook(lambda module, args, out: seen.append(args[0].numel()))
    scorer.log_odds(prefix, suffixes)
    assert seen == [40, 5 * 14]  # the prefix, then all suffixes padded to the longest
    assert scorer.forwarded_tokens == sum(seen)


def test_the_batch_plan_forwards_whole_prompts(llama):
    prefix, suffixes = prompts()
    scorer = Scorer(llama, YES, NO, plan="batch")
    torch.testing.assert_close(
        scorer.log_odds(prefix, suffixes), one_by_one(llama, prefix, suffixes), atol=1e-4, rtol=0
    )
    assert scorer.forwarded_tokens == 5 * (40 + 14)


def test_only_answer_positions_go_through_the_head(llama):
    prefix, suffixes = prompts()
    scorer = Scorer(llama, YES, NO)
    rows = []
    llama.lm_head.register_forward_hook(lambda module, args, out: rows.append(tuple(out.shape)))
    scorer.log_odds(prefix, suffixes)
    assert rows == [(1, 1, 600), (5, 1, 600)]
    assert not llama.lm_head._forward_pre_hooks


def test_a_model_without_a_cache_steps_down(caplog):
    model = tiny.model("mamba")
    prefix, suffixes = prompts()
    scorer = Scorer(model, YES, NO)
    assert scorer.plan == "batch"
    torch.testing.assert_close(
        scorer.log_odds(prefix, suffixes), one_by_one(model, prefix, suffixes), atol=1e-4, rtol=0
    )


def test_a_wrong_cache_is_noticed_by_the_probe(llama, monkeypatch):
    def wrong(cache, rows):
        forked = fork(cache, rows)
        for layer in forked.layers:
            layer.values = layer.values * 1.5
        return forked

    monkeypatch.setattr("trsr.core.scoring.fork", wrong)
    assert Scorer(llama, YES, NO).plan == "batch"


def test_the_prefix_cache_is_left_as_it_was(llama):
    prefix, suffixes = prompts()
    cache = llama(input_ids=torch.tensor([prefix]), use_cache=True).past_key_values
    before = [layer.keys.clone() for layer in cache.layers]
    llama(
        input_ids=torch.tensor([suffixes[1]] * 3),
        past_key_values=fork(cache, torch.zeros(3, dtype=torch.long)),
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
    cache = model(input_ids=torch.tensor([prefix]), use_cache=True).past_key_values
    shared = gradients(
        model(
            input_ids=torch.tensor(suffixes),
            past_key_values=fork(cache, torch.zeros(3, dtype=torch.long)),
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
    with pytest.raises(ValueError, match="expected one of fork, batch"):
        Scorer(llama, YES, NO, plan="tree")


def test_equal_scores_keep_their_order():
    assert rank([0.5, 2.0, 0.5, 2.0]) == [1, 3, 0, 2]
