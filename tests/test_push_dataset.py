"""Pushing a dataset folder to a server that speaks the Hub's protocol."""

import json

import huggingface_hub
import pytest
from datasets import Dataset, load_dataset
from huggingface_hub import HfApi

from tests.hub import Hub, faults
from tests.hub.call import Refusal
from tests.hub.server import WRITER
from trsr.dataset import contract
from trsr.errors import HubError, ReleaseError
from trsr.hub import retry
from trsr.hub.push_dataset import push_dataset

TITLES = ["A Salt Lantern", "A Quiet Oven", "A Golden Reef", "A Broken Bridge"]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    with Hub() as server:
        yield server


def folder(path, **terms):
    ids = [str(number) for number in range(len(TITLES))]
    items = Dataset.from_dict(
        {"item_id": ids, "title": TITLES, "text": TITLES}, features=contract.items_features(contract.ITEM_COLUMNS)
    )
    row = {"user_id": "u", "history": ids[:1], "target": ids[1], "negatives": ids[2:]}
    rows = Dataset.from_list([row], features=contract.HISTORIES)
    tables = {"items": {"train": items}, "histories": dict.fromkeys(contract.SPLITS, rows)}
    stated = {"dataset": contract.Terms("mine", **terms).to_dict()}
    contract.write(path, tables, provenance=stated, body="# Mine", header={"tags": ["llm-trsr"]})
    return path


def client(hub, token=WRITER):
    return HfApi(endpoint=hub.url, token=token)


def held(hub, repo):
    api = client(hub)
    names = api.list_repo_files(repo, repo_type="dataset")
    return {name: open(api.hf_hub_download(repo, name, repo_type="dataset"), "rb").read() for name in names}


def test_the_repo_holds_what_the_folder_holds(hub, tmp_path):
    mine = folder(tmp_path / "mine", license="mit")
    commit = push_dataset(mine, "ORG/mine", hub=client(hub))
    there = held(hub, "ORG/mine")
    ours = {str(path.relative_to(mine)): path.read_bytes() for path in mine.rglob("*") if path.is_file()}
    assert {name: there[name] for name in ours} == ours
    assert set(there) - set(ours) <= {".gitattributes"}
    assert push_dataset(mine, "ORG/mine", hub=client(hub)) == commit  # nothing changed, no commit


def test_a_second_push_leaves_nothing_behind(hub, tmp_path):
    push_dataset(folder(tmp_path / "one"), "ORG/mine", hub=client(hub))
    extra = folder(tmp_path / "two", license="mit")
    (extra / "notes.json").write_text("{}")
    push_dataset(extra, "ORG/mine", hub=client(hub))
    assert "notes.json" in held(hub, "ORG/mine")
    push_dataset(folder(tmp_path / "one", license="mit"), "ORG/mine", hub=client(hub))
    assert "notes.json" not in held(hub, "ORG/mine")


def test_texts_that_may_not_go_stay_at_home(hub, tmp_path):
    kept = folder(tmp_path / "kept", license="other", license_name="research only", share_text=False)
    with pytest.raises(ReleaseError, match=r"research only.*--accept-data-licence"):
        push_dataset(kept, "ORG/kept", hub=client(hub))
    assert not client(hub).repo_exists("ORG/kept", repo_type="dataset")
    push_dataset(kept, "ORG/kept", accept_data_licence=True, hub=client(hub))
    assert client(hub).dataset_info("ORG/kept").gated == "manual"
    there = held(hub, "ORG/kept")
    assert not any(title.encode() in content for title in TITLES for content in there.values())
    assert any(name.startswith("items/") for name in there)
    order = [one.path for one in hub.log if one.method in ("PUT", "POST")]
    assert next(n for n, path in enumerate(order) if "settings" in path) < next(
        n for n, path in enumerate(order) if "/commit/" in path
    )


def test_summaries_go_where_texts_may_not_and_the_message_says_so(hub, tmp_path):
    kept = folder(tmp_path / "kept", license="other", license_name="research only", share_text=False)
    tables = contract.tables(str(kept))
    summarised = tables["histories"].map(lambda row: {"block_summaries": ["Likes lamps."], "summary": "Likes lamps."})
    provenance = contract.provenance(str(kept)).values
    contract.write(kept, {**tables, "recurrent": summarised}, provenance=provenance, body="# Mine")
    with pytest.raises(ReleaseError, match="item ids, histories and summaries, which may quote items, are pushed"):
        push_dataset(kept, "ORG/kept", hub=client(hub))
    push_dataset(kept, "ORG/kept", accept_data_licence=True, hub=client(hub))
    there = held(hub, "ORG/kept")
    assert any(name.startswith("recurrent/") for name in there)
    assert not any(title.encode() in content for title in TITLES for content in there.values())


