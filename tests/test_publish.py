"""Publishing against a server that speaks the Hub's protocol, with the real client."""

import json
import re
import shutil
import subprocess
from dataclasses import replace

import huggingface_hub
import pytest
from datasets import load_dataset
from huggingface_hub import HfApi
from huggingface_hub.utils import _http

from tests.conftest import ROOT
from tests.hub import Hub, User
from trsr.assets.paths import NANO, NANO_SUMMARIZER
from trsr.cli import command_line
from trsr.core.saving import core_modules
from trsr.dataset import contract
from trsr.errors import HubError, ReleaseError
from trsr.hub import retry
from trsr.hub.changes import plan, show
from trsr.hub.expected import MADE_UP
from trsr.hub.inputs import ReleaseInputs
from trsr.hub.named_files import copy_adapter, copy_base
from trsr.hub.preflight import Options
from trsr.hub.publish import publish, push_release
from trsr.hub.rehearsal import Rehearsal
from trsr.hub.release import SUFFIXES, assemble, check_files
from trsr.hub.repos import COPIES, TYPES, name_repos
from trsr.hub.spaces import METRICS, SPACE

TOKEN = "hf_test_writer"


@pytest.fixture(scope="module")
def server():
    with Hub() as hub:
        yield hub


@pytest.fixture
def hub(server, monkeypatch, tmp_path):
    server.reset()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(retry.time, "sleep", lambda seconds: None)
    return server


def client(hub, token=TOKEN):
    return HfApi(endpoint=hub.url, token=token)


@pytest.fixture(scope="module")
def run(quickstarted):
    return quickstarted[0] / "runs" / "recurrent"


