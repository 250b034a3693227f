"""The local Hub, seen by the real clients."""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem, constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import _http

from tests.hub import Hub, User, environment
from tests.hub.server import WRITER

ROOT = Path(__file__).parents[1]
WEIGHTS = bytes(range(256)) * 8
CARD = """---
license: apache-2.0
tags: [tiny]
configs:
- config_name: items
  data_files: items/*.parquet
- config_name: users
  data_files:
  - split: train
    path: users/train.parquet
  - split: test
    path: users/test.parquet
---
# Tiny
"""


@pytest.fixture(scope="module")
def running():
    with Hub() as hub:
        yield hub


@pytest.fixture
def hub(running, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    running.reset()
    return running


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.url, token=WRITER)


@pytest.fixture
def naps(monkeypatch):
    """How long the client would have waited before each new attempt."""
    slept = []
    monkeypatch.setattr(_http.time, "sleep", slept.append)
    return slept


def upload(api, name="ORG/tiny", message="Weights and a note", **options):
    api.create_repo(name, exist_ok=True)
    files = {"note.txt": b"one\n", "weights/model.safetensors": WEIGHTS}
    return api.create_commit(
        name, [CommitOperationAdd(*file) for file in files.items()], commit_message=message, **options
    )


def refused(status, call, *args, **options):
    with pytest.raises(HfHubHTTPError) as error:
        call(*args, **options)
    assert error.value.response.status_code == status
    return error.value


def test_a_release_is_pushed_tagged_and_fetched(hub, api, tmp_path):
    first = upload(api)
    api.create_tag("ORG/tiny", tag="v1", revision=first.oid)
    assert upload(api).oid == first.oid, "nothing changed, so the client makes no commit"
    with pytest.warns(UserWarning, match="empty or missing yaml"):
        api.upload_file(path_or_fileobj=b"# Tiny", path_in_repo="README.md", repo_id="ORG/tiny")
    api.delete_file("note.txt", "ORG/tiny")
    assert api.list_repo_files("ORG/tiny") == [".gitattributes", "README.md", "weights/model.safetensors"]

    folder = Path(api.snapshot_download("ORG/tiny", revision="v1", cache_dir=tmp_path))
    assert (folder.name, (folder / "weights/model.safetensors").read_bytes()) == (first.oid, WEIGHTS)
    assert not (folder / "README.md").exists()
    assert api.verify_repo_checksums("ORG/tiny", revision="v1", cache_dir=tmp_path).mismatches == []
    tree = {entry.path: entry for entry in api.list_repo_tree("ORG/tiny", revision="v1", recursive=True)}
    assert tree.keys() == {".gitattributes", "note.txt", "weights", "weights/model.safetensors"}
    assert (tree["note.txt"].size, tree["note.txt"].lfs) == (4, None)
    assert tree["weights/model.safetensors"].lfs.size == len(WEIGHTS)
    assert [entry.path for entry in api.list_repo_tree("ORG/tiny", "weights")] == ["weights/model.safetensors"]

    api.create_branch("ORG/tiny", branch="old", revision="v1")
    refs = api.list_repo_refs("ORG/tiny")
    assert {ref.name: ref.target_commit for ref in refs.branches + refs.tags}.keys() == {"main", "old", "v1"}
    refused(409, api.create_tag, "ORG/tiny", tag="v1")
    api.delete_tag("ORG/tiny", tag="v1")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("ORG/tiny", revision="v1")


def test_equal_calls_leave_equal_states(hub, api):
    def release():
        upload(api)
        api.create_tag("ORG/tiny", tag="v1")
        collection = api.create_collection("Tiny things", namespace="ORG")
        api.add_collection_item(collection.slug, "ORG/tiny", "model", note="small")
        return hub.state()

    first = release()
    assert [record.number for record in hub.log] == list(range(8))
    hub.reset()
    assert hub.state() == {"repos": {}, "collections": {}}
    assert release() == first
    made = first["repos"]["model ORG/tiny"]
    assert made["tags"]["v1"] == made["branches"]["main"] == made["commits"][-1]["id"]
    assert made["commits"][-1]["parent"] == made["commits"][0]["id"]
    assert first["collections"].popitem()[1]["items"] == [{"type": "model", "id": "ORG/tiny", "note": "small"}]
    assert WRITER not in repr(hub.log), "the log holds no token"


