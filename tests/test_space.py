"""The recommender's Space without its page: what it reads, asks, offers and shows."""

import importlib
import json
import sys
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.exceptions import DatasetGenerationError
from huggingface_hub.errors import HTTPError
from hypothesis import given
from hypothesis import strategies as st

from trsr.assets.paths import dataset_path
from trsr.dataset import contract
from trsr.hub.spaces import SPACE, space_folder
from trsr.retrieval.carried import catalogue_of

NASTY = "title: <img src=x onerror=alert(1)>; genre: **bold** `${alert(2)}` {{this}} \u202eevil\x00"
HISTORY = "\n".join(f"title: Tide {n}; genre: {'sea stories' if n else 'mystery'}" for n in range(7))
CANDIDATES = "title: Harbor of the Storm; genre: sea stories\ntitle: The Quiet Oven; genre: baking"


@pytest.fixture(scope="module")
def space():
    """The Space's modules that need no gradio, by name."""
    sys.path.insert(0, str(space_folder()))
    try:
        yield SimpleNamespace(
            **{
                name: importlib.import_module(name)
                for name in ("asking", "reading", "recommending", "samples", "showing")
            }
        )
    finally:
        sys.path.remove(str(space_folder()))


@pytest.fixture(scope="module")
def pipe(space):
    from transformers import pipeline

    import trsr  # noqa: F401

    return pipeline(space.asking.TASK, device="cpu")


@pytest.fixture(scope="module")
def recommender(space, pipe):
    return space.asking.Recommender(pipe)


# What is pasted.


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a\n\n  b  \r\n", ["a", "b"]),
        ("", []),
        ('["a", {"title": "b", "year": 1}]', ["a", {"title": "b", "year": 1}]),
        ("[]", []),
        ("[Sponsored] a\n[b]", ["[Sponsored] a", "[b]"]),
        ('\ufefftitle, Author\n"Emma, a novel", Jane Austen\n', [{"title": "Emma, a novel", "author": "Jane Austen"}]),
        ("id\ttext\n1\tx, y\n2\tz", [{"id": "1", "text": "x, y"}, {"id": "2", "text": "z"}]),
        ("title: Emma, the first\ntitle: b", ["title: Emma, the first", "title: b"]),
        ("title", ["title"]),
        (
            "title: Minds; subjects: cognition, text, images\ntitle: b",
            ["title: Minds; subjects: cognition, text, images", "title: b"],
        ),
        ("author: A\ttitle\nb", ["author: A\ttitle", "b"]),
        ('["Weird Al" Yankovic] in 3-D', ['["Weird Al" Yankovic] in 3-D']),
        ('["Weird Al" Yankovic]\n{b}\n[live]', ['["Weird Al" Yankovic]', "{b}", "[live]"]),
        ('["a"', ['["a"']),
    ],
)
def test_lines_json_and_tables_are_read(space, text, found):
    assert space.reading.items(text, "history") == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n" * 101, "history: 101 items, at most 100"),
        ("a" * 100_001, "history: 100001 characters, at most 100000"),
        ('["a", 1]', "history, item 2: expected a string or an object"),
        ('["a" "b"]', "begins and ends as a JSON list, and is none.*Correct it"),
        ('[{"a":' * 9_000 + '"b"]', "begins and ends as a JSON list, and is none"),
        ("title,genre\na\n", "history, row 1: expected 2 cells.*give a JSON list"),
        ("title,genre\na,b,c\n", "history, row 1: expected 2 cells"),
        ('title,genre\n"a,b\n', "begins as a table and cannot be read"),
    ],
)
def test_what_cannot_be_read_is_told(space, text, message):
    with pytest.raises(ValueError, match=message):
        space.reading.items(text, "history")


@given(st.text(max_size=80) | st.text("[]{}\",:title\n\t'", max_size=80))
def test_any_text_is_read_or_refused(space, text):
    told = ""
    try:
        found = space.reading.items(text, "candidates")
    except ValueError as error:
        found, told = [], str(error)
    assert all(isinstance(one, (str, dict)) for one in found)
    assert not told or told.startswith("candidates")