def test_the_readme_tells_how_each_repo_is_loaded(hub, release):
    """Its table holds all that a release with every option writes, and each option is one of the command line."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme[readme.index("| repo | a user does |") :].split("\n\n")[0].splitlines()[2:]
    told = {name for row in table for name in re.findall(r"`(ORG/[\w-]+)`", row.split(" | ")[0])}
    names = name_repos("ORG", "trsr-sample", copies=COPIES)
    assert told == {names.repo(kind) for kind in TYPES}
    for kind in TYPES:
        if kind not in METRICS:
            word = f"`--{kind}" if kind in COPIES else f"{kind} `"
            [row] = [row for row in table if row.startswith(f"| {word}")]
            assert names.repo(kind) in row.split(" | ")[0]
    for option in {option for row in table for option in re.findall(r"^\| `(--[\w-]+)", row)}:
        command_line().parse_args(
            ["publish", "runs/x", "--namespace", "ORG", option, *(["f16"] * (option == "--gguf"))]
        )
    push_release(release, client(hub), Options(), say=lambda line: None)
    assert {name.split()[1] for name in hub.state()["repos"]} <= told


def test_a_push_makes_one_commit_a_repo_and_a_second_none(hub, release):
    commits = push_release(release, client(hub), Options(), say=lambda line: None)
    state = hub.state()
    assert set(state["repos"]) == {
        "model ORG/trsr-nano",
        "dataset ORG/trsr-sample",
        "model ORG/trsr-sample-lora",
        "model ORG/trsr-sample",
        "space ORG/trsr-sample",
        "space ORG/recall_at_k",
        "space ORG/mrr_at_k",
        "space ORG/ndcg_at_k",
    }
    for repo in state["repos"].values():
        assert len(repo["commits"]) == 2  # the Hub's own, and the release
    [collection] = state["collections"].values()
    assert len(collection["items"]) == 8
    tagged = {name for name, repo in state["repos"].items() if repo["tags"]}
    assert tagged == {
        "dataset ORG/trsr-sample", "model ORG/trsr-sample-lora", "model ORG/trsr-sample", "space ORG/trsr-sample"
    }  # fmt: skip
    before = len(hub.log)
    assert push_release(release, client(hub), Options(), say=lambda line: None) == commits
    assert hub.state() == state
    assert not any(one.path.endswith("/preupload/main") or "/commit/" in one.path for one in hub.log[before:])


def quiet(line):
    pass


def pushed(hub, release, **options):
    return push_release(release, client(hub), Options(**options), say=quiet)


PASSING = ("drop", "lost", "429", "503", "500", "412")
LASTING = ("expired", "forbidden")


def walk(hub, release, kinds, step):
    """Break a push at every `step`-th request in every way. Yields how, and whether one run was enough."""
    hub.reset()
    pushed(hub, release)
    whole, requests = hub.state(), len(hub.log)
    for place, kind in enumerate(kinds):
        for at in range(place % step, requests, step):
            hub.reset()
            hub.fault(at, kind, forever=kind in LASTING)
            try:
                pushed(hub, release)
                enough = True
            except HubError:
                enough = False
                hub.heal()
                pushed(hub, release)
            assert hub.state() == whole, f"{kind} at request {at}: {hub.log[at]}"
            yield kind, at, enough


def test_a_push_that_breaks_anywhere_is_whole_after_one_rerun(hub, release):
    tried = list(walk(hub, release, (*PASSING, *LASTING), 29))
    assert len(tried) > 25
    # What passes is waited out within the run; a token that no longer counts ends it.
    assert {kind for kind, _, enough in tried if not enough} <= {*LASTING, "412"}


@pytest.mark.slow
def test_a_push_that_breaks_at_any_request(hub, release):
    tried = list(walk(hub, release, (*PASSING, *LASTING), 1))
    print(f"{len(tried)} fault points, {sum(not enough for *_, enough in tried)} needed the rerun")


# What cannot be done is said once, clearly, and nothing is written.


def refused(hub, release, match, token=TOKEN, error=HubError, **options):
    before = hub.state()
    with pytest.raises(error, match=match) as told:
        push_release(release, client(hub, token), Options(**options), say=quiet)
    assert hub.state() == before
    assert token not in str(told.value)


def test_a_token_that_does_not_count(hub, release):
    refused(hub, release, "does not take the token", token="hf_gone")


def test_a_token_that_may_only_read(hub, release):
    hub.users |= {"hf_reader": User("reader", "read", {"ORG": "write"})}
    refused(hub, release, "may read only", token="hf_reader")


def test_a_namespace_of_others(hub, release):
    hub.users |= {"hf_other": User("other", "write", {"ELSE": "write"})}
    refused(hub, release, "no member of ORG", token="hf_other")


def test_an_organisation_where_one_may_only_read(hub, release):
    hub.users |= {"hf_guest": User("guest", "write", {"ORG": "read"})}
    refused(hub, release, "may only read in ORG", token="hf_guest")


def test_no_token_at_all(hub, release, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(HubError, match="hf auth login"):
        push_release(release, HfApi(endpoint=hub.url), Options(), say=quiet)


def test_a_repo_of_somebody_else_is_left_alone(hub, release):
    api = client(hub)
    api.create_repo("ORG/trsr-sample")
    api.upload_file(path_or_fileobj=b"mine", path_in_repo="notes.txt", repo_id="ORG/trsr-sample")
    refused(hub, release, "no release of LLM-TRSR. Choose another --name", error=ReleaseError)
    # A new branch would begin as main is.
    refused(hub, release, "no release of LLM-TRSR. Choose another --name", error=ReleaseError, branch="next")


def test_a_public_repo_is_not_taken_for_private(hub, release):
    pushed(hub, release)
    refused(hub, release, "is public", error=ReleaseError, private=True)


def test_a_private_release_beside_public_metrics(hub, release):
    """They hold no data, nor does the base in the package; a base of a user's own does, and the rest of a release."""
    pushed(hub, release)
    names = name_repos("ORG", "other")
    recipe = release.facts.recipe
    other = replace(release, names=names, facts=replace(release.facts, names=names))
    own = replace(other, facts=replace(other.facts, recipe=replace(recipe, base="folders/trsr-nano")))
    refused(hub, own, "ORG/trsr-nano exists and is public", error=ReleaseError, private=True)
    pushed(hub, other, private=True)
    repos = hub.state()["repos"]
    assert {name for name, repo in repos.items() if repo["private"]} == {
        "dataset ORG/other", "model ORG/other-lora", "model ORG/other", "space ORG/other"
    }  # fmt: skip


