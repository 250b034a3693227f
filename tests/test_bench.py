"""Every benchmark on tiny models: all systems run, agree and are recorded. Times are not judged."""

import json
import re
from pathlib import Path

import pytest
import torch

from bench import fill_tables, machinery, measure, precision, report, score, workloads
from bench.flops import Cost
from bench.run import main, run
from tests import tiny
from trsr.core.prompts import Encoder

ROOT = Path(__file__).parent.parent
FIGURES = {"ours", "peak_mib", "tokens", "measured_share", "difference", "exact", "flops_ratio", "seconds", "ratio"}
PEERS = {"paper", "dynamic", "dynamic-last", "text-generation", "decision"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for kind in ("llama", "qwen3_5_text"):
        made[kind] = tmp_path_factory.mktemp(kind)
        tiny.model(kind).save_pretrained(made[kind])
        tiny.byte_level().save_pretrained(made[kind])
    return made


@pytest.fixture
def short(monkeypatch):
    """The paper pads to 2,048 tokens; here 256 show as much."""
    monkeypatch.setattr(score, "PADDED", 256)


def exact(case):
    return {name: one["exact"] for name, one in case["systems"].items()}


@pytest.mark.parametrize("kind", ["llama", "qwen3_5_text"])
def test_score(kind, folders, tmp_path, short):
    out = tmp_path / "score.json"
    results = run("score", out, model=str(folders[kind]), cases=["120x9"], rounds=2, sweep=False)
    assert json.loads(out.read_text()) == results
    assert {"bench", "unit", "model", "seed", "rounds", "method", "processor", "versions", "cases"} == set(results)
    assert results["model"]["weights"] == "loaded"
    (case,) = results["cases"]
    packed = {"packed"} if kind == "llama" else set()
    assert set(case["systems"]) == {"fork", "batch"} | packed | PEERS
    assert all(set(one) == FIGURES for one in case["systems"].values())
    # The text-generation pipeline gives no scores.
    assert exact(case) == {name: None if name == "text-generation" else True for name in case["systems"]}
    assert case["score_spread"] > 0.01, "scores that hardly differ would prove nothing"
    assert case["systems"][case["best"]]["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert case["systems"][case["best"]]["tokens"] < case["systems"]["dynamic-last"]["tokens"]
    assert case["systems"]["paper"]["tokens"] == 9 * 256
    assert case["systems"]["paper"]["measured_share"] == 2 / 9
    assert case["systems"]["paper"]["peak_mib"] > case["systems"]["decision"]["peak_mib"] > 0


def test_prompts_have_the_lengths_asked_for():
    encoder = Encoder(tiny.byte_level())
    made = workloads.prompts(encoder, 150, 30, seed=1)
    assert made == workloads.prompts(encoder, 150, 30, seed=1)
    assert len(made.prefix) == 150
    assert all(20 <= len(one) <= 60 for one in made.suffixes)
    opening = made.suffixes[0][: made.shared - 150]
    assert len(opening) > 0
    assert all(opening + own == suffix for own, suffix in zip(made.own, made.suffixes, strict=True))
    with pytest.raises(ValueError, match="A prefix of 10 tokens is too short"):
        workloads.prompts(encoder, 10, 3, seed=1)


def test_a_plan_that_is_wrong_is_found_and_named(folders, tmp_path, short, monkeypatch, capsys):
    right = score.Scorer.log_odds

    def planted(self, prefix, suffixes):
        # As if candidates saw each other: only this plan, and only a little.
        return right(self, prefix, suffixes) + (0.01 * torch.arange(len(suffixes)) if self.plan == "batch" else 0)

    monkeypatch.setattr(score.Scorer, "log_odds", planted)
    out = tmp_path / "wrong.json"
    with pytest.raises(SystemExit) as stop:
        main(["score", "--model", str(folders["llama"]), "--cases", "120x3", "--rounds", "1"]
             + ["--no-sweep", "--no-plot", "--out", str(out)])  # fmt: skip
    assert stop.value.code == 2
    assert "batch is off by 0.02 at 120 x 3" in capsys.readouterr().err
    results = json.loads(out.read_text())
    assert exact(results["cases"][0])["batch"] is False
    assert exact(results["cases"][0])["fork"] is True
    assert "| ours, sorted batches, nothing shared | wrong |" in report.table(results)


@pytest.mark.parametrize("kind", ["llama", "qwen3_5_text"])
def test_train(kind, folders, tmp_path):
    results = run("train", tmp_path / "train.json", model=str(folders[kind]), cases=["120x5"], rounds=1)
    (case,) = results["cases"]
    masked = {"joint"} if kind == "llama" else set()
    assert set(case["systems"]) == {"fork", "rows", "sft"} | masked
    assert case["best"] == ("joint" if kind == "llama" else "fork")
    assert {name for name, right in exact(case).items() if right is not None} == masked | {"fork", "rows"}
    assert set(exact(case).values()) == {True, None}, "of the peer's batches the first stands for all"
    tokens = {name: one["tokens"] for name, one in case["systems"].items()}
    assert tokens["fork"] < 0.5 * tokens["rows"]
    assert case["systems"]["sft"]["flops_ratio"] > case["systems"]["rows"]["flops_ratio"] > 2


def test_of_several_batches_the_first_stands_for_all(folders, tmp_path):
    (case,) = run("train", tmp_path / "t.json", model=str(folders["llama"]), cases=["80x8"], rounds=1)["cases"]
    rows = case["systems"]["sft"]
    assert rows["exact"] is None
    assert rows["measured_share"] == pytest.approx(8 / (4 * 9), rel=0.2)


def test_summarize(folders, tmp_path):
    results = run("summarize", tmp_path / "s.json", model=str(folders["llama"]), cases=["4x3"], rounds=1)
    (case,) = results["cases"]
    assert set(case["systems"]) == {"reuse", "batch", "one by one"}
    assert set(exact(case).values()) == {True}
    assert case["shared_tokens"] > 0
    # Of each answer the last token is not read again.
    assert case["systems"]["one by one"]["tokens"] == case["prompt_tokens"] + 4 * (3 - 1)


def test_the_cost_of_a_forward_is_what_one_computes_by_hand():
    cost = Cost(body=1000, head=500, layers=((8, 0), (8, 2)))
    # Two rows: 3 tokens, and 2 tokens after 3. The full layer sees 1+2+3 and 4+5, the window of two 1+2+2 and 2+2.
    pairs = (1 + 2 + 3) + (4 + 5) + (1 + 2 + 2) + (2 + 2)
    assert cost.forward([(0, 3), (3, 2)], answers=1) == 2 * 1000 * 5 + 2 * 500 * 1 + 4 * 8 * pairs
    # Under a padding mask hidden pairs are visited too, but not beyond a window.
    pairs = 3 * 3 + 2 * 5 + (1 + 2 + 2) + (2 + 2)
    assert cost.forward([(0, 3), (3, 2)], answers=5, square=True) == 2 * 1000 * 5 + 2 * 500 * 5 + 4 * 8 * pairs


def test_the_cost_of_a_model():
    cost = Cost.of(tiny.model("llama"))
    attention = 32 * 32 + 2 * 32 * 16 + 32 * 32
    assert cost == Cost(body=2 * (attention + 3 * 32 * 48), head=600 * 32, layers=((32, 0), (32, 0)))
    assert len(Cost.of(tiny.model("qwen3_5_text")).layers) == 1
    assert [window for _, window in Cost.of(tiny.model("gemma3_text")).layers] == [8, 0, 8, 0]


def test_the_default_models_have_the_sizes_that_are_said():
    for kind, millions in (("llama", 23.6), ("qwen3_5_text", 25.7)):
        with torch.device("meta"):
            model = tiny.AutoModelForCausalLM.from_config(tiny.AutoConfig.for_model(kind, **workloads.CONFIGS[kind]))
        said = workloads.describe(kind, model)
        assert said["body_parameters"] == pytest.approx(millions * 1e6, rel=0.003)
        assert said["embedding_parameters"] == [16384000, 16384000]


def test_the_bare_loop_is_timed_without_the_making_of_rows(monkeypatch):
    clock = [0.0]
    real = machinery._rows

    def slow(users, seed):
        for row in real(users, seed):
            clock[0] += 100
            yield row

    def over(*given):
        raise KeyboardInterrupt

    found = []
    monkeypatch.setattr(machinery, "_rows", slow)
    monkeypatch.setattr(machinery.time, "process_time", lambda: found.append(clock[0]) or clock[0])
    monkeypatch.setattr(machinery, "_write", over)
    with pytest.raises(KeyboardInterrupt):
        machinery.throughput(3, 0)
    assert found == [300, 300]


def test_ratios_are_taken_within_a_round(monkeypatch):
    clock = iter([0, 1, 1, 3, 10, 16, 16, 18])  # a: 1, then 2; b: 2, then 6, as the second round begins with b
    monkeypatch.setattr(measure.time, "process_time", lambda: next(clock))
    systems = [measure.System("a", lambda: None), measure.System("b", lambda: None, share=0.5)]
    assert measure.take_turns(systems, 2) == {"a": [1, 2], "b": [4, 12]}
    assert measure.spread([3, 1, 2]) == {"median": 2, "low": 1, "high": 3}


def test_peak_memory_is_that_of_the_tensors():
    def work():
        first = torch.ones(1000, 1000)  # 4 MB
        second = first + 1
        del first
        return second.sum() + torch.ones(10).sum()

    answer, peak = measure.peak_memory(work)
    assert answer == 2e6 + 10
    assert 8e6 <= peak < 8.1e6


def test_cases_are_added_only_to_figures_of_the_same_kind(folders, tmp_path):
    out = tmp_path / "bench.json"
    options = {"model": str(folders["llama"]), "rounds": 1}
    run("summarize", out, cases=["2x1"], **options)
    results = run("summarize", out, cases=["1x1", "2x1"], add=True, **options)
    assert [case["blocks"] for case in results["cases"]] == [1, 2]
    with pytest.raises(ValueError, match=r"was measured otherwise \(seed\)"):
        run("summarize", out, cases=["1x1"], add=True, seed=1, **options)
    assert len(run("summarize", out, cases=["1x1"], **options)["cases"]) == 1


def test_sweep_and_plot(folders, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from bench.plot import draw

    monkeypatch.setattr(score, "AT_COUNT", 10)
    monkeypatch.setattr(score, "AT_PREFIX", 120)
    model, tokenizer = workloads.load(str(folders["llama"]), 0)
    with measure.steady():
        points = score.sweep(model, Encoder(tokenizer), 2, 0, counts=(3, 6), prefixes=(100, 5000))
    # 5,000 tokens are beyond this model.
    assert [(one["over"], one["prefix"], one["candidates"]) for one in points] == [
        ("candidates", 120, 3), ("candidates", 120, 6), ("prefix", 100, 10)
    ]  # fmt: skip
    assert all(one["candidates_per_second"]["low"] > 0 and one["tokens"] > one["prefix"] for one in points)
    draw({"sweep": points, "model": {"name": "tiny"}, "cases": []}, tmp_path / "sweep.png")
    main(["summarize", "--model", str(folders["llama"]), "--cases", "2x2", "--rounds", "1"]
         + ["--out", str(tmp_path / "s.json")])  # fmt: skip
    for name in ("sweep.png", "s.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_install_line_comes_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(SystemExit):
        main(["score", "--out", str(tmp_path / "b.json")])
    assert "pip install 'llm-trsr[plots]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cases", "500"], "A case is PREFIXxCANDIDATES, such as 500x21, got '500'"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--hybrid", "--model", "x"], "--hybrid names a model already"),
    ],
)
def test_mistakes(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["score", "--no-plot", "--out", str(tmp_path / "b.json"), *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_the_table_is_rendered_from_the_file(tmp_path):
    def system(seconds, ratio, flops, exact=True):
        return {"seconds": {"median": seconds}, "ratio": {"median": ratio}, "flops_ratio": flops, "exact": exact}

    case = {"prefix": 500, "candidates": 21, "best": "packed"}
    case["systems"] = {"packed": system(0.75, 1, None), "dynamic-last": system(6.0, 8.0, 9.04)}
    (tmp_path / "b.json").write_text(json.dumps({"cases": [case]}))
    text = fill_tables.fill("A\n<!-- bench: b.json -->\nold\n<!-- end -->\nB", tmp_path)
    assert text == (
        "A\n<!-- bench: b.json -->\n| system | 500 x 21 |\n|---|---|\n| ours, packed | **0.75 s** |\n"
        "| batches of 8, last logits | 6 s, x8 of 9.04 |\n<!-- end -->\nB"
    )
    del case["systems"]["packed"]["ratio"]
    case["best"] = "other"
    (tmp_path / "b.json").write_text(json.dumps({"cases": [case]}))
    with pytest.raises(KeyError, match="ratio"):
        fill_tables.fill(text, tmp_path)


def test_the_overview_names_the_best_of_each_kind(tmp_path):
    def comparison(tested, **more):
        return {
            "dataset": "books-popularity",
            "protocol": "1 positive and 20 popularity negatives a user",
            "n_users": 1200,
            "metric": "recall@3",
            "systems": {name: {"recall@3": {"value": value}} for name, (value, _) in tested.items()},
            "paired": [
                {"system": name, "against": "peer", "difference": value - 0.5, "p_holm": p}
                for name, (value, p) in tested.items()
                if name != "peer"
            ],
        } | more

    alone = {"peer": (0.5, 1), "other": (0.4, 0.01), "retriever": (0.6, 0.01), "retriever-b": (0.45, 1)}
    sums = {"retriever + retriever-b": (0.55, 0.05), "peer + retriever": (0.3, 0.01), "other + peer": (0.52, 0.9)}
    everything = comparison(alone | {f"fused: {name}": values for name, values in sums.items()})
    (tmp_path / "a.json").write_text(json.dumps(everything))
    (tmp_path / "b.json").write_text(json.dumps(comparison(alone, n_items=9)))
    text = fill_tables.fill("<!-- overview: a.json,b.json -->\nold\n<!-- end -->", tmp_path)
    assert text.splitlines()[3:5] == [
        "| books, 1,200 | 1 + 20 by popularity | Recall@3 | 0.500, peer | 0.600, above | 0.550, level | 0.300, below | 0.520, level |",
        "| books, 1,200 | the whole catalogue | Recall@3 | 0.500, peer | 0.600, above | - | - | - |",
    ]


def test_the_readme_shows_what_the_files_say():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path, shown in re.findall(r"<!-- bench: (\S+) -->\n(.*?)\n<!-- end -->", readme, re.S):
        assert shown == report.table(json.loads((ROOT / path).read_text(encoding="utf-8")))


def test_precision(folders, tmp_path):
    out = tmp_path / "precision.json"
    small = ["--prefix", "120", "--candidates", "3", "--negatives", "1", "--out", str(out)]
    for kind in ("llama", "qwen3_5_text"):
        precision.main([str(folders[kind]), *small])
        results = json.loads(out.read_text())
        assert results["model"]["architecture"] == kind
        for part, plain, masked in (("score", "batch", "packed"), ("train", "rows", "joint")):
            chosen = masked if kind == "llama" else "fork"
            shared = {chosen, "fork"}
            for half in ("fp32", "bf16"):
                found = results[part][half]
                assert found["chosen"] == chosen
                assert set(found["ways"]) == {"separate", plain} | shared
                off = {plan: max(one["from_fp32"].values()) for plan, one in found["ways"].items()}
                # In fp32 all agree; in bf16 all are off alike.
                for one in off.values():
                    assert one < 1e-4 if half == "fp32" else 0.5 < one / off["separate"] < 2
            assert f"| **bf16, {report.TITLES[chosen]}** |" in report.table(results)


def test_in_half_precision_rotary_embeddings_keep_their_frequencies(folders):
    model, _ = workloads.load(str(folders["llama"]), 0, torch.bfloat16)
    assert model.dtype == torch.bfloat16
    exact = tiny.model("llama").model.rotary_emb.inv_freq
    assert torch.equal(model.model.rotary_emb.inv_freq, exact)


def test_machinery(tmp_path):
    """All calls are made, in both ways, and no more at a time than asked for."""
    out = tmp_path / "machinery.json"
    machinery.main(["--users", "30", "--slow-users", "120", "--at-a-time", "64", "--out", str(out)])
    results = json.loads(out.read_text())
    assert results["throughput"]["calls"] == 30 * 5
    assert results["throughput"]["users_a_cpu_second"] > 0
    ours, levels = (results["in_flight"]["systems"][name] for name in ("scheduler", "by levels"))
    for one in (ours, levels):
        assert 32 < max(going for _, going in one["seen"]) <= 64
        assert one["mean_in_flight"] > 1
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
