"""Training on shared prefixes against prompts one by one: losses, gradients and token counts, no clocks.

Run as a script it is one of the processes of `test_two_processes`.
"""

import inspect
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, Mamba2ForCausalLM, TrainerCallback
from trl import SFTConfig

from tests import tiny
from trsr.core import forward
from trsr.core.exactness import Fp32
from trsr.core.fork import fork
from trsr.core.packed import Row
from trsr.errors import InputError
from trsr.recommender import shared_prefix, user_attention
from trsr.recommender.recipe import build_recipe
from trsr.recommender.shared_prefix import batch_logits, choose_plan, losses
from trsr.recommender.train import AdapterTrainer, UserTrainer, train
from trsr.recommender.user_attention import Users

pytestmark = pytest.mark.compat

YES, NO = 5, 6

COMMON = tiny.configs()["llama"]
BARE = {key: value for key, value in COMMON.items() if key != "head_dim"}
WINDOW = {"sliding_window": 8}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 16}
# Windows are shorter than every prefix here.
CONFIGS = {
    **tiny.configs(),
    "qwen2": COMMON,
    "qwen3_next": {
        **tiny.configs()["qwen3_5_text"],
        **EXPERTS,
        "shared_expert_intermediate_size": 16,
        "decoder_sparse_step": 1,
    },
    "gemma2": {**COMMON, **WINDOW, "query_pre_attn_scalar": 8},
    "phi3": {**COMMON, **WINDOW},
    "smollm3": {**COMMON, "no_rope_layers": [1, 0]},
    "olmo2": COMMON,
    "granite": COMMON,
    "gpt_oss": {**COMMON, **WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt_neox": BARE,
    "lfm2": {**COMMON, "num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]},
    "falcon_h1": {**COMMON, **MAMBA, "mamba_d_ssm": 64},
    "bamba": {**COMMON, **MAMBA, "attn_layer_indices": [1]},
    "jamba": {**BARE, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2},
    "mamba2": {
        **{"vocab_size": 600, "hidden_size": 32, "num_hidden_layers": 2, "expand": 2},
        **{"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 16},
    },
}
ATTENTION = "llama qwen2 qwen3 gemma2 gemma3_text mistral phi3 smollm3 olmo2 granite gpt_oss gpt2 gpt_neox".split()
HYBRID = "qwen3_5_text qwen3_next lfm2 falcon_h1 bamba".split()
UNSHARED = "jamba mamba".split()
# Since transformers 5.24 its state can be handed on as any other cache.
(HYBRID if "cache" in inspect.signature(Mamba2ForCausalLM.forward).parameters else UNSHARED).append("mamba2")


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def adapted(kind, seed=0, checkpointing=False, dtype=torch.float32, **changes):
    """A tiny model with LoRA in fp32 on its linear layers, both its matrices away from zero, in training mode."""
    torch.manual_seed(seed)
    options = {"attention_dropout": 0.0} if "num_attention_heads" in CONFIGS[kind] else {}
    if kind == "gpt2":
        options = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    config = AutoConfig.for_model(kind, **{**CONFIGS[kind], **options, **changes})
    base = tiny._spread(AutoModelForCausalLM.from_config(config)).to(dtype)
    # peft refuses it in Mamba layers, whose kernels read its weight directly.
    without = ["out_proj"] if kind in {"falcon_h1", "bamba", "jamba", "mamba", "mamba2"} else None
    lora = LoraConfig(r=4, target_modules="all-linear", exclude_modules=without, task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, 0, 0.1)
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    return model.train()


def prompts(lengths=(3, 9, 5, 1, 14), prefix=40, seed=1):
    generator = torch.Generator().manual_seed(seed)

    def ids(count):
        return torch.randint(7, 600, (count,), generator=generator).tolist()

    return ids(prefix), [ids(length) for length in lengths]


def gradients(model):
    # Mamba layers read one weight directly, past its adapter.
    slopes = {name: weight.grad for name, weight in model.named_parameters() if "lora_" in name}
    return torch.cat([slope.flatten() for slope in slopes.values() if slope is not None])


def answers(count):
    return torch.tensor([YES] + [NO] * (count - 1))


def answer_logits(model, prefix, suffixes, plan):
    """The logits of one user's prompts."""
    ids = torch.tensor([token for part in (prefix, *suffixes) for token in part])
    return batch_logits(model, ids, [[len(prefix), *map(len, suffixes)]], plan)


def shared(model, prefix, suffixes, plan):
    """Loss and LoRA gradients by a plan."""
    model.zero_grad()
    loss = F.cross_entropy(answer_logits(model, prefix, suffixes, plan), answers(len(suffixes)))
    loss.backward()
    return loss.item(), gradients(model)


def separate(model, prefix, suffixes):
    """Loss and LoRA gradients of one prompt after the other, without anything of ours."""
    model.zero_grad()
    total = 0.0
    for suffix, answer in zip(suffixes, answers(len(suffixes)), strict=True):
        logits = model(input_ids=torch.tensor([prefix + suffix]), use_cache=False).logits[0, -1]
        loss = F.cross_entropy(logits, answer) / len(suffixes)
        loss.backward()
        total += loss.item()
    return total, gradients(model)


def assert_equal(found, expected, most=1e-5):
    (loss, slopes), (true_loss, true_slopes) = found, expected
    assert loss == pytest.approx(true_loss, rel=most)
    assert true_slopes.norm() > 1e-3, "gradients that hardly differ from nothing would prove nothing"
    assert (slopes - true_slopes).norm() <= most * true_slopes.norm()


def example(prefix, suffixes):
    return shared_prefix.row(prefix, suffixes, answers(len(suffixes)).tolist())


# Exactness


@pytest.mark.parametrize("kind", ATTENTION)
def test_joint_equals_prompts_one_by_one(kind):
    model = adapted(kind)
    prefix, suffixes = prompts()
    assert choose_plan(model, example(prefix, suffixes)) == "joint"
    assert_equal(shared(model, prefix, suffixes, "joint"), separate(model, prefix, suffixes))


@pytest.mark.parametrize("kind", ATTENTION + HYBRID)
def test_fork_equals_prompts_one_by_one(kind):
    model = adapted(kind)
    prefix, suffixes = prompts()
    if kind in HYBRID:
        assert choose_plan(model, example(prefix, suffixes)) == "fork"
    exact = 1e-4 if kind in HYBRID else 1e-5
    assert_equal(shared(model, prefix, suffixes, "fork"), separate(model, prefix, suffixes), exact)


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "mistral"])
@pytest.mark.parametrize("plan", ["joint", "fork"])
def test_eager_attention(kind, plan):
    model = adapted(kind, attn_implementation="eager")
    prefix, suffixes = prompts()
    assert_equal(shared(model, prefix, suffixes, plan), separate(model, prefix, suffixes))


@pytest.mark.parametrize("kind", UNSHARED)
def test_models_that_cannot_be_forked_take_rows(kind, caplog):
    model = adapted(kind)
    prefix, suffixes = prompts()
    assert choose_plan(model, example(prefix, suffixes)) == "rows"
    told = [record.getMessage() for record in caplog.records if record.name == "trsr.recommender.shared_prefix"]
    assert len(told) == 1
    assert "Every prompt goes through whole." in told[0]
    assert_equal(shared(model, prefix, suffixes, "rows"), separate(model, prefix, suffixes))


@pytest.mark.parametrize("kind", HYBRID)
def test_state_leaks_through_a_mask_so_hybrids_take_rows_with_gradient_checkpointing(kind):
    model = adapted(kind, checkpointing=True)
    prefix, suffixes = prompts()
    assert choose_plan(model, example(prefix, suffixes), checkpointing=True) == "rows"
    assert_equal(shared(model, prefix, suffixes, "rows"), separate(model, prefix, suffixes))


def causal(row, window=None):
    """A mask that lets candidates see those before them."""
    width = row.prefix + len(row.positions)
    return torch.ones(width, width, dtype=torch.bool).tril()[row.prefix :]


@DTYPES
def test_a_wrong_mask_is_noticed(dtype, monkeypatch):
    model = adapted("llama", dtype=dtype)
    prefix, suffixes = prompts()
    expected = separate(model, prefix, suffixes)
    monkeypatch.setattr(Row, "visible", causal)
    with pytest.raises(AssertionError):
        assert_equal(shared(model, prefix, suffixes, "joint"), expected)
    assert choose_plan(model, example(prefix, suffixes)) == "fork"
    assert choose_plan(model, example(prefix, suffixes), checkpointing=True) == "rows"


@DTYPES
def test_a_look_at_the_user_before_is_noticed(dtype, monkeypatch):
    """Of a batch with one user alone nobody could tell."""

    def farther(users, user, window):
        *_, (queries, keys, visible) = first, _ = right(users, user, window)
        yield first
        shown = torch.ones(len(visible), keys.start, dtype=torch.bool)
        yield queries, slice(0, keys.stop), torch.cat([shown, visible], 1)

    model = adapted("llama", dtype=dtype)
    right = Users._of_user
    monkeypatch.setattr(Users, "_of_user", farther)
    assert choose_plan(model, example(*prompts())) == "fork"


@DTYPES
def test_a_window_left_out_of_the_mask_is_noticed(dtype, monkeypatch):
    model = adapted("mistral", dtype=dtype)
    right = Row.visible
    monkeypatch.setattr(Row, "visible", lambda row, window=None: right(row))
    assert choose_plan(model, example(*prompts())) == "fork"
    assert choose_plan(model, example(*prompts()), checkpointing=True) == "rows"


@DTYPES
def test_positions_too_far_by_one_are_noticed(dtype, monkeypatch):
    def ahead(prefix, lengths, device=None):
        row = right(prefix, lengths, device)
        return Row(row.prefix, row.positions + 1, row.owners, row.ends)

    model = adapted("llama", dtype=dtype)
    right, places = Row.of, forward.position_ids
    monkeypatch.setattr(Row, "of", ahead)
    assert choose_plan(model, example(*prompts())) == "fork"
    assert choose_plan(model, example(*prompts()), checkpointing=True) == "rows"
    monkeypatch.setattr(forward, "position_ids", lambda start, ids: places(start + (start > 0), ids))
    assert choose_plan(model, example(*prompts())) == "rows"


@DTYPES
def test_a_state_that_is_dropped_is_noticed(dtype, monkeypatch):
    def forgetful(cache, rows):
        forked = fork(cache, rows)
        forked.layers[0].recurrent_states = {0: torch.zeros_like(forked.layers[0].recurrent_states[0])}
        return forked

    model = adapted("qwen3_5_text", dtype=dtype)
    assert choose_plan(model, example(*prompts())) == "fork"
    monkeypatch.setattr("trsr.core.forward.fork", forgetful)
    assert choose_plan(model, example(*prompts())) == "rows"


@pytest.mark.parametrize(("kind", "plan"), [("llama", "joint"), ("gemma3_text", "joint"), ("qwen3_5_text", "fork")])
@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_rounding_is_no_fault(kind, plan, how):
    """Logits as far apart as a pretrained model's, which bf16 changes by more than 0.15 whatever the way."""
    model = adapted(kind, dtype=torch.bfloat16 if how == "weights" else torch.float32, tie_word_embeddings=False)
    with torch.no_grad():
        model.get_output_embeddings().weight *= 200
        with Fp32():
            truth = answer_logits(model.eval(), *prompts(), "rows")
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "autocast"):
            assert (answer_logits(model, *prompts(), "rows") - truth).abs().max() > 0.15
            assert choose_plan(model, example(*prompts())) == plan