def test_an_upload_without_its_commit_is_no_state(hub, api):
    api.create_repo("ORG/tiny")
    before = hub.state()
    api.preupload_lfs_files("ORG/tiny", [CommitOperationAdd("model.safetensors", WEIGHTS)])
    assert hub.state() == before
    assert [record.method for record in hub.log][1:] == ["POST", "POST", "PUT"]
    upload(api)
    assert "PUT" not in [record.method for record in hub.log][4:], "the object is there already"


def test_a_stale_parent_is_refused(hub, api):
    first = upload(api)
    api.upload_file(path_or_fileobj=b"two\n", path_in_repo="note.txt", repo_id="ORG/tiny", parent_commit=first.oid)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since"):
        api.upload_file(path_or_fileobj=b"3\n", path_in_repo="note.txt", repo_id="ORG/tiny", parent_commit=first.oid)
    with pytest.raises(EntryNotFoundError):
        api.create_commit("ORG/tiny", [CommitOperationDelete("absent.txt")], commit_message="Delete")


def test_ranges(hub, api):
    upload(api)
    url = f"{hub.url}/ORG/tiny/resolve/main/weights/model.safetensors"
    for asked, part in {
        "0-9": WEIGHTS[:10],
        "2000-": WEIGHTS[2000:],
        "9-99999": WEIGHTS[9:],
    }.items():
        answer = httpx2.get(url, headers={"Range": f"bytes={asked}"})
        assert (answer.status_code, answer.content) == (206, part)
    assert httpx2.get(url, headers={"Range": "bytes=5-9"}).headers["Content-Range"] == f"bytes 5-9/{len(WEIGHTS)}"
    assert httpx2.get(url, headers={"Range": "bytes=99999-"}).status_code == 416
    head = httpx2.head(url)
    assert (head.headers["Content-Length"], head.content) == (str(len(WEIGHTS)), b"")
    missing = httpx2.head(f"{hub.url}/ORG/tiny/resolve/main/absent")
    assert (missing.status_code, missing.headers["X-Error-Code"]) == (404, "EntryNotFound")
    assert missing.headers["X-Repo-Commit"] == head.headers["X-Repo-Commit"]
    fs = HfFileSystem(endpoint=hub.url, token=WRITER)
    with fs.open("ORG/tiny/weights/model.safetensors", block_size=100) as file:
        file.seek(1000)
        assert file.read(20) == WEIGHTS[1000:1020]


def test_who_may_do_what(hub, api, tmp_path):
    hub.users |= {"read": User("reader", "read", {"ORG": "read"}), "other": User("other")}
    reader, other = (HfApi(endpoint=hub.url, token=token) for token in ("read", "other"))
    unknown, nobody = HfApi(endpoint=hub.url, token="unknown"), HfApi(endpoint=hub.url, token=False)
    upload(api)

    assert reader.whoami()["auth"]["accessToken"]["role"] == "read"
    assert nobody.model_info("ORG/tiny").id == "ORG/tiny"
    assert "Invalid credentials" in str(refused(401, unknown.model_info, "ORG/tiny"))
    refused(401, nobody.create_repo, "ORG/new")
    assert "the rights to write under" in str(refused(403, reader.create_repo, "ORG/new"))
    refused(403, other.create_repo, "ORG/new")
    refused(403, other.create_tag, "ORG/tiny", tag="v1")
    refused(403, other.upload_file, path_or_fileobj=b"2\n", path_in_repo="note.txt", repo_id="ORG/tiny")
    refused(409, api.create_repo, "ORG/tiny")

    api.update_repo_settings("ORG/tiny", gated="auto")
    assert other.model_info("ORG/tiny").gated == "auto"
    for stranger in (other, nobody):
        with pytest.raises(GatedRepoError):
            stranger.hf_hub_download("ORG/tiny", "note.txt", cache_dir=tmp_path)
    hub.repos["model ORG/tiny"].granted.add("other")
    assert other.hf_hub_download("ORG/tiny", "note.txt", cache_dir=tmp_path)

    api.update_repo_settings("ORG/tiny", gated=False, private=True)
    assert reader.model_info("ORG/tiny").private
    for stranger in (other, nobody):
        with pytest.raises(RepositoryNotFoundError):
            stranger.model_info("ORG/tiny")