def test_a_public_release_beside_private_repos_that_it_needs(hub, release):
    pushed(hub, release, private=True)
    before = hub.state()
    pushed(hub, release)  # all of it is private: it stays so
    assert hub.state() == before
    names = name_repos("ORG", "other")
    other = replace(release, names=names, facts=replace(release.facts, names=names))
    with pytest.raises(ReleaseError) as told:
        pushed(hub, other)
    assert hub.state() == before
    lines = str(told.value).splitlines()
    assert [line.split(" is private")[0] for line in lines] == [
        "ORG/trsr-nano (model)", "ORG/recall_at_k (space)", "ORG/mrr_at_k (space)", "ORG/ndcg_at_k (space)"
    ]  # fmt: skip
    assert all("Make it public in its settings, or publish with --private." in line for line in lines)
    for kind in ("base", *METRICS):
        client(hub).update_repo_settings(names.repo(kind), repo_type=TYPES[kind], private=False)
    pushed(hub, other)


def test_the_title_of_a_collection_is_short(hub, release):
    names = name_repos("ORG", "a" * 80)
    pushed(hub, replace(release, names=names, facts=replace(release.facts, names=names)))
    [collection] = hub.state()["collections"].values()
    assert collection["title"] == f"LLM-TRSR: {'a' * 49}"


def test_a_tag_that_stands_elsewhere(hub, release):
    pushed(hub, release)
    (release.folder / "adapter" / "ranking_prompt.json").write_text("{}\n")
    refused(hub, release, r"has a tag v1\.0 at .*Give another --tag", error=ReleaseError)
    pushed(hub, release, tag="v1.1")
    tags = hub.state()["repos"]["model ORG/trsr-sample-lora"]["tags"]
    assert set(tags) == {"v1.0", "v1.1"}
    assert tags["v1.0"] != tags["v1.1"]


def test_somebody_commits_in_between(hub, release, monkeypatch):
    other = client(hub)

    class Overtaken(HfApi):
        def create_commit(self, repo_id, operations, **options):
            if repo_id == "ORG/trsr-sample-lora":
                text = b"theirs"
                other.upload_file(path_or_fileobj=text, path_in_repo="theirs.txt", repo_id=repo_id)
            return super().create_commit(repo_id, operations, **options)

    with pytest.raises(HubError, match="somebody else has committed"):
        push_release(release, Overtaken(endpoint=hub.url, token=TOKEN), Options(), say=quiet)
    repo = hub.state()["repos"]["model ORG/trsr-sample-lora"]
    assert [one["title"] for one in repo["commits"]][1:] == ["Upload theirs.txt with huggingface_hub"]
    assert not any(repo["tags"] for repo in hub.state()["repos"].values())


def test_a_token_that_runs_out_while_tagging_leaves_no_tag_that_the_rerun_does_not_complete(hub, release):
    pushed(hub, release)
    whole, requests = hub.state(), [one.number for one in hub.log if "/tag/" in one.path]
    hub.reset()
    hub.fault(requests[1], "forbidden")  # once: the tags before it can be taken back
    with pytest.raises(HubError, match="no right"):
        pushed(hub, release)
    assert not any(repo["tags"] for repo in hub.state()["repos"].values())
    pushed(hub, release)
    assert hub.state() == whole


def test_what_is_no_longer_in_the_release_goes(hub, release):
    pushed(hub, release)
    old = next((release.folder / "dataset" / "hierarchical_sft").iterdir())
    old.rename(old.with_name("renamed.parquet"))
    pushed(hub, release, tag="v2")
    [*_, before, after] = hub.state()["repos"]["dataset ORG/trsr-sample"]["commits"]
    gone = f"hierarchical_sft/{old.name}"
    assert gone in before["files"]
    assert gone not in after["files"]
    assert "hierarchical_sft/renamed.parquet" in after["files"]
    assert ".gitattributes" in after["files"]


# What others did on the Hub is never lost without a word.


def edit(hub, text, repo, path="README.md", **where):
    client(hub).upload_file(path_or_fileobj=text.encode(), path_in_repo=path, repo_id=repo, **where)