@given(
    st.lists(
        st.sampled_from(["title, text", '["a", "b"]', '["a" "b"]', "[]", "title\ttext", "x, y", '"', "title: a"]),
        max_size=4,
    )
)
def test_what_the_page_writes_is_read_as_it_was(space, texts):
    assert space.reading.items(space.reading.written(texts, "candidates"), "candidates") == texts


def test_no_more_is_written_than_is_read(space):
    reading = space.reading
    for texts in (["a"] * 200, ["\\" * 3_000] * 99, ["[]", "x" * 60_000, "y" * 39_980, "z"], ["x" * 100_001]):
        kept = reading.fitting(texts, "history")
        assert texts[: len(kept)] == kept
        assert reading.items(reading.written(kept, "history"), "history") == kept
    assert len(reading.fitting(["a"] * 200, "candidates")) == 50
    assert len(reading.fitting(["[]", "x" * 60_000, "y" * 39_980, "z"], "history")) == 3


# What is asked.


def test_summaries_come_step_by_step_and_are_the_pipelines_own(recommender, pipe):
    steps = list(recommender.summarize(HISTORY))
    assert [sum(block["hierarchical"] is not None for block in step["blocks"]) for step in steps] == [1, 2, 2, 2]
    assert [sum(block["recurrent"] is not None for block in step["blocks"]) for step in steps] == [1, 1, 2, 2]
    assert [step["hierarchical"] is not None for step in steps] == [False, False, False, True]
    last = steps[-1]
    for method in ("recurrent", "hierarchical"):
        whole = pipe({"history": HISTORY.splitlines(), "candidates": []}, method=method, return_summary=True)
        assert [block[method] for block in last["blocks"]] == whole["block_summaries"]
        assert last[method] == whole["summary"]
    assert [item for block in last["blocks"] for item in block["items"]] == HISTORY.splitlines()
    assert list(recommender.summarize("a\n" * 30))[-1]["too_old"] == 5
    with pytest.raises(ValueError, match="at least one item"):
        list(recommender.summarize(" \n"))


def test_the_ranking_is_the_pipelines_own(recommender, pipe):
    answer = recommender.rank(HISTORY, CANDIDATES)
    own = pipe(
        {"history": HISTORY.splitlines(), "candidates": CANDIDATES.splitlines()},
        return_summary=True,
        method="recurrent",
    )
    assert answer["summary"] == own["summary"]
    assert [(one["index"], one["p_yes"]) for one in answer["candidates"]] == [
        (one["index"], round(one["score"], 4)) for one in own["candidates"]
    ]
    assert answer["candidates"][0]["text"] == "title: Harbor of the Storm; genre: sea stories"
    assert json.loads(json.dumps(answer)) == answer
    edited = recommender.rank(HISTORY, CANDIDATES, " genre: baking x9 ")
    assert edited["summary"] == "genre: baking x9"
    assert edited["candidates"] != answer["candidates"]
    assert recommender.rank("", CANDIDATES)["summary"] == ""


def test_each_part_is_left_out_and_no_older_item_takes_its_place(recommender, pipe):
    found = recommender.explain(HISTORY, CANDIDATES, candidate=1)
    whole = recommender.rank(HISTORY, CANDIDATES)
    [own] = [one for one in whole["candidates"] if one["index"] == 1]
    assert (found["text"], found["p_yes"], found["rank"]) == (own["text"], own["p_yes"], own["rank"])
    recent = HISTORY.splitlines()[-3:]  # the nano recommender shows three
    assert [one["text"] for one in found["without"]] == [whole["summary"], *recent]
    histories = [recent, recent[1:], [recent[0], recent[2]], recent[:2]]
    for one, history in zip(found["without"], histories, strict=True):
        summary = "" if one["part"] == "summary" else whole["summary"]
        answer = pipe({"history": history, "candidates": CANDIDATES.splitlines(), "summary": summary})
        [then] = [each for each in answer["candidates"] if each["index"] == 1]
        assert (one["p_yes"], one["rank"]) == (round(then["score"], 4), then["rank"])
        assert one["change"] == pytest.approx(one["p_yes"] - found["p_yes"], abs=2e-4)
    assert recommender.explain("", CANDIDATES)["without"] == []
    with pytest.raises(ValueError, match="no candidate 2: there are 2"):
        recommender.explain(HISTORY, CANDIDATES, candidate=2)
    for place in (1.5, "1", True, None):
        with pytest.raises(ValueError, match="candidate: expected a whole number"):
            recommender.explain(HISTORY, CANDIDATES, candidate=place)