def test_pull_requests(hub, api):
    hub.users |= {"other": User("other")}
    other = HfApi(endpoint=hub.url, token="other")
    upload(api)
    main = api.model_info("ORG/tiny").sha
    made = other.upload_file(path_or_fileobj=b"2\n", path_in_repo="note.txt", repo_id="ORG/tiny", create_pr=True)
    assert (made.pr_num, api.model_info("ORG/tiny").sha) == (1, main)
    assert api.model_info("ORG/tiny", revision=made.pr_revision).sha == made.oid
    more = {"path_or_fileobj": WEIGHTS * 2, "path_in_repo": "more.safetensors", "repo_id": "ORG/tiny"}
    head = other.upload_file(**more, revision=made.pr_revision).oid
    assert [pull.num for pull in api.get_repo_discussions("ORG/tiny", discussion_type="pull_request")] == [1]
    assert api.upload_file(**more, create_pr=True).pr_num == 2
    refused(403, other.upload_file, **more, revision="refs/pr/2")
    first, second = hub.state()["repos"]["model ORG/tiny"]["pull_requests"]
    assert (first["author"], first["head"], second["author"]) == ("other", head, "tester")


def test_collections(hub, api):
    upload(api)
    made = api.create_collection("All of it", namespace="ORG", description="Everything.")
    assert api.create_collection("All of it", namespace="ORG", exists_ok=True).slug == made.slug
    refused(409, api.create_collection, "All of it", namespace="ORG")
    refused(400, api.create_collection, "More of it", namespace="ORG", description="x" * 151)
    refused(404, api.add_collection_item, made.slug, "ORG/absent", "model")
    api.create_repo("ORG/demo", repo_type="space", space_sdk="static")
    for _ in range(2):
        api.add_collection_item(made.slug, "ORG/tiny", "model", note="first", exists_ok=True)
    refused(401, HfApi(endpoint=hub.url, token=False).add_collection_item, made.slug, "ORG/demo", "space")
    api.add_collection_item(made.slug, "ORG/demo", "space")
    refused(409, api.add_collection_item, made.slug, "ORG/demo", "space")
    assert [(item.item_id, item.item_type, item.note) for item in api.get_collection(made.slug).items] == [
        ("ORG/tiny", "model", "first"),
        ("ORG/demo", "space", None),
    ]
    assert list(hub.state()["collections"]) == [made.slug]


def test_faults_of_a_connection(hub, api, naps):
    api.create_repo("ORG/tiny")
    before = hub.state()
    started = time.monotonic()
    hub.fault(len(hub.log), "drop")
    with pytest.raises(httpx2.RemoteProtocolError):
        api.create_tag("ORG/tiny", tag="v1")
    assert hub.state() == before
    hub.fault(len(hub.log), "lost")
    with pytest.raises(httpx2.RemoteProtocolError):
        api.create_tag("ORG/tiny", tag="v1")
    assert "v1" in hub.state()["repos"]["model ORG/tiny"]["tags"]
    assert [(r.status, r.faulted) for r in hub.log] == [(200, False), (None, True), (200, True)]
    hub.fault(len(hub.log), "drop", forever=True)
    with pytest.raises(httpx2.RemoteProtocolError):
        upload(api)
    hub.heal()
    hub.fault(len(hub.log) + 3, "drop")  # create, preupload, batch, PUT
    assert upload(api).oid
    assert naps == [1]
    assert time.monotonic() - started < 5, "a dropped connection is seen at once"


def test_faults_of_a_status(hub, api, naps):
    upload(api)
    hub.fault(len(hub.log), "429")
    hub.fault(len(hub.log) + 1, "503")
    assert len(list(api.list_repo_tree("ORG/tiny"))) == 3, "the client tries again"
    assert naps == [1, 2]
    assert [record.status for record in hub.log][-3:] == [429, 503, 200]
    for kind in ("429", "500", "503", "412", "expired"):
        hub.fault(len(hub.log), kind)
        refused(401 if kind == "expired" else int(kind), api.create_tag, "ORG/tiny", tag="v1")
    assert hub.state()["repos"]["model ORG/tiny"]["tags"] == {}

    hub.fault(len(hub.log) + 1, "forbidden", forever=True)
    hub.fault(len(hub.log) + 3, "500")
    assert api.model_info("ORG/tiny").sha
    assert api.model_info("ORG/tiny").sha, "rights withdrawn, yet it may be read"
    refused(403, api.create_tag, "ORG/tiny", tag="v1")
    refused(500, api.create_tag, "ORG/tiny", tag="v1")
    refused(403, api.create_tag, "ORG/tiny", tag="v1")
    hub.heal()
    api.create_tag("ORG/tiny", tag="v1")
    with pytest.raises(ValueError, match="Unknown fault 'slow'"):
        hub.fault(0, "slow")


def test_what_is_not_served_says_so(hub, api):
    api.create_repo("ORG/tiny")
    assert "does not serve POST" in str(refused(501, api.super_squash_history, "ORG/tiny"))