def files(hub, repo):
    return hub.state()["repos"][repo]["commits"][-1]["files"]


def test_a_file_of_somebody_else_is_kept(hub, release):
    pushed(hub, release)
    edit(hub, "# Mine", "ORG/trsr-sample-lora", "NOTES.md", commit_message="My \x1b[31mnotes\n\nBecause")
    for number, name in enumerate(("ranking_prompt.json", "decision.json"), 1):
        (release.folder / "adapter" / name).unlink()
        said = show(plan(release, client(hub)))
        assert f"| ORG/trsr-sample-lora | model | {7 - number} | " in said
        assert f"\n  removed: {name}\n  kept, for it is not ours: NOTES.md\n" in said
        # Not shown again when our own commit follows it.
        assert ("of 2024-01-01 by tester: My [31mnotes" in said) == (number == 1)
        pushed(hub, release, tag=f"v1.{number}")
        assert "NOTES.md" in files(hub, "model ORG/trsr-sample-lora")
        assert name not in files(hub, "model ORG/trsr-sample-lora")


def test_what_somebody_edited_stops_the_push(hub, release):
    pushed(hub, release)
    edit(hub, (release.folder / "adapter" / "README.md").read_text() + "Better.\n", "ORG/trsr-sample-lora")
    theirs = files(hub, "model ORG/trsr-sample-lora")["README.md"]
    told = (
        r"ORG/trsr-sample-lora \(model\): somebody else changed README\.md .*by tester: Upload README\.md.*--overwrite"
    )
    assert "edited on the Hub since our last commit: README.md" in show(plan(release, client(hub)))
    refused(hub, release, told, error=ReleaseError, tag="v1.1")
    refused(hub, release, told, error=ReleaseError, create_pr=True)
    pushed(hub, release, tag="v1.1", overwrite=True)
    assert files(hub, "model ORG/trsr-sample-lora")["README.md"] != theirs
    # Ours again: the next push goes through.
    (release.folder / "adapter" / "ranking_prompt.json").write_text("{}\n")
    pushed(hub, release, tag="v1.2")


@pytest.mark.parametrize(
    ("title", "ours"),
    [
        ("Release with LLM-TRSR (#12)", True),
        ("Release with LLM-TRSR, and my notes", False),
        ("initial commit", False),  # only the oldest is the Hub's
        ("initial commit of my notes", False),
    ],
)
def test_whose_a_commit_is_tells_its_whole_title(hub, release, title, ours):
    pushed(hub, release)
    name, repo = "ORG/trsr-sample-lora", "model ORG/trsr-sample-lora"
    edit(hub, "{}", name, "ranking_prompt.json", commit_message=title)
    edit(hub, "# Mine", name, "NOTES.md", commit_message=title)
    [change] = [one for one in plan(release, client(hub)) if one.kind == "adapter"]
    assert (change.edited, change.foreign) == (((), ()) if ours else (("ranking_prompt.json",), ("NOTES.md",)))
    assert (len(change.commits), change.removed) == ((0, ("NOTES.md",)) if ours else (2, ()))
    if not ours:
        refused(hub, release, r"somebody else changed ranking_prompt\.json", error=ReleaseError, tag="v1.1")
        assert "NOTES.md" in files(hub, repo)


def test_what_somebody_deleted_does_not_come_back_without_a_word(hub, release):
    pushed(hub, release)
    client(hub).delete_file("ranking_prompt.json", "ORG/trsr-sample-lora")
    refused(hub, release, r"somebody else changed ranking_prompt\.json", error=ReleaseError, tag="v1.1")
    pushed(hub, release, tag="v1.1", overwrite=True)
    assert "ranking_prompt.json" in files(hub, "model ORG/trsr-sample-lora")