def test_what_the_history_holds_is_not_drawn_in_whatever_form(space, recommender):
    samples = space.samples.Samples({}, ["title: Emma; genre: novel", "title: Dracula; genre: horror"])
    samples.shown = recommender.shown
    table = "title,genre\nEmma,novel\nNobody,novel"
    for history in ('[{"title": "Emma", "genre": "novel"}, {"item_id": "gone"}]', table, " title:  Emma; genre: novel"):
        assert samples.draw_candidates(history, 2) == ["title: Dracula; genre: horror"]


def test_sharing_saves_tokens_and_changes_nothing(recommender, pipe):
    found = recommender.compare_speed(HISTORY, CANDIDATES)
    prefix = pipe.encoder.prefix_ids(
        recommender.rank(HISTORY, CANDIDATES)["summary"], pipe.blocks(HISTORY.splitlines())[-1]
    )
    assert found["separate"]["tokens"] - found["shared"]["tokens"] > len(prefix.ids) / 2
    assert found["difference"] < 1e-5
    assert found["shared"]["seconds"] > 0


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("a", " \n"), "at least one candidate"),
        (("a", "c\n" * 51), "candidates: 51 items, at most 50"),
        (("a", "c\n" + "x" * 1001), "candidates, item 2: 1001 characters, at most 1000"),
        (("a", "c", "x" * 20_001), "summary: 20001 characters, at most 20000"),
        (("a", "c", "", "sideways"), "Unknown method 'sideways'"),
        (("a", "\u200b"), r"candidates\[0\]: An item has no text"),
        (("a", '[{"id": 1}]'), r"candidates\[0\]: An item has no text"),
    ],
)
def test_limits_are_told(recommender, asked, message):
    with pytest.raises(ValueError, match=message):
        recommender.rank(*asked)


def test_a_gpu_is_lent_only_where_there_is_the_package_for_it(space, monkeypatch):
    assert space.asking.gpu(len) is len
    lender = SimpleNamespace(GPU=lambda function: ("lent", function), __spec__=object())
    monkeypatch.setitem(sys.modules, "spaces", lender)
    assert space.asking.gpu(len) == ("lent", len)


# What is recommended from a catalogue.


@pytest.fixture(scope="module")
def catalogued(space, quickstarted, retriever):
    """The recommender in the package, with a catalogue and its pipeline."""
    from transformers import pipeline

    made = pipeline(space.asking.TASK, device="cpu")
    made.catalogue = catalogue_of(retriever, str(quickstarted[0] / "dataset"))
    return space.recommending.CatalogueRecommender(made), made


@pytest.fixture(scope="module")
def met(catalogued):
    """A history of the catalogue's own items."""
    return [" ".join(text.split()) for text in catalogued[1].catalogue.texts[3:60:8]]


def test_lists_are_the_pipelines_own(catalogued, met):
    recommender, pipe = catalogued
    answer = recommender.recommend("\n".join(met), stage_one=12)
    own = pipe({"history": met}, stage_one=12, return_summary=True, method="recurrent")
    assert answer["summary"] == own["summary"]
    assert [one["item_id"] for one in answer["items"]] == [one["item_id"] for one in own["candidates"]]
    for name in ("score", "log_odds", "stage_one"):
        assert [one[name] for one in answer["items"]] == pytest.approx(
            [one[name] for one in own["candidates"]], abs=1e-4
        )
    first = pipe({"history": met}, stage_one=12, rank=False)["candidates"]
    by_rank = {one["ranks"]["first_stage"]: one["item_id"] for one in answer["items"]}
    assert [by_rank[rank] for rank in range(1, 13)] == [one["item_id"] for one in first]
    assert [one["ranks"]["both"] for one in answer["items"]] == list(range(1, 13))
    best = max(own["candidates"], key=lambda one: one["log_odds"])["item_id"]
    assert [one["item_id"] for one in answer["items"] if one["ranks"]["language_model"] == 1] == [best]
    assert json.loads(json.dumps(answer)) == answer
    assert not {one["text"] for one in answer["items"]} & set(met)


