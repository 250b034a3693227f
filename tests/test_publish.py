"""Publishing against a server that speaks the Hub's protocol, with the real client."""

import json
import shutil

import huggingface_hub
import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import _http

from tests.hub import Hub, User
from trsr import data, patience
from trsr.patience import HubError
from trsr.publish import Options, publish, push
from trsr.release import assemble
from trsr.repos import ReleaseError, name_repos

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
    monkeypatch.setattr(patience.time, "sleep", lambda seconds: None)
    return server


def client(hub, token=TOKEN):
    return HfApi(endpoint=hub.url, token=token)


@pytest.fixture(scope="module")
def run(quickstarted):
    return quickstarted[0] / "runs" / "recurrent"


@pytest.fixture(scope="module")
def assembled(run, tmp_path_factory):
    return assemble(run, tmp_path_factory.mktemp("release") / "release", name_repos("ORG", "trsr-sample"))


@pytest.fixture
def release(assembled):
    return assembled


def test_a_push_makes_one_commit_a_repo_and_a_second_none(hub, release):
    commits = push(release, client(hub), Options(), say=lambda line: None)
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
    assert push(release, client(hub), Options(), say=lambda line: None) == commits
    assert hub.state() == state
    assert not any(one.path.endswith("/preupload/main") or "/commit/" in one.path for one in hub.log[before:])


def quiet(line):
    pass


def pushed(hub, release, **options):
    return push(release, client(hub), Options(**options), say=quiet)


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
            except HubError as error:
                assert TOKEN not in str(error)
                enough = False
                hub.heal()
                pushed(hub, release)
            assert hub.state() == whole, f"{kind} at request {at}: {hub.log[at]}"
            yield kind, at, enough


def test_a_push_that_breaks_anywhere_is_whole_after_one_rerun(hub, release):
    tried = list(walk(hub, release, (*PASSING, *LASTING), 9))
    assert len(tried) > 60
    # What passes is waited out within the run; a token that no longer counts ends it.
    assert {kind for kind, _, enough in tried if not enough} <= {*LASTING, "412"}


@pytest.mark.slow
def test_a_push_that_breaks_at_any_request(hub, release):
    tried = list(walk(hub, release, (*PASSING, *LASTING), 1))
    print(f"{len(tried)} fault points, {sum(not enough for *_, enough in tried)} needed the rerun")