@pytest.mark.parametrize(
    "name",
    [
        "bad tag",
        "a b~c",
        "",
        "-x",
        "v1..2",
        "a/",
        "/a",
        "a//b",
        ".a",
        "a.lock",
        "a.",
        "@",
        "a@{b",
        "x\n",
        "a[b",
        "a\\b",
    ],
)
def test_names_that_git_does_not_take(name):
    assert subprocess.run(["git", "check-ref-format", f"refs/tags/{name}"], check=False).returncode or name in (
        "-x",
        "@",
    )
    for options in ({"tag": name}, {"branch": name}):
        with pytest.raises(ReleaseError, match="no name that git takes"):
            Options(**options)


@pytest.mark.parametrize("name", ["v1.0", "feature/x", "a-b_c", "ä", "refs/pr/1"])
def test_names_that_git_takes(name):
    assert subprocess.run(["git", "check-ref-format", f"refs/tags/{name}"], check=False).returncode == 0
    assert Options(tag=name, branch=name).tag == name


def test_lines_of_a_push_name_the_type(hub, release):
    said = []
    push_release(release, client(hub), Options(), say=said.append)
    shown = [line.partition(":")[0] for line in said if line.startswith("ORG/trsr-sample ")]
    assert shown == [f"ORG/trsr-sample ({kind})" for kind in ("dataset", "model", "space")]


# The options.


def test_private(hub, release):
    pushed(hub, release, private=True)
    state = hub.state()
    assert all(repo["private"] for repo in state["repos"].values())
    assert all(one["private"] for one in state["collections"].values())


def test_what_is_gated_was_never_open(hub, release):
    pushed(hub, release, gated="manual")
    repos = hub.state()["repos"]
    gated = {name for name, repo in repos.items() if repo["gated"]}
    assert gated == {"dataset ORG/trsr-sample", "model ORG/trsr-sample-lora"}
    for name in ("/datasets/ORG/trsr-sample/", "/models/ORG/trsr-sample-lora/"):
        calls = [one.path for one in hub.log if name in one.path and one.method in ("PUT", "POST")]
        calls = [path for path in calls if "settings" in path or "commit" in path]
        assert [path.split("/")[-2 if "commit" in path else -1] for path in calls] == ["settings", "commit"]


def test_a_gate_closes_all_that_holds_data_or_weights_trained_on_it(hub, release):
    """Copies of the weights too, and the pipeline where it carries a catalogue; nothing is committed before its gate."""
    names = name_repos("ORG", "trsr-sample", copies=COPIES)
    for kind in COPIES:
        (release.folder / kind).mkdir()
        shutil.copyfile(
            release.folder / "adapter" / "adapter_config.json", release.folder / kind / "adapter_config.json"
        )
    catalogue = {"items": 1500, "weight": 1.0, "fitted": None, "shape": {"ids": 0, "text_width": 384}}
    files = {"dtype": "float32", "gguf": ["trsr-sample-f16.gguf"]}
    facts = replace(release.facts, names=names, catalogue=catalogue, copies=files)
    pushed(hub, replace(release, names=names, facts=facts), gated="auto")
    repos = hub.state()["repos"]
    closed = {name: repo["gated"] for name, repo in repos.items() if repo["gated"]}
    kinds = ("dataset", "adapter", "pipeline", *COPIES)
    assert closed == {f"{TYPES[kind]} {names.repo(kind)}": "auto" for kind in kinds}
    for name in closed:
        folder = f"/{name.replace(' ', 's/')}/"
        written = [one.path for one in hub.log if folder in one.path and one.method in ("PUT", "POST")]
        assert next(n for n, path in enumerate(written) if path.endswith("/settings")) < next(
            n for n, path in enumerate(written) if "/commit/" in path
        )


def test_a_branch(hub, release):
    pushed(hub, release, branch="next")
    for repo in hub.state()["repos"].values():
        assert repo["branches"]["next"] != repo["branches"]["main"]
    state = hub.state()
    pushed(hub, release, branch="next")
    assert hub.state() == state


def test_pull_requests_are_opened_once(hub, release):
    commits = pushed(hub, release, create_pr=True)
    state = hub.state()
    for repo in state["repos"].values():
        assert len(repo["pull_requests"]) == 1
        assert not repo["tags"]
    assert not state["collections"]
    assert pushed(hub, release, create_pr=True) == commits
    assert hub.state() == state
    with pytest.raises(ReleaseError, match="not both"):
        Options(create_pr=True, branch="next")