def test_what_is_not_ours_is_left_alone(hub, tmp_path):
    api = client(hub)
    api.create_repo("ORG/theirs", repo_type="dataset")
    api.upload_file(path_or_fileobj=b"x", path_in_repo="README.md", repo_id="ORG/theirs", repo_type="dataset")
    with pytest.raises(ReleaseError, match=r"ORG/theirs exists and is no dataset of LLM-TRSR"):
        push_dataset(folder(tmp_path / "mine"), "ORG/theirs", hub=api)
    with pytest.raises(ReleaseError, match="takes ORG/NAME"):
        push_dataset(tmp_path / "mine", "theirs", hub=api)
    for name in ("ORG/mine/more", "ORG/my data"):
        with pytest.raises(ReleaseError, match=f"takes ORG/NAME, got '{name}'"):
            push_dataset(tmp_path / "mine", name, hub=api)
    with pytest.raises(HubError):
        push_dataset(tmp_path / "mine", "STRANGER/mine", hub=api)


def test_it_loads_from_there(hub, tmp_path, monkeypatch):
    push_dataset(folder(tmp_path / "mine"), "ORG/mine", hub=client(hub))
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.url)
    there = load_dataset(client(hub).snapshot_download("ORG/mine", repo_type="dataset"), "items", split="train")
    assert there["title"] == TITLES


def test_what_others_did_there_is_kept_or_stops_the_push(hub, tmp_path):
    mine, api = folder(tmp_path / "mine", license="mit"), client(hub)
    push_dataset(mine, "ORG/mine", hub=api)
    there = {"repo_id": "ORG/mine", "repo_type": "dataset"}
    api.upload_file(path_or_fileobj=b"mine", path_in_repo="NOTES.md", **there)
    (mine / "provenance.json").write_text((mine / "provenance.json").read_text() + "\n")
    push_dataset(mine, "ORG/mine", hub=api)
    assert held(hub, "ORG/mine")["NOTES.md"] == b"mine"
    card = (mine / "README.md").read_bytes()
    api.upload_file(path_or_fileobj=card + b"Better.\n", path_in_repo="README.md", **there)
    with pytest.raises(ReleaseError, match=r"somebody else changed README\.md .*--overwrite"):
        push_dataset(mine, "ORG/mine", hub=api)
    assert held(hub, "ORG/mine")["README.md"] == card + b"Better.\n"
    push_dataset(mine, "ORG/mine", overwrite=True, hub=api)
    assert held(hub, "ORG/mine")["README.md"] == card


def test_a_licence_that_the_hub_does_not_know(hub, tmp_path):
    with pytest.raises(ReleaseError, match=r"'cc-by' .*Did you mean .*cc-by-4.*Set --license to"):
        push_dataset(folder(tmp_path / "mine", license="cc-by"), "ORG/mine", hub=client(hub))
    recs = recommended(tmp_path / "recs", license="cc-by")  # the verb that writes them takes no licence
    with pytest.raises(ReleaseError, match="Set --license of the script that builds the dataset to"):
        push_dataset(recs, "ORG/recs", recommendations=True, hub=client(hub))
    assert not hub.state()["repos"]


def test_a_language_that_the_hub_does_not_take(hub, tmp_path):
    mine = folder(tmp_path / "mine", license="mit", language=("en-GB",))
    with pytest.raises(ReleaseError, match=r"'en-GB' of the dataset mine .*Did you mean en\?.*--language"):
        push_dataset(mine, "ORG/mine", hub=client(hub))
    assert not hub.state()["repos"]


def test_a_card_that_the_hub_refuses_is_told(hub, tmp_path):
    mine = folder(tmp_path / "mine", license="mit")
    card = (mine / "README.md").read_text().replace("license: mit\n", "license: mit\nlanguage:\n- english\n")
    (mine / "README.md").write_text(card)
    with pytest.raises(
        HubError, match=r'^Commit to ORG/mine: the Hub refuses it .*README.*value "english" is not'
    ) as told:
        push_dataset(mine, "ORG/mine", hub=client(hub))
    assert "\n" not in str(told.value)