def test_what_users_in_one_row_see():
    users = Users([[2, 2, 1], [1, 1]], torch.device("cpu"))
    assert users.positions.tolist() == [0, 1, 2, 3, 2, 0, 1]
    assert users.ends.tolist() == [3, 4, 6]

    def shown(window):
        seen = torch.zeros(7, 7, dtype=torch.int)
        for queries, keys, visible in users.parts(window):
            seen[queries, keys] = visible.int()
        return ["".join(map(str, row)) for row in seen.tolist()]

    assert shown(None) == ["1000000", "1100000", "1110000", "1111000", "1100100", "0000010", "0000011"]
    assert shown(2) == ["1000000", "1100000", "0110000", "0011000", "0100100", "0000010", "0000011"]


@DTYPES
@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt_oss"])
def test_users_in_one_row_equal_users_one_by_one(kind, dtype):
    """In bf16, on a CPU, attention is computed by other products."""
    model = adapted(kind, dtype=dtype)
    batch = shared_prefix.collate([example(*user) for user in users()])
    lengths = batch["seq_lengths"]
    with torch.no_grad():
        expected = batch_logits(model, batch["input_ids"], lengths, "rows").float()
        found = batch_logits(model, batch["input_ids"], lengths, "joint").float()
    assert found.shape == (14, 600)
    assert (found - expected).norm() / (expected - expected.mean(-1, keepdim=True)).norm() < (
        1e-5 if dtype == torch.float32 else 0.05
    )
    assert model.config._attn_implementation != user_attention.NAME, "the former attention is back"