def test_the_pipeline_pins_the_commits_before_it(hub, release):
    commits = pushed(hub, release)
    config = json.loads((release.folder / "pipeline" / "config.json").read_text())["trsr"]
    assert (config["base_revision"], config["adapter_revision"]) == (commits["base"], commits["adapter"])
    adapter = json.loads((release.folder / "adapter" / "adapter_config.json").read_text())
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == ("ORG/trsr-nano", commits["base"])
    space = json.loads((release.folder / "space" / "recommender.json").read_text())
    assert (space["revision"], space["dataset_revision"]) == (commits["pipeline"], commits["dataset"])
    assert (space["license"], space["dataset_license"]) == ("apache-2.0", "apache-2.0")


# The dry run.


def test_a_dry_run_shows_what_would_change_and_changes_nothing(hub, run, retriever, published, tmp_path):
    said = []
    how = {"folder": tmp_path / "release", "hub": client(hub), "say": said.append}
    told = publish(run, "ORG", None, Options(), **how)
    assert not hub.state()["repos"]
    assert said[0].startswith("Verdict: recurrent, Recall@3 ")
    assert said[1].startswith("Loaded in a fresh process: the log-odds of 63 candidates of 3 test users differ")
    assert told["compared"]
    assert [one["exists"] for one in told["repos"]] == [False] * 8
    assert "| ORG/trsr-sample-lora | model | 7 |" in said[2]
    assert (
        "\n\nORG/trsr-sample-lora (model)\n  new: .eval_results/trsr-sample.yaml, README.md, adapter_config.json, adapter_model.safetensors, "
        in said[2]
    )
    assert said[2].count("new repo") == 8
    assert all(
        (tmp_path / "release" / kind / "README.md").is_file() for kind in ("adapter", "pipeline", "dataset", "space")
    )
    # And where a push by the command line has put it.
    state = published[0].state()
    said.clear()
    publish(run, "ORG", None, Options(), **how | {"hub": client(published[0]), "retriever": retriever})
    assert said[1].startswith(
        "Carries a catalogue of 1,500 items; weight of the first stage 1, not fitted; to fit it: trsr"
    )
    assert said[3].count("up to date") == 8
    assert published[0].state() == state


@pytest.mark.parametrize(
    ("namespace", "name"), [("a/b", "x"), ("ORG", "a b"), ("ORG", "-x"), ("", "x"), ("ORG", "x.git")]
)
def test_names_that_the_hub_does_not_take(run, namespace, name):
    with pytest.raises(ReleaseError, match="--name"):
        publish(run, namespace, name, Options())


def test_a_run_that_is_not_evaluated(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "validation")
    with pytest.raises(ValueError, match="trsr evaluate RUN --split validation"):
        publish(tmp_path / "run", "ORG", "x", Options())


# What may be published.


CLOSED = {"name": "mind", "license": "other", "license_name": "research only", "share_text": False}


def test_texts_that_may_not_be_passed_on_are_not(hub, run, tmp_path):
    how = {"folder": tmp_path / "release", "hub": client(hub), "say": quiet, "terms": CLOSED}
    with pytest.raises(ReleaseError, match=r"does not allow to pass its texts on.*--accept-data-licence"):
        publish(run, "ORG", None, Options(), push=True, **how)
    assert not hub.state()["repos"]
    publish(run, "ORG", None, Options(), push=True, accept_data_licence=True, **how)
    repos = hub.state()["repos"]
    assert {name for name, repo in repos.items() if repo["gated"] == "manual"} == {
        "dataset ORG/trsr-mind",
        "model ORG/trsr-mind-lora",
    }
    folder = tmp_path / "release" / "dataset"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {
        "items",
        "histories",
        "recurrent",
        "hierarchical",
    }
    items = load_dataset("parquet", data_files=str(folder / "items" / "*.parquet"), split="train")
    assert items.column_names == ["item_id"]
    titles = contract.read(str(run.parent.parent / "dataset"), "items", "train")["title"]
    for path in (tmp_path / "release").rglob("*"):
        if path.is_file() and path.suffix != ".parquet" and path.parent.name != "base":
            text = path.read_bytes()
            assert not any(title.encode() in text for title in titles), path
    for path in folder.rglob("*.parquet"):
        shown = " ".join(map(str, load_dataset("parquet", data_files=str(path), split="train").to_list()))
        assert not any(title in shown for title in titles), path


