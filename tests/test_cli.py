import io
import json
import os
import re
import shlex
import subprocess
import sys

import huggingface_hub
import pytest

from tests import tiny
from tests.scripted import ChatServer
from trsr.cli import VERBS, command_line, main, recommend
from trsr.cli.exits import Exit
from trsr.core.answer import Answer
from trsr.dataset.check.run import check


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert "Traceback" not in said
    return said


def test_version_and_recipes(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("trsr 0.")
    main(["recipes"])
    assert "nano-sample" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nano-sampel"], "Did you mean 'nano-sample'?"),
        (["train", "nano-sample", "lora.rank=3"], "lora.rank: unknown key"),
        (["train", "nano-sample", "seed"], "write an override as key=value"),
        (["train", "nano-sample", "dataset=./nowhere"], "No dataset folder at './nowhere'"),
        (["evaluate", "./nowhere"], "No finished run at nowhere"),
        (["summarize", "./nowhere", "--out", "x"], "No dataset folder at './nowhere'"),
        (["summarize", "sample", "--out", "x", "--engine", "gpt"], "Unknown engine 'gpt'"),
        (
            ["summarize", "sample", "--out", "x", "--engine", "openai:m", "--base-url", "localhost"],
            "must begin with http",
        ),
        (["summarize", "sample", "--out", "x", "--engine", "openai:m", "--extra-body", "[1]"], "must be a JSON object"),
        (["summarize", "sample", "--out", "x", "--export-cache", "y"], "keeps no generations"),
        (
            ["summarize", "sample", "--out", "x", "--base-url", "http://h/v1"],
            "--base-url goes with --engine openai:MODEL",
        ),
        (
            ["summarize", "sample", "--out", "x", "--engine", "nano", "--extra-body", '{"a": 1}', "--same-model"],
            "--extra-body, --same-model go with --engine openai:MODEL: add it, or leave out --extra-body, --same-model.",
        ),
        (
            ["summarize", "sample", "--out", "x", "--temperature", "0.7", "--store", "s", "--answer-penalty", "1.2"],
            "--temperature, --answer-penalty, --store go with an --engine that has a model",
        ),
        (["summarize", "sample", "--out", "x", "--keep-going"], "--keep-going goes with an --engine that has a model"),
        (
            ["summarize", "sample", "--out", "x", "--engine", "nano", "--timeout", "1"],
            "--timeout goes with --engine openai:MODEL",
        ),
        (
            ["summarize", "sample", "--out", "x", "--concurrency", "9"],
            "--concurrency goes with --engine openai:MODEL or",
        ),
        (["summarize", "sample", "--out", "x", "--questions", "q"], "--questions goes with --engine vllm:MODEL"),
        (
            ["summarize", "sample", "--out", "x", "--engine-revision", "v1"],
            "in one revision: leave out --engine-revision",
        ),
        (["summarize", "sample", "--out", "x", "--price-in", "1"], "--price-in goes with --estimate"),
        (["summarize", "sample", "--out", "x", "--max-blocks", "0"], "must be more than 0, got 0"),
        (["summarize", "sample", "--out", "x", "--block-size", "-1"], "must be more than 0, got -1"),
        (["summarize", "sample", "--out", "x", "--limit", "-1", "--estimate"], "must not be negative, got -1"),
        (["summarize", "sample", "--out", "x", "--estimate", "--answer-tokens", "-5"], "must be more than 0, got -5"),
        (["summarize", "sample", "--out", "x", "--seed", "99999999999999999999"], "must be 0 to 4294967295"),
        (
            ["recommend", "--all-users", "--ray", "--ray-gpus-per-worker", "nan"],
            "must be finite and more than 0, got nan",
        ),
        (["recommend", "nowhere.json"], "nowhere.json"),
        (["check", "my data"], "No dataset 'my data': no such folder here"),
        (["verify", "runs/typo/release"], "There is no folder 'runs/typo/release', nor can it be a repo id"),
        (["verify", "http://x", "--expected", "a/b/c"], "There is no folder 'a/b/c', nor can it be a repo id"),
        (["train", "nano-sample", "base=a/b/c"], "There is no folder 'a/b/c', nor can it be a repo id"),
        (["recommend", "-", "--private", "--overwrite"], "--overwrite go with --all-users: add it."),
        (["recommend", "-", "--accept-data-licence"], "--accept-data-licence goes with --all-users"),
        (["recommend", "-", "--ray-gpus-per-worker", "2"], "--ray-gpus-per-worker goes with --all-users"),
        (
            ["recommend", "--all-users", "--dataset", "sample", "--out", "x", "--private"],
            "--private goes with --push-to-hub: add it.",
        ),
        (["compare", "a", "--category", "genre"], "give the dataset too (--dataset)"),
        (["compare", "a", "--seed", "-1"], "must be 0 to 4294967295, got -1"),
        (["evaluate", "run", "--seed", "-1"], "must be 0 to 4294967295, got -1"),
        (["evaluate", "run", "--limit", "-3"], "must not be negative, got -3"),
        (["retrieve", "evaluate", "r", "--dataset", "d", "--seed", "-1"], "must be 0 to 4294967295, got -1"),
        (["retrieve", "evaluate", "r", "--dataset", "d", "--stage-one", "9"], "--stage-one goes with --run: add it."),
        (["pretrain", "nano", "--steps", "0"], "must be more than 0, got 0"),
        (["pretrain", "nano", "--steps", "-1"], "must be more than 0, got -1"),
        (["pretrain", "nano", "--revision", "x"], "leave out --dataset and --revision"),
        (["train", "nano-sample", "seed=-1"], "seed: got -1, expected 0 to 4294967295"),
        (
            ["summarize", "sample", "--out", "x", "--engine", "transformers:a/b/c"],
            "There is no folder 'a/b/c', nor can it be a repo id",
        ),
    ],
)
def test_mistakes_end_in_one_message(capsys, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, *arguments)
    assert list(tmp_path.iterdir()) == [] or [p.name for p in tmp_path.iterdir()] == ["runs"]


