"""The page of the Space as it is served: its API, its errors, and the verb that serves it."""

import importlib
import importlib.util
import json
import re
import runpy
import shutil
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.test_space import CANDIDATES, HISTORY, NASTY
from trsr.cli import main
from trsr.cli.demo import demo, describe
from trsr.errors import UsageError
from trsr.hub.spaces import space_folder
from trsr.retrieval.retriever import Retriever, retriever_checksum

pytestmark = pytest.mark.compat

gradio = pytest.importorskip("gradio")
client = pytest.importorskip("gradio_client")


@pytest.mark.parametrize("port", ["99999", "-1", "0", "x"])
def test_what_is_no_port_is_refused(port, capsys):
    with pytest.raises(SystemExit) as end:
        main(["demo", "--port", port])
    assert end.value.code == 2
    assert f"--port: {'invalid int value' if port == 'x' else 'must be 1 to 65535'}" in capsys.readouterr().err


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    page = demo(prevent_thread_lock=True, quiet=True)
    yield page
    page.close()


@pytest.fixture(scope="module")
def api(page):
    return client.Client(page.local_url, verbose=False)


def test_every_call_answers(api):
    names = api.predict(api_name="/sample_users")
    user = api.predict(names[0], api_name="/sample_user")
    history, candidates = "\n".join(user["history"]), "\n".join(user["candidates"])
    answer = api.predict(history, candidates, api_name="/rank")
    assert [one["rank"] for one in answer["candidates"]] == list(range(1, 22))
    steps = list(api.submit(history, api_name="/summarize"))
    assert len(steps) > 3
    assert steps[-1]["recurrent"] == answer["summary"]
    assert api.predict(history, candidates, "", 3, api_name="/explain")["text"] == user["candidates"][3]
    assert set(api.predict(history, candidates, api_name="/compare_speed")) == {"shared", "separate", "difference"}
    assert len(api.predict(history, 4, 1, api_name="/draw_candidates")) == 4
    published = {f"/{name}" for name in ("summarize", "rank", "explain", "compare_speed")}
    published |= {"/sample_users", "/sample_user", "/draw_candidates"}
    assert set(api.view_api(return_format="dict")["named_endpoints"]) == published


@pytest.fixture(scope="module")
def catalogued(quickstarted, retriever):
    """The page of a run with a retriever."""
    page = demo(quickstarted[0] / "runs" / "recurrent", retriever, prevent_thread_lock=True, quiet=True)
    yield page
    page.close()


def test_a_run_with_a_retriever_recommends_from_its_catalogue(catalogued):
    api = client.Client(catalogued.local_url, verbose=False)
    history = "\n".join(api.predict(api.predict(api_name="/sample_users")[0], api_name="/sample_user")["history"])
    answer = api.predict(history, stage_one=6, api_name="/recommend")
    assert [one["ranks"]["both"] for one in answer["items"]] == [1, 2, 3, 4, 5, 6]
    assert answer["summary"]
    edited = api.predict(history, "genre: chess lore x9", stage_one=6, api_name="/recommend")
    assert {one["item_id"] for one in edited["items"]} == {one["item_id"] for one in answer["items"]}
    assert [one["log_odds"] for one in edited["items"]] != [one["log_odds"] for one in answer["items"]]
    with pytest.raises(client.exceptions.AppError, match="no field '&lt;img&gt;'"):
        api.predict(history, "x", field="<img>", value="x", api_name="/recommend")
    assert re.fullmatch(r"[\d,]+ items", stated(catalogued)["catalogue"])
    asking = [one for one in catalogued.fns.values() if one.concurrency_id == "model"]
    assert len(asking) == 10
    assert all(one.queue and one.concurrency_limit == 1 for one in asking)