def test_a_closed_hub_answers_no_more(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with Hub() as hub:
        api = HfApi(endpoint=hub.url, token=WRITER)
        api.whoami()
    with pytest.raises(httpx2.TransportError):
        api.whoami()


def test_libraries(hub, api, tmp_path):
    """datasets, transformers, peft and evaluate in a process of their own: they read HF_ENDPOINT at import."""
    script = "from tests.test_hub import use_libraries; use_libraries()"
    settings = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "hub_recipes"))), "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env=environment(hub, tmp_path / "home") | settings | {"OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    assert process.stdout.split()[-1] == "done"
    assert not [record for record in hub.log if record.status >= 500], "all that the clients ask for is served"
    assert 206 in [record.status for record in hub.log], "streaming asks for ranges"
    assert hub.state()["repos"].keys() == {
        "dataset ORG/pushed", "dataset ORG/tables", "model ORG/base", "model ORG/lora", "space ORG/share",
    }  # fmt: skip


def use_libraries() -> None:
    """What `test_libraries` runs, in its process."""
    import datasets
    import evaluate
    import torch
    from huggingface_hub import HfApi
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tests import tiny

    torch.set_num_threads(1)
    api = HfApi()

    tables = Path("tables")
    for path, start, rows in (("items/all", 0, 3), ("users/train", 10, 4), ("users/test", 20, 2)):
        (tables / path).parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict({"n": list(range(start, start + rows))}).to_parquet(tables / f"{path}.parquet")
    (tables / "README.md").write_text(CARD)
    api.create_repo("ORG/tables", repo_type="dataset")
    api.upload_folder(folder_path=tables, repo_id="ORG/tables", repo_type="dataset")
    api.create_tag("ORG/tables", tag="v1", repo_type="dataset")
    assert datasets.load_dataset("ORG/tables", "users", split="test", revision="v1")["n"][:] == [20, 21]
    assert datasets.load_dataset("ORG/tables", "items")["train"].num_rows == 3
    streamed = datasets.load_dataset("ORG/tables", "users", split="train", streaming=True)
    assert [row["n"] for row in streamed] == [10, 11, 12, 13]
    both = datasets.DatasetDict(
        train=datasets.Dataset.from_dict({"n": [1, 2]}), test=datasets.Dataset.from_dict({"n": [3]})
    )
    both.push_to_hub("ORG/pushed", "first")
    both["train"].push_to_hub("ORG/pushed", "second", private=True)
    assert datasets.get_dataset_config_names("ORG/pushed") == ["first", "second"]
    assert datasets.load_dataset("ORG/pushed", "first")["test"]["n"][:] == [3]

    base, tokenizer = tiny.model("llama"), tiny.byte_level()
    base.push_to_hub("ORG/base")
    tokenizer.push_to_hub("ORG/base")
    api.create_tag("ORG/base", tag="v1")
    tokens = AutoTokenizer.from_pretrained("ORG/base", revision="v1")("The Salt Lamp", return_tensors="pt")
    loaded = AutoModelForCausalLM.from_pretrained("ORG/base", revision="v1")
    with torch.no_grad():
        expected = base(**tokens).logits
        torch.testing.assert_close(loaded(**tokens).logits, expected)

    base.name_or_path = base.config._name_or_path = "ORG/base"
    adapted = get_peft_model(base, LoraConfig(r=2, init_lora_weights=False, task_type="CAUSAL_LM")).eval()
    adapted.peft_config["default"].base_model_name_or_path = "ORG/base"
    adapted.push_to_hub("ORG/lora")
    with torch.no_grad():
        wanted = adapted(**tokens).logits
        assert not torch.allclose(wanted, expected)
        torch.testing.assert_close(AutoModelForCausalLM.from_pretrained("ORG/lora").eval()(**tokens).logits, wanted)
        torch.testing.assert_close(PeftModel.from_pretrained(loaded, "ORG/lora").eval()(**tokens).logits, wanted)

    metric = """
import datasets
import evaluate


class Share(evaluate.Metric):
    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references):
        return {"share": sum(a == b for a, b in zip(predictions, references)) / len(references)}
"""
    api.create_repo("ORG/share", repo_type="space", space_sdk="gradio")
    api.upload_file(path_or_fileobj=metric.encode(), path_in_repo="share.py", repo_id="ORG/share", repo_type="space")
    assert evaluate.load("ORG/share").compute(predictions=[1, 2], references=[1, 3]) == {"share": 0.5}
    print("done")