def test_recommend_with_the_recommender_in_the_package(capsys, tmp_path):
    request = tmp_path / "request.json"
    request.write_text(
        json.dumps({"history": ["title: A; genre: baking"] * 6, "candidates": ["title: B; genre: baking", "title: C"]})
    )
    main(["recommend", str(request), "--top-k", "1"])
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["candidates"]) == 1
    assert "genre: baking x6" in answer["summary"]
    request.write_text("{broken")
    assert "is not JSON" in fails(capsys, "recommend", str(request))


def test_a_request_is_read_in_the_encodings_of_editors_and_shells(capsys, tmp_path, monkeypatch):
    request = '{"history": ["title: Ä"], "candidates": ["title: 書籍", "title: B"]}'
    answers = []
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le"):  # PowerShell's `>` writes UTF-16 with a mark
        (tmp_path / "request.json").write_bytes(request.encode(encoding))
        main(["recommend", str(tmp_path / "request.json")])
        answers.append(json.loads(capsys.readouterr().out))
    # A shell's pipe may be in another encoding than the file that was put into it.
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(request.encode()), encoding="latin-1"))
    main(["recommend", "-"])
    answers.append(json.loads(capsys.readouterr().out))
    assert all(answer == answers[0] for answer in answers)
    assert {one["item"] for one in answers[0]["candidates"]} == {"title: 書籍", "title: B"}


@pytest.mark.parametrize("content", ['{"history": ["é"]}'.encode("latin-1"), b"[" * 5000, b"", b'{"history": '])
def test_a_request_that_is_no_json_is_a_mistake(capsys, tmp_path, content):
    (tmp_path / "request.json").write_bytes(content)
    assert "request.json is not JSON in UTF-8 or UTF-16: " in fails(capsys, "recommend", str(tmp_path / "request.json"))