def told_of_users(run, folder):
    """Files of a release, but for those of the dataset, that hold a text of an item which a test user met."""
    dataset = str(run.parent.parent / "dataset")
    texts, rows = contract.texts(dataset), contract.read(dataset, "recurrent", "test")
    shown = {texts[item].encode() for row in rows for item in (*row["history"], row["target"])}
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix in (".md", ".json") and any(text in path.read_bytes() for text in shown)
    }


def test_behind_a_gate_no_user_is_shown_outside_it(hub, run, tmp_path):
    """Nor when the gate stands on the Hub already, and what a Space may load is then known too."""
    how = {"folder": tmp_path / "release", "hub": client(hub), "say": quiet}
    publish(run, "ORG", None, Options(), **how)
    assert {"pipeline/expected.json", "pipeline/README.md"} <= told_of_users(run, tmp_path / "release")
    assert "preload_from_hub" in (tmp_path / "release" / "space" / "README.md").read_text(encoding="utf-8")
    publish(run, "ORG", None, Options(gated="auto"), push=True, **how)
    assert told_of_users(run, tmp_path / "release") == set()
    asked = json.loads((tmp_path / "release" / "pipeline" / "expected.json").read_text(encoding="utf-8"))["requests"]
    assert [one["request"] for one in asked] == list(MADE_UP)
    state = hub.state()
    publish(run, "ORG", None, Options(), push=True, **how)
    assert told_of_users(run, tmp_path / "release") == set()
    assert hub.state() == state


def test_a_space_loads_no_private_repo_while_it_is_built(hub, run, monkeypatch, tmp_path):
    """Without the option too, where the repos are private already."""
    monkeypatch.setattr("trsr.hub.publish.rehearse", lambda release, inputs: Rehearsal(3, 63, 0.0, None))
    how = {"folder": tmp_path / "release", "hub": client(hub), "say": quiet}
    publish(run, "ORG", None, Options(private=True), push=True, **how)
    state = hub.state()
    publish(run, "ORG", None, Options(), push=True, **how)
    assert "preload_from_hub" not in (tmp_path / "release" / "space" / "README.md").read_text(encoding="utf-8")
    assert hub.state() == state


def test_the_same_run_gives_the_same_bytes(run, release, tmp_path):
    again = assemble(ReleaseInputs.read(run), tmp_path / "again", release.names)
    files = [
        {str(p.relative_to(one.folder)): p.read_bytes() for p in one.folder.rglob("*") if p.is_file()}
        for one in (again, release)
    ]
    assert files[0] == files[1]


def test_nothing_that_runs_but_the_named_files(release):
    code = {str(path.relative_to(release.folder)) for path in release.folder.rglob("*.py")}
    metrics = {f"{name}/{file}.py" for name in METRICS for file in (name, "app", "ranking_metrics")}
    core = {path for path in code if path.startswith("pipeline/")}
    space = {f"space/{name}" for name in SPACE if name.endswith(".py")}
    assert code == metrics | core | space
    assert core == {f"pipeline/{name}.py" for name in core_modules()}
    for path in release.folder.rglob("*"):
        if path.is_file():
            assert path.suffix in SUFFIXES | {".py", ".css"}
            assert not path.stat().st_mode & 0o111
            assert not path.read_bytes().startswith((b"\x80\x02", b"\x80\x04", b"\x80\x05", b"PK", b"#!"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "setup.py", "x.sh", "deep/evil.pkl"])
def test_a_file_that_could_run_is_refused(release, name):
    path = release.folder / "base" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    with pytest.raises(ReleaseError, match=f"{name} in .* may not be published"):
        check_files(release.folder / "base")