def test_fields_to_choose_by_are_those_of_texts(space):
    columns = {
        "genre": ["sea", "sea", None],
        "tags": [["a"], ["a", "b"], ["b"]],
        "inner": [{"x": 1}] * 3,
        "year": [1, 1, 2],
    }
    assert space.recommending._values(columns) == {"genre": ["sea"], "tags": ["a", "b"]}


def test_what_a_list_is_chosen_by(catalogued, met):
    recommender, pipe = catalogued
    history = "\n".join(met)
    alone = recommender.recommend(history, stage_one=5, first_stage_only=True)
    assert [one["ranks"] for one in alone["items"]] == [{"first_stage": n} for n in range(1, 6)]
    first, second = alone["items"][:2]
    exclude = f"{first['item_id']}\n{second['text']}"
    left = recommender.recommend(history, stage_one=5, first_stage_only=True, exclude=exclude)
    assert not {first["item_id"], second["item_id"]} & {one["item_id"] for one in left["items"]}
    field, values = next(iter(recommender.fields.items()))
    chosen = recommender.recommend(history, stage_one=5, first_stage_only=True, field=field, value=values[0])
    rows = pipe.catalogue.rows
    assert {pipe.catalogue.fields[field][rows[one["item_id"]]] for one in chosen["items"]} == {values[0]}
    by_id = json.dumps([{"item_id": pipe.catalogue.item_ids[row]} for row in range(3, 60, 8)])
    assert (
        recommender.recommend(by_id, "x", stage_one=5)["items"]
        == recommender.recommend(history, "x", stage_one=5)["items"]
    )
    assert recommender.recommend("title: Nobody knows it", "x", stage_one=5)["not_in_catalogue"] == 1
    assert recommender.recommend('[{"item_id": "gone"}]', "x", stage_one=5)["not_in_catalogue"] == 1
    with pytest.raises(ValueError, match=r"candidates\[0\]: The catalogue holds no item 'gone'"):
        recommender.rank(history, '[{"item_id": "gone"}]')
    long = "title: Nobody knows it" * 50
    with pytest.raises(ValueError, match="history, item 3: 1100 characters, at most 1000"):
        recommender.recommend(json.dumps([{"item_id": "gone"}, "title: A", long]), "x")
    for asked, message in (
        ({"stage_one": 501}, "expected 1 to 500, got 501"),
        ({"stage_one": "5"}, "stage_one: expected a whole number, got '5'"),
        ({"value": "x"}, "A filter needs a field and a value: choose the field for the value 'x'."),
        ({"field": "genre"}, "A filter needs a field and a value: choose the value for the field 'genre'."),
        ({"field": "gone", "value": "x"}, "no field 'gone'"),
        ({"method": "sideways"}, "Unknown method 'sideways'"),
    ):
        with pytest.raises(ValueError, match=message):
            recommender.recommend(history, **asked)


def test_an_edited_summary_moves_the_list_and_not_the_first_stage(space, catalogued, met):
    recommender, _ = catalogued
    before, now = (
        recommender.recommend("\n".join(met), summary, stage_one=20) for summary in ("", "genre: chess lore x9")
    )
    ranks = {one["item_id"]: one["ranks"] for one in before["items"]}
    moved = {
        system: sum(ranks[one["item_id"]][system] != one["ranks"][system] for one in now["items"])
        for system in space.recommending.SYSTEMS
    }
    assert moved["first_stage"] == 0
    assert moved["language_model"] > 0
    shown = space.showing.lists(now, recommender.items, ranks, chosen=now["items"][0]["text"])
    assert "class='moved up'" in shown
    assert "class='moved down'" in shown or moved["both"] < 2
    assert shown.count("actual choice") == 3 - (now["items"][0]["ranks"]["language_model"] > 10) - (
        now["items"][0]["ranks"]["first_stage"] > 10
    )
    still = space.showing.lists(now, recommender.items, {one["item_id"]: one["ranks"] for one in now["items"]})
    assert "moved up" not in still
    assert "moved down" not in still