def test_what_a_terminal_or_a_file_cannot_show_is_escaped(capsys, tmp_path):
    """Lone surrogates are in no encoding; many characters are not in that of a file on Windows."""
    request = {"history": [], "candidates": ["title: \ud800", "title: 書籍 😀"]}
    (tmp_path / "request.json").write_text(json.dumps(request))
    main(["recommend", str(tmp_path / "request.json")])
    given = json.loads(capsys.readouterr().out)["candidates"]
    assert sorted(one["item"] for one in given) == sorted(request["candidates"])
    assert recommend._printable("書籍 😀", "utf-8") == '"書籍 😀"'
    assert json.loads(recommend._printable("書籍 😀", "cp1252").encode("cp1252")) == "書籍 😀"


def test_what_recommend_prints_is_json_also_where_the_request_is_not_quite(capsys, tmp_path):
    request = tmp_path / "request.json"
    request.write_text('{"history": ["title: A"], "candidates": [{"title": "B", "price": NaN}]}')
    main(["recommend", str(request)])
    printed = capsys.readouterr().out
    assert "NaN" not in printed
    assert json.loads(printed)["candidates"][0]["item"] == {"title": "B", "price": None}


def test_summarize_with_a_transformers_engine_keeps_and_reuses_answers(capsys, tmp_path, small_dataset):
    model = tmp_path / "model"
    tiny.model("llama").save_pretrained(model)
    tiny.chatml().save_pretrained(model)
    main(
        ["summarize", str(small_dataset), "--out", str(tmp_path / "out"), "--engine", f"transformers:{model}"]
        + ["--max-new-tokens", "5", "--block-size", "2", "--keep-going"]
    )
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert provenance["summaries"]["engine"] == "transformers"
    assert provenance["summaries"]["sampling"] == {"do_sample": False, "max_new_tokens": 5, "seed": 0}
    assert (tmp_path / "out.store.sqlite").exists()