def test_a_gate_that_was_taken_off_is_put_back(hub, tmp_path):
    kept = folder(tmp_path / "kept", license="other", license_name="research only", share_text=False)
    api = client(hub)
    commit = push_dataset(kept, "ORG/kept", accept_data_licence=True, hub=api)
    api.update_repo_settings("ORG/kept", repo_type="dataset", gated=False)
    assert push_dataset(kept, "ORG/kept", accept_data_licence=True, hub=api) == commit
    assert api.dataset_info("ORG/kept").gated == "manual"


def recommended(path, **terms):
    """A folder as `trsr recommend --all-users` leaves it."""
    (path / "recommendations").mkdir(parents=True)
    Dataset.from_dict({"user_id": ["u"], "item_ids": [["1"]]}).to_parquet(path / "recommendations" / "train.parquet")
    (path / "README.md").write_text("---\ntags:\n- llm-trsr\n---\n\n# Recommendations\n")
    (path / "provenance.json").write_text(json.dumps({"dataset": contract.Terms("mine", **terms).to_dict()}))
    return path


def test_recommendations_and_datasets_do_not_take_each_others_place(hub, tmp_path):
    recs, data = recommended(tmp_path / "recs", license="mit"), folder(tmp_path / "data", license="mit")
    push_dataset(recs, "ORG/recs", recommendations=True, hub=client(hub))
    assert "recommendations/train.parquet" in held(hub, "ORG/recs")
    assert not client(hub).dataset_info("ORG/recs").private
    push_dataset(data, "ORG/data", hub=client(hub))
    with pytest.raises(ReleaseError, match="ORG/recs holds recommendations, which would be lost"):
        push_dataset(data, "ORG/recs", hub=client(hub))
    with pytest.raises(ReleaseError, match="ORG/data holds a dataset, which would be lost"):
        push_dataset(recs, "ORG/data", recommendations=True, hub=client(hub))
    push_dataset(recs, "ORG/recs", recommendations=True, hub=client(hub))


def test_recommendations_from_texts_that_may_not_go_are_private_and_gated(hub, tmp_path):
    recs = recommended(tmp_path / "recs", license="other", license_name="research only", share_text=False)
    with pytest.raises(
        ReleaseError, match=r"research only.*--accept-data-licence, ids and summaries, which may quote items,"
    ):
        push_dataset(recs, "ORG/recs", recommendations=True, hub=client(hub))
    push_dataset(recs, "ORG/recs", recommendations=True, accept_data_licence=True, hub=client(hub))
    info = client(hub).dataset_info("ORG/recs")
    assert (info.gated, info.private) == ("manual", True)


def test_nothing_private_goes_to_a_public_repo(hub, tmp_path):
    api, open_terms = client(hub), {"license": "mit"}
    push_dataset(folder(tmp_path / "data", **open_terms), "ORG/data", hub=api)
    recs = recommended(tmp_path / "recs", **open_terms)
    push_dataset(recs, "ORG/recs", recommendations=True, hub=api)
    closed = recommended(tmp_path / "closed", license="other", license_name="research only", share_text=False)
    before, told = hub.state(), r"exists and is public\. Make it private in its settings, or "
    with pytest.raises(ReleaseError, match=f"ORG/data {told}leave --private"):
        push_dataset(folder(tmp_path / "more", language=("en",), **open_terms), "ORG/data", private=True, hub=api)
    with pytest.raises(ReleaseError, match=f"ORG/recs {told}leave --private"):
        push_dataset(recs, "ORG/recs", recommendations=True, private=True, hub=api)
    with pytest.raises(ReleaseError, match=f"ORG/recs {told}choose another name"):
        push_dataset(closed, "ORG/recs", recommendations=True, accept_data_licence=True, hub=api)
    assert hub.state() == before
    api.update_repo_settings("ORG/data", repo_type="dataset", private=True)
    push_dataset(folder(tmp_path / "again", license="mit", language=("en",)), "ORG/data", private=True, hub=api)
    assert client(hub).dataset_info("ORG/data").private


def test_a_token_that_was_given_and_that_the_hub_repeats_is_not_shown(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(retry.time, "sleep", lambda seconds: None)
    for kind, status in (("forbidden", 403), ("503", 503)):
        monkeypatch.setitem(faults.REFUSALS, kind, Refusal(status, f"No right for \x1b[31m{WRITER}"))
    hub.fault(0, "503")
    hub.fault(1, "forbidden", forever=True)
    with pytest.raises(HubError, match=r"no right to do this .*No right for \[31m\*\*\*") as told:
        push_dataset(folder(tmp_path / "mine"), "ORG/mine", hub=client(hub))
    said = "".join(capsys.readouterr())
    assert "No right for [31m***; trying again" in said
    assert WRITER not in said + str(told.value)