def base_of_a_user(folder):
    """The nano base as a trainer leaves it in a folder of a user's own."""
    shutil.copytree(NANO / "base", folder)
    for name in ("config.json", "tokenizer_config.json"):
        values = json.loads((folder / name).read_text(encoding="utf-8"))
        values |= {
            "_name_or_path": str(folder),
            "name_or_path": str(folder),
            "tokenizer_file": f"{folder}/tokenizer.json",
        }
        (folder / name).write_text(json.dumps(values | {"text_config": {"_name_or_path": str(folder)}}))
    for name in (
        "trainer_state.json",
        "training_args.json",
        "notes.txt",
        "optimizer.safetensors",
        "private.md",
        "run.yaml",
    ):
        (folder / name).write_text(f"of {folder}")
    for name in ("LICENSE", "NOTICE.txt", "chat_template.jinja", "special_tokens_map.json"):
        (folder / name).write_text("{}")
    (folder / "checkpoint-1").mkdir()
    (folder / "checkpoint-1" / "model.safetensors").write_text("x")
    return folder


def test_of_a_users_folder_only_the_base_is_published(run, tmp_path):
    folder = base_of_a_user(tmp_path / "secret-place" / "mine")
    inputs = ReleaseInputs.read(run)
    adapter = shutil.copytree(inputs.run.adapter, tmp_path / "run" / "adapter")
    for name in ("trainer_state.json", "notes.txt", "README.md"):
        (adapter / name).write_text(f"of {folder}")
    recipe = replace(inputs.run.recipe, base=str(folder))
    inputs = replace(inputs, run=replace(inputs.run, folder=tmp_path / "run", recipe=recipe))
    made = assemble(inputs, tmp_path / "release", name_repos("ORG", "mine", new_base="mine"))
    shipped = {path.name for path in (NANO / "base").iterdir()}
    added = {"LICENSE", "NOTICE.txt", "chat_template.jinja", "special_tokens_map.json"}
    assert {path.name for path in (made.folder / "base").iterdir()} == shipped | added
    for path in made.folder.rglob("*"):
        assert not path.is_file() or b"secret-place" not in path.read_bytes(), path
    config = json.loads((made.folder / "base" / "config.json").read_text(encoding="utf-8"))
    assert config == {**json.loads((NANO / "base" / "config.json").read_text(encoding="utf-8")), "text_config": {}}
    for name in shipped - {"config.json", "tokenizer_config.json"}:
        assert (made.folder / "base" / name).read_bytes() == (NANO / "base" / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "told"), [("model.safetensors", r"no model\.safetensors"), ("tokenizer.json", r"no tokenizer\.json")]
)
def test_a_base_without_weights_or_tokenizer_is_refused(tmp_path, name, told):
    (base_of_a_user(tmp_path / "mine") / name).unlink()
    with pytest.raises(ReleaseError, match=f"{told}.*save_pretrained"):
        copy_base(tmp_path / "mine", tmp_path / "base")


def test_a_card_goes_with_the_record_of_a_training(tmp_path):
    """Of a summariser that this package trained; one that peft has written names the base by its path."""
    source = shutil.copytree(NANO / "adapter" / "summarizer", tmp_path / "summarizer")
    (source / "trainer_state.json").write_text("{}")
    copy_adapter(source, tmp_path / "with")
    assert {path.name for path in (tmp_path / "with").iterdir()} == {path.name for path in (NANO_SUMMARIZER).iterdir()}
    (source / "training.json").unlink()
    copy_adapter(source, tmp_path / "without")
    assert {path.name for path in (tmp_path / "without").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_a_link_is_refused(release):
    (release.folder / "base" / "notes.md").symlink_to("/etc/hostname")
    with pytest.raises(ReleaseError, match="may not be published"):
        check_files(release.folder / "base")


def test_the_token_stands_nowhere(hub, release, caplog, capfd):
    caplog.set_level(0)
    hub.fault(40, "503")
    hub.fault(60, "expired", forever=True)
    with pytest.raises(HubError) as told:
        push_release(release, client(hub), Options())
    out, err = capfd.readouterr()
    assert TOKEN not in out + err + caplog.text + str(told.value)
    for path in release.folder.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()