def test_moves_by_hand(space):
    items = [{"item_id": name, "text": NASTY, "score": 1, "ranks": {"both": n}} for n, name in enumerate("abc", 1)]
    found = {"items": items, "not_in_catalogue": 2, "not_excluded": 1, "shortened": {"recent_items_dropped": 1}}
    found["seconds"] = 0.5
    shown = space.showing.lists(found, 1500, {"a": {"both": 1}, "b": {"both": 5}}, chosen="gone")
    assert [("▲" in one, "new" in one) for one in shown.split("<li>")[1:]] == [
        (False, False),
        (True, False),
        (False, True),
    ]
    assert "<span class='unseen'>up </span>3" in shown
    assert "3 items of a catalogue of 1,500 ranked in 500 ms, compared with the lists before." in shown
    assert "2 items of the history not in the catalogue" in shown
    assert "1 item to leave out not found in the catalogue." in shown
    assert "recent items dropped: 1" in shown
    assert "not among the items that the first stage passed on" in shown
    assert "Language model" not in shown
    assert "<img" not in shown


# What is offered.


def test_samples_of_a_folder_are_those_that_it_holds_now(space, small_dataset):
    def texts():
        caches = {config: contract.cache_of(str(small_dataset), config) for config in ("items", "histories")}
        return space.samples.load({"dataset": str(small_dataset), "dataset_caches": caches}).texts

    before = texts()
    [path] = (small_dataset / "items").iterdir()
    table = pq.read_table(path)
    edited = [f"title: {number}" for number in range(len(table))]
    pq.write_table(table.set_column(table.column_names.index("text"), "text", pa.array(edited)), path)
    assert texts() == edited != before


def test_samples_come_from_the_dataset(space):
    samples = space.samples.load({"dataset": dataset_path("sample")})
    names = samples.sample_users()
    assert len(names) == space.samples.USERS
    user = samples.sample_user(names[0])
    assert user["chosen"] in user["candidates"]
    assert len(user["candidates"]) == 21
    places = {samples.sample_user(name)["candidates"].index(samples.sample_user(name)["chosen"]) for name in names}
    assert len(places) > 10  # not always the first
    assert samples.draw_candidates(seed=1) == samples.draw_candidates(seed=1) != samples.draw_candidates(seed=2)
    known = samples.texts[:1490]
    with pytest.raises(ValueError, match="at most 100"):
        samples.draw_candidates("\n".join(known))
    few = space.samples.Samples({}, ["a", "b", "c"])
    assert sorted(few.draw_candidates("b\nx", count=5)) == ["a", "c"]
    assert sorted(few.draw_candidates(json.dumps([{"item_id": "i", "text": " b"}, {"title": "x"}]), count=5)) == [
        "a",
        "c",
    ]
    with pytest.raises(ValueError, match="expected 1 to 50, got 51"):
        few.draw_candidates(count=51)
    for asked in ({"count": "5"}, {"count": 1.5}, {"count": True}, {"seed": "x"}, {"count": float("nan")}):
        with pytest.raises(ValueError, match=f"{next(iter(asked))}: expected a whole number"):
            few.draw_candidates(**asked)
    assert few.draw_candidates(count=2.0) == few.draw_candidates(count=2)
    with pytest.raises(ValueError, match="no sample user 'x'"):
        few.sample_user("x")


@pytest.fixture(scope="module")
def large(space, tmp_path_factory):
    """Samples of a user with more and longer items than a visitor may write, and of one with too many characters."""
    texts = {f"i{n}": f"title: T{n}; about: {'wide sea ' * 177}" for n in range(150)}
    texts |= {f"j{n}": f"title: J{n}; about: {'wide sea ' * 3000}" for n in range(20)}
    long = [f"j{n}" for n in range(20)]
    rows = [
        {"user_id": "u", "history": list(texts)[:130], "target": "i140", "negatives": list(texts)[:99]},
        {"user_id": "v", "history": long[:9], "target": "j9", "negatives": long[10:]},
    ]
    items = pa.table({"item_id": list(texts), "text": list(texts.values())})
    folder = tmp_path_factory.mktemp("large")
    configs = []
    for config, split, table in (("items", "train", items), ("histories", "test", pa.Table.from_pylist(rows))):
        pq.write_table(table, folder / f"{config}.parquet")
        configs.append({"config_name": config, "data_files": [{"split": split, "path": f"{config}.parquet"}]})
    (folder / "README.md").write_text(f"---\n{json.dumps({'configs': configs})}\n---\n")
    return space.samples.load({"dataset": str(folder)}), texts