def test_users_of_unequal_rotation_are_read_one_by_one():
    """Frequencies that depend on the longest prompt of a row must not depend on who else is in it."""
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    model = adapted("llama", rope_parameters=rope, max_position_embeddings=32)
    batch = shared_prefix.collate([example(*user) for user in users()])
    with torch.no_grad():
        expected, found = (
            batch_logits(model, batch["input_ids"], batch["seq_lengths"], plan) for plan in ("rows", "joint")
        )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_probe_leaves_no_trace():
    model = adapted("llama")
    state = torch.get_rng_state()
    choose_plan(model, example(*prompts()))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not model.get_output_embeddings()._forward_pre_hooks


@pytest.mark.parametrize("plan", shared_prefix.PLANS)
def test_corners(plan):
    model = adapted("llama")
    prefix, (suffix, *_) = prompts()
    assert answer_logits(model, prefix, [suffix], plan).shape == (1, 600)
    for wrong in (([], [suffix]), (prefix, [suffix, []]), (prefix, [])):
        with pytest.raises(InputError, match="at least one token"):
            answer_logits(model, *wrong, plan)
    with pytest.raises(InputError, match="expected one of joint, fork, rows"):
        answer_logits(model, prefix, [suffix], "bush")


# What is computed


@pytest.mark.parametrize(
    ("plan", "tokens"),
    [
        ("joint", [40 + 3 + 9 + 5 + 1 + 14]),
        ("fork", [40, 5 * 14]),
        ("rows", [5 * (40 + 14)]),
    ],
)
def test_tokens_sent_through_the_model(plan, tokens):
    """And through its head: the answers alone."""
    model = adapted("llama")
    forwarded, answered = [], []
    model.get_input_embeddings().register_forward_hook(lambda module, args, out: forwarded.append(args[0].numel()))
    model.get_output_embeddings().register_forward_hook(lambda module, args, out: answered.append(out[..., 0].numel()))
    answer_logits(model, *prompts(), plan)
    assert forwarded == tokens
    assert [count for count in answered if count] == [5]