def test_summarize_with_a_server_costs_what_was_estimated(capsys, tmp_path, small_dataset, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never-shown")
    with ChatServer(fault=lambda prompt, times: None) as server:
        asked = ["summarize", str(small_dataset), "--out", str(tmp_path / "out"), "--engine", "openai:org/model"]
        asked += ["--base-url", server.url, "--method", "recurrent"]
        main([*asked, "--estimate", "--price-in", "1", "--price-out", "2", "--calls-per-second", "4"])
        told = json.loads(capsys.readouterr().out)["recurrent"]
        assert server.log == []
        assert list(tmp_path.iterdir()) == [small_dataset]
        main([*asked, "--export-cache", str(tmp_path / "cache")])
        said = capsys.readouterr().out
        assert len({prompt for prompt, _, _ in server.log}) == told["calls"] == 24
        assert told["seconds"] == 6.0
        main([*asked, "--cache", str(tmp_path / "cache"), "--store", str(tmp_path / "other.sqlite")])
        assert len({prompt for prompt, _, _ in server.log}) == told["calls"]
    assert '"asked": ' in said
    assert "sk-never-shown" not in (tmp_path / "out" / "provenance.json").read_text() + said


def test_answers_that_are_no_summaries_end_the_run_or_are_told(capsys, tmp_path, small_dataset, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    out = tmp_path / "out"
    with ChatServer(lambda prompt, seed: Answer("The user likes", "length", 10, 128)) as server:
        asked = ["summarize", str(small_dataset), "--out", str(out), "--engine", "openai:m", "--method", "recurrent"]
        asked += ["--base-url", server.url, "--max-new-tokens", "128"]
        with pytest.raises(SystemExit) as stop:
            main(asked)
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert stop.value.code == Exit.USER_ERROR
        assert said.startswith(
            "error: 24 of 24 answers are no summaries (cut off 24): raise --max-new-tokens (now 128), or "
        )
        assert not out.exists()
        calls = len(server.log)
        main([*asked, "--keep-going", "--limit", "2"])
        assert len(server.log) == calls
    *_, partial, rejected, fallen = capsys.readouterr().out.strip().splitlines()
    assert partial == "Of the users, the first 2 of each split."
    assert rejected == "36 answers were no summaries: cut off 36."
    assert fallen.startswith(
        "The extractive summarizer wrote 12 of 12 summaries in their place: cut off 12. To have fewer, raise"
    )


def test_fallbacks_of_continued_summaries_are_told(capsys, tmp_path, small_dataset, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    before, after = tmp_path / "before", tmp_path / "after"
    with ChatServer(lambda prompt, seed: Answer("The user likes", "length", 10, 128)) as server:
        asked = ["summarize", str(small_dataset), "--engine", "openai:m", "--method", "recurrent", "--keep-going"]
        main([*asked, "--base-url", server.url, "--out", str(before)])
        fallen = capsys.readouterr().out.strip().splitlines()[-1]
        main([*asked, "--base-url", server.url, "--out", str(after), "--since", str(before)])
    told = json.loads((after / "provenance.json").read_text())["summaries"]
    assert told["asked"] == 0 == len(told["fallen_back"])
    wrote, again = capsys.readouterr().out.strip().splitlines()
    assert '"fallen_back": {"cut off": 24}' in wrote
    assert again == fallen.replace("wrote 24", "wrote at most 24")
    [noted] = [one for one in check(str(after)).findings if one.code == "summary-fallen-back"]
    assert (noted.severity, noted.examples[0].shown) == ("warning", "at most 24 of 24 (cut off 24)")


def test_questions_that_are_left_open_are_no_mistake(capsys, tmp_path, small_dataset):
    with pytest.raises(SystemExit) as stop:
        main(
            ["summarize", str(small_dataset), "--out", str(tmp_path / "out"), "--engine", "vllm:org/model"]
            + ["--questions", str(tmp_path / "questions.parquet")]
        )
    assert stop.value.code == 3
    assert f"The questions are in {tmp_path / 'questions.parquet'}." in capsys.readouterr().out
    assert (tmp_path / "questions.parquet").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_shows_examples_that_parse(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        command_line().parse_args([verb, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out.split("examples:")[1].split("\n\n")[0]
    lines = [line.strip() for line in shown.splitlines() if line.strip()]
    assert 2 <= len(lines) <= 4
    for line in lines:
        words = shlex.split(re.sub(r" {3,}.*", "", line.split(" | jq")[0].split("| ")[-1]))
        assert words[:2] == ["trsr", verb], line
        command_line().parse_args(words[1:])


def completions(line, tmp_path):
    """What the shell's completer is told, as argcomplete asks for it."""
    answer = tmp_path / "answer"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    code = "from trsr.cli import main; main()"
    subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            **asked,
            "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        check=True,
    )
    return answer.read_text().split("\n")


def test_the_shell_completes_verbs_options_and_recipes(tmp_path):
    assert [one.strip() for one in completions("trsr eva", tmp_path)] == ["evaluate"]
    assert "--since" in [one.strip() for one in completions("trsr summarize sample --si", tmp_path)]
    assert {one.strip() for one in completions("trsr train nano-", tmp_path)} == {"nano-sample"}


@pytest.mark.parametrize(
    ("shell", "word"), [("bash", "complete -o"), ("zsh", "compdef"), ("fish", "complete --command trsr")]
)
def test_each_shell_has_its_script(shell, word):
    asked = ["bash" if shell == "zsh" else shell, "trsr"]  # one script for bash and zsh
    done = subprocess.run(
        [sys.executable, "-m", "argcomplete.scripts.register_python_argcomplete", "--shell", *asked],
        capture_output=True,
        text=True,
        check=True,
    )
    assert word in done.stdout
