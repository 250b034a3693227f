"""Every architecture, the plan that it takes, and its scores against one prompt at a time; wrong masks must show."""

import inspect

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Mamba2ForCausalLM

from tests import tiny
from tests.test_scoring import NO, YES, one_by_one, prompts
from trsr.core import forward
from trsr.core.fork import fork
from trsr.core.packed import Row, why_not_packable
from trsr.core.scoring import PLANS, Scorer

pytestmark = pytest.mark.compat

COMMON = {**tiny.configs()["llama"], "max_position_embeddings": 256}
# Without grouped keys.
OLD = {key: value for key, value in COMMON.items() if key not in ("num_key_value_heads", "head_dim")}
# The prefix of the tests has 40 tokens: the windows are shorter.
WINDOW = {"sliding_window": 8}
PAIR = {**WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
STATES = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}

# Architecture: (plan, keyword arguments of a tiny config).
MATRIX = {
    "llama": ("packed", COMMON),
    "gemma": ("packed", COMMON),
    "granite": ("packed", COMMON),
    "olmo2": ("packed", COMMON),
    "gpt_neox": ("packed", OLD),
    "gpt2": ("packed", tiny.configs()["gpt2"]),
    "opt": ("packed", {**OLD, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "falcon": ("packed", {**OLD, "new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False}),
    "mistral": ("packed", {**COMMON, **WINDOW}),
    "mixtral": ("packed", {**COMMON, **WINDOW, "num_local_experts": 4}),
    "phi3": ("packed", {**COMMON, **WINDOW}),
    "qwen3_moe": ("packed", {**COMMON, **EXPERTS, **WINDOW, "use_sliding_window": True}),
    "qwen2": ("packed", {**COMMON, **WINDOW, "use_sliding_window": True, "max_window_layers": 1}),
    "qwen3": ("packed", {**COMMON, **WINDOW, "use_sliding_window": True, "max_window_layers": 1}),
    "smollm3": ("packed", {**COMMON, **WINDOW, "use_sliding_window": True, "no_rope_layers": [1, 0]}),
    "olmo3": ("packed", {**COMMON, **PAIR}),
    "gemma2": ("packed", {**COMMON, **PAIR, "query_pre_attn_scalar": 8}),
    "gemma3_text": ("packed", {**COMMON, **PAIR, "query_pre_attn_scalar": 8}),
    "gpt_oss": ("packed", {**COMMON, **PAIR, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "gemma4_text": (
        "packed",
        {
            **COMMON,
            **WINDOW,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_hidden_layers": 4,
            "num_kv_shared_layers": 2,
            "vocab_size_per_layer_input": 600,
            "hidden_size_per_layer_input": 8,
            "global_head_dim": 16,
        },
    ),
    "bloom": ("fork", {"vocab_size": 600, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "qwen3_5_text": ("fork", {**COMMON, **LINEAR}),
    "qwen3_5_moe_text": ("fork", {**COMMON, **LINEAR, **EXPERTS, "shared_expert_intermediate_size": 16}),
    "qwen3_next": ("fork", {**COMMON, **LINEAR, **EXPERTS, "shared_expert_intermediate_size": 16}),
    "falcon_h1": ("fork", {**COMMON, **STATES, "mamba_d_ssm": 64}),
    "lfm2": ("fork", {**COMMON, "layer_types": ["conv", "full_attention"]}),
    "bamba": ("fork", {**COMMON, **STATES, "attn_layer_indices": [1]}),
    "jamba": (
        "batch",
        {
            **COMMON,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "num_experts": 2,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
        },
    ),
    "mamba": ("batch", tiny.configs()["mamba"]),
    "mamba2": (
        # Since transformers 5.24 its state can be handed on as any other cache.
        "fork" if "cache" in inspect.signature(Mamba2ForCausalLM.forward).parameters else "batch",
        {
            "vocab_size": 600,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "state_size": 8,
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 1,
            "chunk_size": 8,
        },
    ),
}
PACKED = [kind for kind, (plan, _) in MATRIX.items() if plan == "packed"]
WINDOWED = [kind for kind in PACKED if "sliding_window" in MATRIX[kind][1]]
STATEFUL = ["qwen3_5_text", "qwen3_5_moe_text", "qwen3_next", "falcon_h1", "lfm2", "bamba"]
EXACT = {"atol": 1e-4, "rtol": 0}
# In half precision faults are smaller than what rounding does to the logits, and must show all the same.
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def build(kind, attention=None, **changes):
    """A tiny model with weights large enough for wrong attention to show; skips where there is none."""
    try:
        config = AutoConfig.for_model(kind, **{**MATRIX[kind][1], **changes})
    except ValueError as error:
        pytest.skip(f"this transformers does not know {kind}: {error}")
    if attention:
        config._attn_implementation = attention
    torch.manual_seed(0)
    try:
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    except ValueError as error:
        if "does not support an attention implementation" not in str(error):
            raise
        pytest.skip(f"{kind} has no {attention} attention")
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() >= 2:
                weight.normal_(0, 0.2)
    return model.eval()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", MATRIX)
def test_every_architecture(kind, attention):
    model = build(kind, attention)
    prefix, suffixes = prompts()
    scorer = Scorer(model, YES, NO)
    assert scorer.plan == MATRIX[kind][0]
    assert list(scorer.stepped_down) == list(PLANS[: PLANS.index(scorer.plan)])
    expected = one_by_one(model, prefix, suffixes)
    assert expected.std() > 0.3, "scores that hardly differ would prove nothing"
    torch.testing.assert_close(scorer.log_odds(prefix, suffixes), expected, **EXACT)
    for plan in PLANS[PLANS.index(scorer.plan) :]:
        scorer = Scorer(model, YES, NO, plan=plan)
        torch.testing.assert_close(scorer.log_odds(prefix, suffixes), expected, **EXACT)
        if plan == "packed":
            assert scorer.forwarded_tokens == len(prefix) + sum(map(len, suffixes))


@pytest.mark.parametrize("base", tiny.BASES)
def test_every_base_of_a_recipe(base, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny.save_base(base, tmp_path)).eval()
    prefix, suffixes = prompts(most=model.get_input_embeddings().weight.shape[0])
    scorer = Scorer(model, YES, NO)
    assert scorer.plan == ("fork" if "Qwen3.5" in base else "packed")
    scorer = Scorer(model, YES, NO, plan=scorer.plan)
    torch.testing.assert_close(scorer.log_odds(prefix, suffixes), one_by_one(model, prefix, suffixes), **EXACT)


@pytest.mark.parametrize("kind", PACKED)
def test_groups_of_one_prefix_do_not_disturb_one_another(kind):
    model = build(kind)
    prefix, suffixes = prompts()
    scorer = Scorer(model, YES, NO, plan="packed", group_tokens=12)
    torch.testing.assert_close(scorer.log_odds(prefix, suffixes), one_by_one(model, prefix, suffixes), **EXACT)


@pytest.mark.parametrize("window", [1, 3, 8, 39, 40, 41, 60])
@pytest.mark.parametrize("kind", ["mistral", "qwen2"])
def test_windows_within_the_suffix_and_around_the_prefix(kind, window):
    model = build(kind, sliding_window=window)
    prefix, suffixes = prompts()
    scorer = Scorer(model, YES, NO, plan="packed")
    torch.testing.assert_close(scorer.log_odds(prefix, suffixes), one_by_one(model, prefix, suffixes), **EXACT)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", WINDOWED)
def test_a_mask_without_the_window_would_be_noticed(kind, attention, monkeypatch):
    model = build(kind, attention)
    prefix, suffixes = prompts()
    right = Row.visible
    monkeypatch.setattr(Row, "visible", lambda self, window=None: right(self))
    scores = Scorer(model, YES, NO, plan="packed").log_odds(prefix, suffixes)
    assert (scores - one_by_one(model, prefix, suffixes)).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["mistral", "qwen2"])
def test_a_window_counted_along_the_row_would_be_noticed(kind, monkeypatch):
    def along(self, window=None):
        seen = right(self)
        if window is not None:
            keys = torch.arange(seen.shape[1])
            seen &= keys > keys[self.prefix :, None] - window
        return seen

    model = build(kind)
    prefix, suffixes = prompts()
    right = Row.visible
    monkeypatch.setattr(Row, "visible", along)
    scores = Scorer(model, YES, NO, plan="packed").log_odds(prefix, suffixes)
    assert (scores - one_by_one(model, prefix, suffixes)).abs().max() > 1e-2


def assert_noticed(model, plan, instead):
    """That the probe finds fault with a plan, and with no plan that it should take instead."""
    scorer = Scorer(model, YES, NO)
    assert scorer.plan == instead
    assert "would change the logits" in scorer.stepped_down[plan]


@DTYPES
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", PACKED)
def test_suffixes_that_see_one_another_are_noticed_by_the_probe(kind, attention, dtype, monkeypatch):
    def leaky(self, window=None):
        seen = right(self, window)
        own = seen[:, self.prefix :]
        own |= torch.ones_like(own).tril()
        return seen

    model = build(kind, attention).to(dtype)
    prefix, suffixes = prompts()
    right = Row.visible
    monkeypatch.setattr(Row, "visible", leaky)
    scores = Scorer(model, YES, NO, plan="packed").log_odds(prefix, suffixes)
    assert (scores - one_by_one(model, prefix, suffixes)).abs().max() > 1e-2
    assert_noticed(model, "packed", "fork")


@DTYPES
@pytest.mark.parametrize("kind", WINDOWED)
def test_a_window_left_out_is_noticed_by_the_probe(kind, dtype, monkeypatch):
    right = Row.visible
    monkeypatch.setattr(Row, "visible", lambda self, window=None: right(self))
    assert_noticed(build(kind).to(dtype), "packed", "fork")


@DTYPES
@pytest.mark.parametrize("kind", PACKED)
def test_positions_too_far_by_one_are_noticed_by_the_probe(kind, dtype, monkeypatch):
    def ahead(prefix, lengths, device=None):
        row = right(prefix, lengths, device)
        return Row(row.prefix, row.positions + 1, row.owners, row.ends)

    right, places = Row.of, forward.position_ids
    monkeypatch.setattr(Row, "of", ahead)
    assert_noticed(build(kind).to(dtype), "packed", "fork")
    monkeypatch.setattr(forward, "position_ids", lambda start, ids: places(start + (start > 0), ids))
    assert_noticed(build(kind).to(dtype), "fork", "batch")


@DTYPES
@pytest.mark.parametrize("kind", STATEFUL)
def test_a_state_that_is_dropped_is_noticed_by_the_probe(kind, dtype, monkeypatch):
    def forgetful(cache, rows):
        forked = fork(cache, rows)
        for layer in forked.layers:
            for name in ("conv_states", "recurrent_states"):
                for state in getattr(layer, name, {}).values():
                    if state is not None:
                        state.zero_()
        return forked

    monkeypatch.setattr("trsr.core.forward.fork", forgetful)
    assert_noticed(build(kind).to(dtype), "fork", "batch")


@pytest.mark.parametrize("kind", MATRIX)
def test_rounding_is_no_fault(kind):
    assert Scorer(build(kind).to(torch.bfloat16), YES, NO).plan == MATRIX[kind][0]


def test_a_jamba_would_forget_the_prefix(monkeypatch):
    model = build("jamba")
    prefix, suffixes = prompts()
    monkeypatch.setattr("trsr.core.fork._FORGETFUL", ())
    scores = Scorer(model, YES, NO, plan="fork").log_odds(prefix, suffixes)
    assert (scores - one_by_one(model, prefix, suffixes)).abs().max() > 1e-2
    # Were it not for the list, the probe would still notice in fp32.
    assert Scorer(model, YES, NO).plan == "batch"


def test_the_mask_by_hand():
    # A prefix of 2, suffixes of 2 and 1; a window of 2 shows a token and the one before.
    row = Row.of(2, [2, 1])
    assert row.positions.tolist() == [2, 3, 2]
    assert row.owners.tolist() == [0, 0, 1]
    assert row.visible().int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]
    assert row.visible(2).int().tolist() == [[0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 1, 0, 0, 1]]


def test_the_kind_of_mask():
    row = Row.of(2, [2, 1])
    eager = row.masks(build("llama", "eager").config, torch.bfloat16)
    assert eager.dtype == torch.bfloat16
    assert eager.unique().tolist() == [torch.finfo(torch.bfloat16).min, 0]
    assert row.masks(build("llama", "sdpa").config, torch.bfloat16).dtype == torch.bool
    assert set(row.masks(build("qwen2").config, torch.float32)) == {"full_attention", "sliding_attention"}
    assert set(row.masks(build("qwen2", use_sliding_window=False).config, torch.float32)) == {"full_attention"}


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("llama", {"_attn_implementation": "flash_attention_2"}, "takes no ready-made mask"),
        ("llama", {"_attn_implementation": "flex_attention"}, "takes no ready-made mask"),
        ("llama", {"sliding_window": 8}, "a window is not expected"),
        ("falcon", {"alibi": True}, "alibi"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "looks to the right"),
        ("qwen3", {"sliding_window": None}, "name no window"),
        ("qwen3", {"layer_types": ["chunked_attention", "full_attention"]}, "chunked_attention layers"),
    ],
)
def test_what_is_not_known_is_not_packed(kind, changes, reason):
    model = build(kind)
    assert why_not_packable(model) is None
    for name, value in changes.items():
        setattr(model.config, name, value)
    assert reason in why_not_packable(model)
    with pytest.raises(ValueError, match="cannot be scored by packed"):
        Scorer(model, YES, NO, plan="packed")


def test_an_unknown_architecture_is_not_packed(monkeypatch):
    model = build("llama")
    monkeypatch.setattr(type(model.config), "model_type", "llama_of_tomorrow")
    assert why_not_packable(model) == "no mask is known for model type 'llama_of_tomorrow'"


def test_code_from_elsewhere_is_not_packed():
    model = build("llama")
    model.__class__ = type("Remote", (type(model),), {"__module__": "transformers_modules.someone.llama"})
    assert "is not the llama of transformers" in why_not_packable(model)