def test_a_row_holds_what_the_prompts_share_once():
    made = shared_prefix.row([1, 2], [[3, 4, 5], [3, 4], [3, 4, 6, 7]], [YES, NO, NO])
    # One token at least stays of each suffix.
    assert made == {"input_ids": [1, 2, 3, 4, 5, 4, 4, 6, 7], "seq_lengths": [3, 2, 1, 3], "labels": [YES, NO, NO]}
    alike = shared_prefix.row([1], [[2, 3], [2, 3]], [YES, NO])
    assert alike == {"input_ids": [1, 2, 3, 3], "seq_lengths": [2, 1, 1], "labels": [YES, NO]}


def test_losses_by_hand():
    """Two users with two and three candidates; a vocabulary of no, yes and one more word."""
    three, nine = math.log(3), math.log(9)
    logits = torch.tensor([[0.0, three, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [three, 0.0, 0.0], [0.0, nine, 0.0]])
    labels = torch.tensor([1, 0, 0, 1, 0])
    # The answer among 3 words; the odds of yes are 3, 1 and 1, 1/3, 9, and the chosen ones are the first and the second.
    answer = -torch.tensor([3 / 5, 1 / 3, 1 / 3, 1 / 5, 1 / 11]).log()
    chosen = -torch.tensor([3 / 4, 3 / 4, 1 / 31, 1 / 31, 1 / 31]).log()
    for weight in (0.0, 0.3, 1.0):
        found = losses(logits, labels, [2, 3], yes=1, no=0, listwise=weight)
        torch.testing.assert_close(found, (1 - weight) * answer + weight * chosen)


# Through the trainer


class Slopes(TrainerCallback):
    """Keeps the gradients of the first step."""

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.first = gradients(model).clone()


def users(sizes=(2, 4, 3, 5)):
    """A prefix and suffixes a user."""
    # Of some token ids, fp32 is 3e-4 off fp64 in the gradients of linear attention, one prompt after the other too; not of these.
    return [
        prompts(lengths=[3 + (7 * n + place) % 11 for place in range(n)], prefix=20 + n, seed=40 + n) for n in sizes
    ]


def one_step(kind, form, folder, batch_size, accumulation, people=None, listwise=0.0, **options):
    """Loss, gradients and the trainer after one step on all users."""
    people = people or users()
    examples = [example(prefix, suffixes) for prefix, suffixes in people]
    flat = [
        {"input_ids": [*prefix, *suffix, answer], "labels": [-100] * len(prefix + suffix) + [answer]}
        for prefix, suffixes in people
        for suffix, answer in zip(suffixes, answers(len(suffixes)).tolist(), strict=True)
    ]
    arguments = SFTConfig(
        output_dir=str(folder),
        max_steps=1,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        use_cpu=True,
        bf16=False,
        max_length=None,
        max_grad_norm=0.0,
        logging_steps=1,
        optim="sgd",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        **{"gradient_checkpointing": False, **options},
    )
    common = {"processing_class": tiny.byte_level(), "train_dataset": Dataset.from_list(flat)}
    model = adapted(kind, checkpointing=arguments.gradient_checkpointing)
    if form == "flat":
        trainer = AdapterTrainer(model, arguments, **common)
    else:
        common["train_dataset"] = Dataset.from_list(examples)
        trainer = UserTrainer(model, arguments, yes_id=YES, no_id=NO, listwise=listwise, **common)
    slopes = Slopes()
    trainer.add_callback(slopes)
    loss = trainer.train().training_loss
    return (loss, slopes.first), trainer


@pytest.mark.parametrize(
    ("kind", "checkpointing", "plan"),
    [
        ("llama", False, "joint"),
        ("llama", True, "joint"),
        ("gemma3_text", True, "joint"),
        ("qwen3_5_text", False, "fork"),
        ("mamba", False, "rows"),
    ],
)
def test_a_step_equals_a_step_of_flat_rows(kind, checkpointing, plan, tmp_path):
    """Unequal groups, with and without accumulation: 14 candidates count alike wherever they stand."""
    options = {"gradient_checkpointing": checkpointing}
    expected, flat = one_step(kind, "flat", tmp_path, 7, 2, **options)
    exact = 1e-4 if kind in HYBRID else 1e-5
    for batch_size, accumulation in ((4, 1), (2, 2), (1, 4)):
        found, trainer = one_step(kind, "shared-prefix", tmp_path, batch_size, accumulation, **options)
        assert trainer.plan == plan
        assert_equal(found, expected, exact)
    logged, known = trainer.state.log_history[0], flat.state.log_history[0]
    # A mean over forwards, each of its own answers.
    right = [logged["mean_token_accuracy"], known["mean_token_accuracy"]]
    assert all(0 <= value <= 1 for value in right)
    if plan == "rows":
        # A flat row holds its answer too.
        assert logged["num_tokens"] == known["num_tokens"] - 14
    else:
        assert logged["num_tokens"] == sum(len(prefix) + sum(map(len, suffixes)) for prefix, suffixes in users())


def test_metrics_are_those_of_flat_rows(tmp_path):
    _, trainer = one_step("llama", "shared-prefix", tmp_path, 4, 1)
    _, flat = one_step("llama", "flat", tmp_path, 14, 1)
    for name in ("loss", "entropy", "mean_token_accuracy"):
        assert float(trainer.state.log_history[0][name]) == pytest.approx(
            float(flat.state.log_history[0][name]), rel=1e-5
        )


def test_a_listwise_step_is_the_mean_over_candidates(tmp_path):
    (loss, _), _ = one_step("llama", "shared-prefix", tmp_path, 2, 2, listwise=1.0)
    model = adapted("llama")
    total = 0.0
    with torch.no_grad():
        for prefix, suffixes in users():
            logits = answer_logits(model, prefix, suffixes, "rows")
            total -= len(suffixes) * (logits[:, YES] - logits[:, NO]).log_softmax(0)[0].item()
    assert loss == pytest.approx(total / 14, rel=1e-5)


@pytest.mark.parametrize("listwise", [0.0, 0.5])
def test_evaluation_on_users(listwise, tmp_path):
    _, trainer = one_step("llama", "shared-prefix", tmp_path, 4, 1, listwise=listwise)
    found = trainer.evaluate(trainer.train_dataset)
    assert math.isfinite(found["eval_loss"])
    assert 0 <= found["eval_mean_token_accuracy"] <= 1


# Two processes


def make_recipe(folder, processes):
    optim = {"device": "cpu", "batch_size": 4 // processes, "accumulation": 1, "max_steps": 3, "learning_rate": 1e-3}
    optim |= {"bf16": False, "gradient_checkpointing": False}
    return build_recipe(
        {
            "base": str(folder / "base"),
            "dataset": str(folder / "data"),
            "form": "shared-prefix",
            "negatives": 3,
            "lora": {"dropout": 0.0},
            "optim": optim,
        }
    )


def as_processes(folder, processes):
    """What each process does: a step on four users, then a run by recipe."""
    (loss, slopes), trainer = one_step("llama", "shared-prefix", folder / "step", 4 // processes, 1)
    if trainer.args.process_index == 0:
        torch.save({"loss": loss, "slopes": slopes, "logged": trainer.state.log_history[0]}, folder / f"{processes}.pt")
    train(make_recipe(folder, processes), folder / f"run-{processes}")


def test_two_processes_learn_what_one_does(tmp_path):
    tiny.save_base("meta-llama/Llama-3.2-1B", tmp_path / "base")
    tiny.dataset(tmp_path / "data")
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    paths = os.pathsep.join([str(root), str(root / "hub_recipes")])
    told = subprocess.run(
        [*command, str(Path(__file__)), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert told.returncode == 0, told.stderr
    as_processes(tmp_path, 1)

    one, two = (torch.load(tmp_path / f"{count}.pt") for count in (1, 2))
    assert_equal((two["loss"], two["slopes"]), (one["loss"], one["slopes"]))
    for name in ("entropy", "mean_token_accuracy", "num_tokens"):
        assert float(two["logged"][name]) == pytest.approx(float(one["logged"][name]), rel=1e-5)
    records = [json.loads((tmp_path / f"run-{count}" / "run.json").read_text(encoding="utf-8")) for count in (1, 2)]
    assert records[0]["loss"] == pytest.approx(records[1]["loss"], rel=1e-4)
    assert records[0]["steps"] == records[1]["steps"] == 3
    assert sorted(path.name for path in (tmp_path / "run-2").iterdir()) == [
        "adapter",
        "recipe.yaml",
        "run.json",
        "trained_on.json",
    ]


if __name__ == "__main__":
    as_processes(Path(sys.argv[1]), int(os.environ["WORLD_SIZE"]))