def test_what_the_page_fills_in_can_be_asked(space, pipe, large):
    samples, texts = large
    user = samples.sample_user("u")
    assert user["history"] == [" ".join(texts[f"i{n}"].split()) for n in range(130)][-len(user["history"]) :]
    assert len(user["history"]) > 50
    assert len(user["candidates"]) == 50
    assert user["chosen"] in user["candidates"]
    assert set(user["candidates"]) - {user["chosen"]} <= {" ".join(texts[f"i{n}"].split()) for n in range(49)}
    other = samples.sample_user("v")
    assert other["history"] == [" ".join(texts[f"j{n}"].split()) for n in (6, 7, 8)]
    assert other["chosen"] in other["candidates"]
    recommender = space.asking.Recommender(pipe, samples.texts)
    for one in (user, other, {"history": other["history"], "candidates": samples.draw_candidates(count=50)}):
        for name in ("history", "candidates"):
            found = recommender._items(space.reading.written(one[name], name), name)
            assert [item.text for item in found] == one[name]
    with pytest.raises(ValueError, match=r"history, item 1: \d+ characters, at most 1000"):
        recommender._items(user["history"][0] + " and more", "history")
    answer = recommender.rank("\n".join(user["history"][-3:]), user["chosen"], "genre: sea x2")
    assert answer["candidates"][0]["text"] == user["chosen"]


@pytest.mark.parametrize("error", [DatasetGenerationError("x"), HTTPError("no route"), OSError("x"), ValueError("x")])
def test_a_dataset_that_cannot_be_read_leaves_the_page_without_samples(space, monkeypatch, capsys, error):
    def broken(**_):
        raise error

    monkeypatch.setattr("datasets.load_dataset", broken)
    assert space.samples.load({"dataset": "ORG/x"}).sample_users() == []
    assert f"No sample users: ORG/x cannot be read: {type(error).__name__}" in capsys.readouterr().out


def test_without_a_dataset_there_are_no_samples(space, tmp_path, capsys):
    assert space.samples.load({"model": "ORG/x"}).sample_users() == []
    assert space.samples.load({"dataset": str(tmp_path / "nowhere")}).draw_candidates() == []
    assert "cannot be read" in capsys.readouterr().out


# What is shown.


def test_all_text_is_escaped(space, recommender):
    showing = space.showing
    shown = [showing.blocks(made) for made in recommender.summarize(f"{NASTY}\n{NASTY}")]
    ranked = recommender.rank(NASTY, f"{NASTY}\nc", f"summary {NASTY}")
    shown.append(showing.ranking(ranked, chosen=ranked["candidates"][0]["text"]))
    shown.append(showing.reasons(recommender.explain(NASTY, NASTY, f"summary {NASTY}")))
    shown.append(showing.facts({NASTY: NASTY}))
    for one in shown:
        assert "<img" not in one
        assert "&lt;img" in one
        assert not {"\x00", "\u202e"} & set(one)


def test_bars_show_p_yes_and_the_choice(space):
    candidates = [
        {"rank": 1, "index": 1, "text": "b", "p_yes": 0.75},
        {"rank": 2, "index": 0, "text": "a", "p_yes": 0.25},
    ]
    answer = {"candidates": candidates, "summary": "", "shortened": {"recent_items_dropped": 2}, "seconds": 0.0123}
    shown = space.showing.ranking(answer, chosen="a")
    assert shown.index("width:75.0%") < shown.index("actual choice") < shown.index("width:25.0%")
    assert shown.count("actual choice") == 1
    assert "2 candidates ranked in 12 ms" in shown
    assert "recent items dropped: 2" in shown


def test_the_space_needs_nothing_of_ours():
    for name in SPACE:
        text = (space_folder() / name).read_text(encoding="utf-8")
        assert "trsr" not in text.replace("llm-trsr", "").replace("LLM-TRSR", ""), name
    here = {path.name for path in space_folder().iterdir() if path.is_file()}
    assert here == set(SPACE)