def test_a_page_without_a_catalogue_says_so_and_one_with_it_does_not(page, catalogued):
    said = [
        "".join(one.value for one in shown.blocks.values() if isinstance(one, gradio.Markdown))
        for shown in (page, catalogued)
    ]
    assert ["carries no catalogue" in one for one in said] == [True, False]
    assert ["ranks candidates by how likely it is to answer *yes*" in one for one in said] == [True, False]
    assert ["adds the scores of both" in one for one in said] == [False, True]


@pytest.mark.parametrize(("items", "default"), [(1, 1), (20, 20), (1500, 50)])
def test_the_page_recommends_with_its_own_defaults_from_a_catalogue_of_any_size(items, default):
    sys.path.insert(0, str(space_folder()))
    try:
        section = importlib.import_module("catalogue_section")
    finally:
        sys.path.remove(str(space_folder()))
    recommender = SimpleNamespace(recommend=lambda history: {}, items=items, fields={})
    with gradio.Blocks() as page:
        section.build(recommender, gradio.Dropdown([]), *(gradio.Textbox() for _ in range(3)), gradio.State(""))
    [slider] = [one for one in page.blocks.values() if isinstance(one, gradio.Slider)]
    assert slider.preprocess(slider.value) == default


def test_the_recommender_in_the_package_gets_a_retriever_once(monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    monkeypatch.setattr("trsr.cli.demo.SAMPLE_EPOCHS", 1)
    monkeypatch.setattr("trsr.cli.demo.demo", lambda model, retriever, **_: shown.append((model, retriever)))
    main(["demo"])
    made = [(path, path.stat().st_mtime_ns) for path in sorted((tmp_path / "trsr" / "demo").rglob("*"))]
    assert shown == [(None, Retriever.load(shown[0][1]) and shown[0][1])]
    main(["demo"])
    assert made == [(path, path.stat().st_mtime_ns) for path in sorted((tmp_path / "trsr" / "demo").rglob("*"))]
    main(["demo", "runs/mine"])
    assert shown[1:] == [shown[0], (Path("runs/mine"), None)]


def test_visitors_who_left_are_forgotten(page):
    """Gradio keeps 0.1 MB for each session, and every call of the API is one."""
    assert page.state_session_capacity == 500


def test_mistakes_are_told_and_nothing_else_is(api, page):
    with pytest.raises(client.exceptions.AppError, match="at least one candidate"):
        api.predict(HISTORY, "", api_name="/rank")
    with pytest.raises(client.exceptions.AppError, match="Unknown method '&lt;img&gt;'"):
        api.predict(HISTORY, "c", "", "<img>", api_name="/rank")
    with pytest.raises(client.exceptions.AppError, match="at least one item"):
        api.predict("", api_name="/summarize")
    with pytest.raises(client.exceptions.AppError, match="no sample user"):
        api.predict("nobody", api_name="/sample_user")


def test_text_comes_back_as_it_was_read(api):
    answer = api.predict(HISTORY, NASTY, api_name="/rank")
    assert answer["candidates"][0]["text"] == NASTY.replace("\u202e", "").replace("\x00", "")


def test_one_at_a_time_asks_the_model(page):
    asking = [one for one in page.fns.values() if one.concurrency_id == "model"]
    assert len(asking) == 8
    assert {one.concurrency_limit for one in asking} == {1}
    assert all(one.queue for one in asking)


def test_templates_of_the_page_run_no_text(page, catalogued):
    for block in (*page.blocks.values(), *catalogued.blocks.values()):
        if isinstance(block, gradio.HTML):
            assert (block.html_template, block.js_on_load) == ("${value}", None)


@pytest.mark.skipif(importlib.util.find_spec("mcp") is None, reason="needs gradio[mcp]")
def test_the_calls_are_tools_of_an_mcp_server(page):
    with urllib.request.urlopen(f"{page.local_url}gradio_api/mcp/schema", timeout=30) as answer:
        tools = {one["name"]: one for one in json.load(answer)}
    [rank] = [one for name, one in tools.items() if name.endswith("rank")]
    assert "probability that the model answers yes" in rank["description"]
    assert {"history", "candidates", "summary", "method"} <= set(rank["inputSchema"]["properties"])


def test_what_is_shown_of_a_release(quickstarted, tmp_path):
    release = quickstarted[0] / "release"
    shown = describe(release)
    assert shown["model"] == str(release.resolve() / "pipeline")
    assert shown["dataset_license"] == describe(None)["dataset_license"] == "apache-2.0"
    with pytest.raises(ValueError, match="no finished run and no release folder"):
        describe(tmp_path)


def stated(page):
    """The names that the last section of a page shows, and what they stand for."""
    [shown] = [
        one.value for one in page.blocks.values() if isinstance(one, gradio.HTML) and "class='facts'" in one.value
    ]
    return dict(re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", shown))


def test_the_page_says_what_recommends_and_not_where_it_lies(page):
    shown = stated(page)
    assert (shown["model"], shown["dataset"]) == ("nano/pipeline", "assets/sample")
    assert (shown["license"], shown["dataset license"], shown["runs on"]) == ("apache-2.0", "apache-2.0", "cpu")


def test_names_and_revisions_of_repos_are_shown_as_they_are():
    sys.path.insert(0, str(space_folder()))
    try:
        facts = runpy.run_path(str(space_folder() / "app.py"))["facts"]
    finally:
        sys.path.remove(str(space_folder()))
    pipe = SimpleNamespace(device="cpu", scorer=SimpleNamespace(plan="packed"))
    repo = {
        "model": "ORG/trsr-sample",
        "revision": "f" * 40,
        "dataset": "ORG/trsr-sample",
        "dataset_revision": "e" * 40,
    }
    assert facts(repo, pipe) | {"license": 0, "dataset license": 0} == {
        "model": "ORG/trsr-sample",
        "revision": "f" * 40,
        "license": 0,
        "dataset": "ORG/trsr-sample",
        "dataset revision": "e" * 40,
        "dataset license": 0,
        "runs on": "cpu",
        "scoring plan": "packed",
    }
    assert facts({"model": "ORG/x"}, pipe)["dataset"] == ""


def test_a_release_folder_is_served(quickstarted):
    page = demo(quickstarted[0] / "release", prevent_thread_lock=True, quiet=True)
    try:
        shown = stated(page)
        assert (shown["model"], shown["dataset"]) == ("release/pipeline", "release/dataset")
        assert str(quickstarted[0].parent) not in str(page.config)
        answer = client.Client(page.local_url, verbose=False).predict(HISTORY, CANDIDATES, api_name="/rank")
        assert len(answer["candidates"]) == 2
    finally:
        page.close()


def test_without_gradio_the_install_line_is_told(monkeypatch, capsys):
    monkeypatch.setattr("trsr.cli.demo.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        main(["demo"])
    assert stop.value.code == 2
    assert "pip install 'llm-trsr[demo]'" in capsys.readouterr().err


def test_a_release_keeps_the_weight_that_was_fitted_for_a_retriever_that_is_named_again(
    quickstarted, retriever, monkeypatch
):
    record = {"retriever": retriever_checksum(retriever), "weight": 5.0, "fitted": {"users": 3}}
    monkeypatch.setattr("trsr.retrieval.carried.record_of", lambda pipe: record)
    shown = []
    monkeypatch.setattr("runpy.run_path", lambda path: {"launch": lambda release, pipe, **options: shown.append(pipe)})
    demo(quickstarted[0] / "release", retriever)
    assert shown[0].catalogue.record["weight"] == 5.0


def test_a_release_without_texts_has_no_catalogue(quickstarted, retriever, tmp_path):
    shutil.copytree(quickstarted[0] / "release", tmp_path / "release", ignore=shutil.ignore_patterns("dataset"))
    with pytest.raises(UsageError, match="has no folder dataset/, which has the texts of a catalogue"):
        demo(tmp_path / "release", retriever)
