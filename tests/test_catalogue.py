"""Recommending without candidates: the first stage against the retriever itself, filters, and both scores added."""

import json
import math
import statistics
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import tiny
from tests.test_cards import with_catalogue
from tests.test_files import HOLD
from tests.test_pipeline import recommender
from trsr.cli import main
from trsr.core.catalogue import Catalogue, add_scores
from trsr.core.modeling import CATALOGUE
from trsr.dataset import contract
from trsr.errors import InputError, LoadError, ReleaseError, RunError, UsageError
from trsr.hub import cards
from trsr.hub.inputs import ReleaseInputs
from trsr.hub.release import assemble
from trsr.recommender.controls import with_history
from trsr.recommender.run import Run
from trsr.recommender.serving import load_recommender
from trsr.retrieval import answers, carried, ranked
from trsr.retrieval.answers import request_of, retrieved_and_ranked
from trsr.retrieval.ensemble import make_ensemble
from trsr.retrieval.evaluate import default_folder, evaluate_retriever
from trsr.retrieval.fusion import LARGEST_WEIGHT, fit, fuse_run
from trsr.retrieval.retriever import Retriever
from trsr.retrieval.run import train_retriever
from trsr.retrieval.training import Settings

pytestmark = pytest.mark.compat


@pytest.fixture(scope="module")
def dataset(quickstarted):
    return str(quickstarted[0] / "dataset")


@pytest.fixture(scope="module")
def rows(dataset):
    return contract.read(dataset, "histories", "test").to_list()


@pytest.fixture(scope="module")
def texts(dataset):
    return contract.texts(dataset)


@pytest.fixture(scope="module")
def pipe(retriever, dataset):
    made = recommender(tiny.model("llama"))
    made.catalogue = carried.catalogue_of(retriever, dataset)
    return made


def first_stage(pipe, history, **options):
    return pipe({"history": history}, rank=False, **options)


def test_the_first_stage_is_the_retrievers_own(pipe, retriever, rows, texts):
    own = Retriever.load(retriever)
    for row in rows:
        [expected] = own.recommend([row["history"]], top_k=100)
        for history in ([{"item_id": one} for one in row["history"]], [texts[one] for one in row["history"]]):
            answer = first_stage(pipe, history)
            assert answer["not_in_catalogue"] == 0
            found = answer["candidates"]
            assert [one["item_id"] for one in found] == [item_id for item_id, _ in expected]
            assert [one["stage_one"] for one in found] == pytest.approx([score for _, score in expected], rel=1e-6)
            assert [one["rank"] for one in found] == list(range(1, 101))
            assert all(one["log_odds"] is None and one["score"] == one["stage_one"] for one in found)
            assert all(one["item"] == texts[one["item_id"]] for one in found)
            assert not {one["item_id"] for one in found} & set(row["history"])


def test_both_scores_are_added_as_by_hand(pipe, rows, texts):
    request = {"history": [texts[one] for one in rows[0]["history"]], "summary": "likes ghosts"}
    answer = pipe(request, stage_one=12)
    found = sorted(answer["candidates"], key=lambda one: -one["stage_one"])
    same = pipe({**request, "candidates": [one["item"] for one in found]})["candidates"]
    log_odds = {one["index"]: one["log_odds"] for one in same}
    assert [one["log_odds"] for one in found] == pytest.approx([log_odds[index] for index in range(12)], abs=1e-5)
    columns = [[one[name] for one in found] for name in ("log_odds", "stage_one")]
    second, first = ([(x - statistics.fmean(c)) / statistics.pstdev(c) for x in c] for c in columns)
    assert [one["score"] for one in found] == pytest.approx([a + b for a, b in zip(second, first, strict=True)])
    scores = [one["score"] for one in answer["candidates"]]
    assert scores == sorted(scores, reverse=True)
    assert pipe(request, stage_one=12, top_k=3)["candidates"] == answer["candidates"][:3]
    assert json.loads(json.dumps(answer)) == answer


def test_equal_scores_count_as_nothing_and_keep_their_order():
    assert add_scores([0.1] * 3, [3.0, 2.0, 1.0], 2.0) == pytest.approx([2 * math.sqrt(1.5), 0, -2 * math.sqrt(1.5)])
    assert add_scores([0.1] * 3, [0.7] * 3, 2.0) == [0, 0, 0]
    assert add_scores([5.0], [1.0], 1.0) == [0]
    assert add_scores([], [], 1.0) == []


def test_more_than_the_first_stage_passes_on_may_be_asked_for(pipe, rows, texts):
    row = rows[0]
    assert len(first_stage(pipe, row["history"], top_k=150)["candidates"]) == 150
    [answer] = pipe([{"history": row["history"]}], rank=False, top_k=150)
    assert len(answer["candidates"]) == 150
    assert len(first_stage(pipe, row["history"], top_k=3)["candidates"]) == 3
    with pytest.raises(InputError, match="stage_one 4: the first stage must pass on 150 items or more"):
        first_stage(pipe, row["history"], stage_one=4, top_k=150)
    ranked_alone = pipe({"history": [], "candidates": ["title: A"]}, top_k=1)
    assert len(ranked_alone["candidates"]) == 1


def test_what_is_left_out(pipe, rows, texts):
    history = [{"item_id": one} for one in rows[0]["history"]]
    best = [one["item_id"] for one in first_stage(pipe, history, stage_one=10)["candidates"]]
    for exclude in (best[:2], [{"item_id": one} for one in best[:2]], [texts[one] for one in best[:2]]):
        for request, options in (({"exclude": exclude}, {}), ({}, {"exclude": exclude})):
            found = pipe({"history": history, **request}, rank=False, stage_one=8, **options)["candidates"]
            assert [one["item_id"] for one in found] == best[2:]
    found = pipe({"history": history, "exclude": best[:1]}, exclude=[best[1], "gone long ago"], rank=False, stage_one=8)
    assert [one["item_id"] for one in found["candidates"]] == best[2:]
    everything = list(texts)
    assert first_stage(pipe, history, exclude=everything) == {
        "candidates": [], "not_in_catalogue": 0, "not_excluded": 0
    }  # fmt: skip
    assert pipe({"history": history}, exclude=everything)["candidates"] == []
    assert len(first_stage(pipe, history, stage_one=10_000)["candidates"]) == len(texts) - len(set(rows[0]["history"]))


def small(texts, fields=None):
    """A catalogue of items whose vectors are those of the first user model and its own numbers."""
    from trsr.core.user_model import Shape, UserModel

    torch.manual_seed(0)
    shape = Shape(0, 0, width=8, heads=2, longest=5)
    columns = {"item_id": [f"i{n}" for n in range(len(texts))], "text": texts, **(fields or {})}
    return Catalogue(columns, torch.randn(len(texts), 8), UserModel(shape).eval(), {"weight": 1.0})


def test_filters():
    made = recommender()
    made.catalogue = small(
        [f"title: {n}" for n in range(6)],
        {
            "genre": ["sea", "sea", None, "war", "war", "sea"],
            "tags": [["a"], ["a", "b"], None, [], ["b"], ["b"]],
            "year": [1, 2, 3, 1, 1, 1],
            "inner": [{"x": 1}] * 6,
            "place": ["Caf\u00e9"] * 6,
            "kept": [False, False, True, False, False, False],
            "rated": [math.nan, None, 2.5, 2.5, math.inf, 1.0],
            "day": [date(2024, 5, number) for number in range(1, 7)],
        },
    )

    def ids(where, request=None):
        found = made({"history": ["title: 0"], **(request or {})}, where=where, rank=False)["candidates"]
        return {one["item_id"] for one in found}

    assert ids({"genre": "sea"}) == {"i1", "i5"}
    assert ids({"tags": "b"}) == {"i1", "i4", "i5"}
    assert ids({"tags": "b", "year": 1}) == {"i4", "i5"}
    assert ids({"tags": "b"}, {"where": {"year": 1}}) == {"i4", "i5"}
    assert ids({"genre": "love"}) == set()
    with pytest.raises(InputError, match="No item has 'Sea' in the field 'genre', but items have 'sea' there"):
        ids({"genre": "Sea"})
    with pytest.raises(InputError, match="No item has 'B ' in the field 'tags', but items have 'b' there"):
        ids({"tags": "B "})
    with pytest.raises(
        InputError,
        match="no field 'maker' to choose by; they have item_id, text, genre, tags, year, inner, place, kept, rated, day",
    ):
        ids({"maker": "x"})
    with pytest.raises(InputError, match="'year' holds values such as 1, so none can be '1'"):
        ids({"year": "1"})
    assert ids({"year": np.int64(3)}) == {"i2"}
    assert ids({"genre": np.str_("sea")}) == {"i1", "i5"}
    assert ids({"kept": np.True_}) == ids({"kept": True}) == {"i2"}
    assert ids({"rated": 2.5}) == {"i2", "i3"}  # the first value there is none
    assert ids({"day": date(2024, 5, 2)}) == {"i1"}
    for name, value in (
        ("genre", 3), ("genre", None), ("tags", ["a"]), ("year", None), ("year", True), ("year", (1, 2)), ("year", math.nan),
        ("year", {"x": 1}), ("year", np.array([1, 2])), ("inner", 1), ("inner", "x"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"The field '{name}' holds values such as .*, so none can be"):
            ids({name: value})
    with pytest.raises(InputError, match="but items have 'Caf\u00e9' there"):
        ids({"place": "Cafe\u0301"})


def test_as_many_items_are_passed_on_as_the_weight_was_fitted_with():
    made = recommender()
    made.catalogue = small([f"title: {number}" for number in range(8)])

    def count(fitted, **options):
        made.catalogue.record["fitted"] = fitted
        return len(made({"history": []}, rank=False, **options)["candidates"])

    fitted = {"split": "validation", "users": 3, "stage_one": 4}
    assert count(fitted) == 4
    assert count(fitted, top_k=6) == 6
    assert count(fitted, stage_one=3) == 3
    assert made.catalogue.query([]).count == 4
    assert count(None) == count({**fitted, "not_fitted": "nothing was passed on"}) == 8  # fewer than 100


def test_filters_of_all_requests_are_checked_before_the_first_is_scored(monkeypatch):
    made = recommender()
    made.catalogue = small(["title: A", "title: B"], {"genre": ["sea", "war"]})
    scored = []
    monkeypatch.setattr(made, "_forward", lambda *given, **options: scored.append(given))
    for where, message in (
        ({"gnre": "sea"}, "no field 'gnre'"),
        ({"genre": 3}, "none can be 3"),
        ({"genre": "Sea"}, "No item has 'Sea'"),
    ):
        with pytest.raises(InputError, match=rf"requests\[1\]: .*{message}"):
            made([{"history": []}, {"history": [], "where": where}])
    assert scored == []


def test_an_item_is_found_by_its_id_or_else_by_its_text_and_twins_go_with_it():
    catalogue = small(["title: A", "title:  B", "title: A", "title: C"])
    made = recommender()
    made.catalogue = catalogue

    def ids(*history):
        answer = made({"history": list(history)}, rank=False)
        return {one["item_id"] for one in answer["candidates"]}, answer["not_in_catalogue"]

    assert ids("title: A") == ({"i1", "i3"}, 0)  # both items of this text
    assert ids({"title": "A"}) == ({"i1", "i3"}, 0)
    assert ids({"item_id": "i2"}) == ({"i0", "i1", "i3"}, 0)
    assert ids({"item_id": "i2", "title": "another wording"}) == ({"i0", "i1", "i3"}, 0)
    assert ids("title: B") == ({"i0", "i2", "i3"}, 0)  # texts are compared as prompts show them
    assert ids("title: Z", {"item_id": "gone", "title": "C"}, "title: C") == ({"i0", "i1", "i2"}, 1)
    # What the language model reads of an item that is named by its id alone is its text.
    by_id, by_text = ({"history": [one]} for one in ({"item_id": "i1"}, "title: B"))
    assert made(by_id, return_summary=True) == made(by_text, return_summary=True)
    # An item met twice counts twice for the user's vector, and once for what is excluded.
    [once], [twice] = (catalogue.retrieve([made.preprocess({"history": ["title: C"] * n})["query"]]) for n in (1, 2))
    assert len(once) == 3
    assert {row for row, _ in once} == {row for row, _ in twice}
    assert once != twice


def test_ids_that_the_catalogue_does_not_hold_are_counted_and_read_by_no_model():
    made = recommender()
    made.catalogue = small(["title: A", "title: B", "title: C"])
    known = [{"item_id": "i1"}, "title: Z"]
    without = made({"history": known}, return_summary=True)
    assert without["not_in_catalogue"] == 1
    answer = made({"history": [{"item_id": "gone"}, *known]}, return_summary=True)
    assert answer == {**without, "not_in_catalogue": 2}
    assert made({"history": [{"item_id": "gone"}]})["not_in_catalogue"] == 1
    for exclude in (["i0", "gone"], [{"item_id": "i0"}, {"item_id": "gone"}]):
        found = made({"history": known, "exclude": exclude}, rank=False)
        assert [one["item_id"] for one in found["candidates"]] == ["i2"]
        assert found["not_in_catalogue"] == 1
        assert found["not_excluded"] == 1
    with pytest.raises(InputError, match=r"history\[2\]: An item has no text"):
        made({"history": [{"item_id": "gone"}, "title: A", {"genre": ""}]})


def test_ids_are_read_from_the_catalogue_wherever_items_are_given():
    made = recommender()
    made.catalogue = small(["title: A", "title: B", "title: C"])
    ids, texts = [{"item_id": "i0"}, {"item_id": "i2"}], ["title: A", "title: C"]
    by_id = made({"history": ids, "candidates": [*ids, "title: D"]}, return_summary=True)
    by_text = made({"history": texts, "candidates": [*texts, "title: D"]}, return_summary=True)
    given = {one["index"]: one.pop("item") for one in by_id["candidates"]}
    assert given == dict(enumerate([*ids, "title: D"]))  # as they were given
    for one in by_text["candidates"]:
        del one["item"]
    assert by_id == by_text
    assert made.blocks(ids) == made.blocks(texts)
    assert made.update("", ids) == made.update("", texts)
    message = "The catalogue holds no item 'gone': give its text beside the id"
    for name in ("history", "candidates"):
        with pytest.raises(InputError, match=rf"{name}\[1\]: {message}"):
            made({"history": [], "candidates": [], name: ["title: A", {"item_id": "gone"}]})
    made({"history": [], "candidates": [{"item_id": "gone", "title": "D"}]})
    with pytest.raises(InputError, match=r"candidates\[0\]: An item has no text"):
        recommender()({"history": [], "candidates": ids})


def test_vectors_that_are_not_finite_are_told():
    catalogue = small(["title: A", "title: B", "title: C"])
    with torch.no_grad():
        catalogue.user_model.begin[0] = math.nan
    made = recommender()
    made.catalogue = catalogue
    with pytest.raises(InputError, match="vectors of 1 of 1 users are not finite"):
        made({"history": []}, rank=False)
    catalogue.vectors[1, 0] = math.inf
    with pytest.raises(LoadError, match="Vectors of the catalogue are not finite"):
        Catalogue(catalogue.fields, catalogue.vectors, catalogue.user_model, catalogue.record)
    with pytest.raises(InputError, match="NaN cannot be ranked"):  # of the sum, where the weight is none
        small(["title: A"] * 2).ranked([(0, 1.0), (1, 2.0)], [1.0, math.nan])


def test_ties_go_to_the_earlier_item():
    catalogue = small([f"title: {n}" for n in range(5)])
    catalogue.vectors[:] = 0
    catalogue.vectors[:, 0] = 1  # products with other numbers are rounded by column, on some processors
    made = recommender()
    made.catalogue = catalogue
    found = made({"history": ["title: 1"]}, stage_one=3)["candidates"]
    assert sorted(one["item_id"] for one in found) == ["i0", "i2", "i3"]
    found = made({"history": ["title: 1"]}, stage_one=3, rank=False)["candidates"]
    assert [one["item_id"] for one in found] == ["i0", "i2", "i3"]


@pytest.mark.parametrize("history", [[], ["title: Nobody has it"]])
def test_a_user_of_whom_nothing_is_known_is_recommended_to(pipe, retriever, history):
    answer = pipe({"history": history}, stage_one=5)
    [expected] = Retriever.load(retriever).recommend([[]], top_k=5)
    assert {one["item_id"] for one in answer["candidates"]} == {item_id for item_id, _ in expected}
    assert answer["not_in_catalogue"] == len(history)


def test_a_list_of_requests_is_answered_as_each_alone(pipe, rows, texts):
    requests = [{"history": [texts[one] for one in row["history"]]} for row in rows[:2]]
    requests.append({"history": requests[0]["history"], "candidates": ["title: A"]})
    together = pipe(requests, summarizer=None)
    assert together == [pipe(request, summarizer=None) for request in requests]
    [found] = pipe(iter(requests[:1]), stage_one=3, rank=False)
    assert len(found["candidates"]) == 3


def test_mistakes_are_told_before_anything_is_scored(pipe):
    alone = recommender()
    with pytest.raises(InputError, match=r"missing: \['candidates'\].*no catalogue.*trsr publish RUN --retriever"):
        alone({"history": ["title: A"]})
    for number in (0, True, 2.0):
        with pytest.raises(InputError, match="stage_one must be a positive integer"):
            pipe({"history": []}, stage_one=number)
    assert len(pipe({"history": []}, stage_one=np.int64(3), rank=False)["candidates"]) == 3
    with pytest.raises(InputError, match="rank must be True or False, got 'no'"):
        pipe({"history": []}, rank="no")
    for options in ({"exclude": ["b1"]}, {"where": {"genre": "x"}}, {"stage_one": 3}, {"rank": False}):
        with pytest.raises(InputError, match="for choosing from a catalogue"):
            pipe([{"history": [], "candidates": ["title: A"]}], **options)
    with pytest.raises(InputError, match="exclude, where: for choosing"):
        pipe({"history": [], "candidates": ["title: A"], "exclude": [], "where": {}})
    with pytest.raises(TypeError, match="'exclude' is a list of items, got str"):
        pipe({"history": []}, exclude="b1")
    with pytest.raises(TypeError, match="'where' is a dict of fields and values, got list"):
        pipe({"history": [], "where": ["genre"]})
    with pytest.raises(TypeError, match="'history' is a list of items, got str"):
        pipe({"history": "title: A"})
    with pytest.raises(TypeError, match="Unknown option stageone"):
        pipe({"history": []}, stageone=3)


@pytest.mark.parametrize(
    "request_", ['{"history": "x", "candidates": []}', "[3]", '{"history": [4], "candidates": []}']
)
def test_a_request_of_the_wrong_kind_is_a_mistake_of_the_user(tmp_path, capsys, request_):
    (tmp_path / "request.json").write_text(request_)
    with pytest.raises(SystemExit) as end:
        main(["recommend", str(tmp_path / "request.json")])
    assert end.value.code == 2
    assert "got " in capsys.readouterr().err.strip().splitlines()[-1]


# The files: written, loaded, copied, refused.


@pytest.fixture(scope="module")
def run(quickstarted):
    return quickstarted[0] / "runs" / "recurrent"


@pytest.fixture(scope="module")
def ensemble(run, retriever, tmp_path_factory):
    """Of the retriever and one of texts alone."""
    dataset, folder = str(run.parent.parent / "dataset"), tmp_path_factory.mktemp("ensemble")
    train_retriever(dataset, folder / "texts", ids=False, width=16, settings=Settings(epochs=1, seed=1))
    make_ensemble([retriever, folder / "texts"], dataset, folder / "both")
    return folder / "both"


@pytest.mark.parametrize("kind", ["retriever", "ensemble"])
def test_a_release_carries_its_catalogue_and_a_saved_copy_does(run, kind, request, texts, rows, tmp_path):
    retriever = request.getfixturevalue(kind)
    inputs = ReleaseInputs.read(run, None, retriever)
    folder = assemble(inputs, tmp_path / "release").folder
    made = load_recommender(str(folder))
    asked = {"history": [texts[one] for one in rows[0]["history"]]}
    answer = made(asked, stage_one=6)
    assert [one["stage_one"] for one in made(asked, stage_one=6, rank=False)["candidates"]] == pytest.approx(
        [score for _, score in Retriever.load(retriever).recommend([rows[0]["history"]], top_k=6)[0]], rel=1e-6
    )
    record = json.loads((folder / "pipeline" / CATALOGUE / "catalogue.json").read_text())
    assert (record["weight"], record["fitted"], record["items"]) == (1.0, None, len(texts))
    assert {name: inputs.run.checksums[name] for name in ("items", "histories")} == record["dataset_checksums"]
    skill = cards.skill(with_catalogue(tmp_path), {})
    for name in (*answer, *answer["candidates"][0], "exclude", "where", "stage_one", "rank=False"):
        assert f"`{name}`" in skill, name
    made.save_pretrained(tmp_path / "copy")
    assert load_recommender(str(tmp_path / "copy"))(asked, stage_one=6) == answer
    again = assemble(inputs, tmp_path / "again").folder / "pipeline" / CATALOGUE
    for path in sorted((folder / "pipeline" / CATALOGUE).iterdir()):
        assert path.read_bytes() == (again / path.name).read_bytes()
    (tmp_path / "copy" / CATALOGUE / "items.parquet").unlink()
    with pytest.raises(Exception, match=r"catalogue of .* lacks items\.parquet"):
        load_recommender(str(tmp_path / "copy"))(asked)


def test_the_repo_asks_nobody_for_pyarrow_until_it_is_needed(run, retriever, tmp_path, monkeypatch):
    carried.write_catalogue(carried.catalogue_of(retriever, str(run.parent.parent / "dataset")), tmp_path / CATALOGUE)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(LoadError, match="pip install pyarrow"):
        Catalogue.load(str(tmp_path), {})


def test_what_cannot_be_carried_is_refused_in_one_line(run, retriever, small_dataset, tmp_path, capsys):
    from dataclasses import replace

    from trsr.retrieval.run import train_retriever
    from trsr.retrieval.training import Settings

    inputs = ReleaseInputs.read(run, None, retriever)
    with pytest.raises(ReleaseError, match="do not allow to pass its texts on, and a catalogue holds them"):
        assemble(inputs, tmp_path / "release", terms=replace(inputs.provenance.terms, share_text=False))
    assert not (tmp_path / "release").exists()
    other = tmp_path / "other"
    train_retriever(str(small_dataset), other, vectors="none", settings=Settings(epochs=1))
    with pytest.raises(SystemExit) as end:
        main(["publish", str(run), "--namespace", "ORG", "--retriever", str(other), "--out", str(tmp_path / "release")])
    assert end.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "is not the dataset that the retriever was trained on" in said


# The weight.


class Fixed:
    """Answers of three items: the first stage puts the target last, the language model first."""

    def __call__(self, request, stage_one):
        assert stage_one == 3
        assert "x" in request["exclude"]
        assert "c" not in request["exclude"] or not request["history"]
        assert request["summary"] == "s"
        first, second = ([3.0, 2.0, 1.0], [0.0, 0.0, 1.0]) if request["history"] else ([3.0, 2.0, 1.0], [2.0, 0.0, 1.0])
        return {
            "candidates": [
                {"item_id": name, "stage_one": a, "log_odds": b, "score": a + b}
                for name, a, b in zip("abc", first, second, strict=True)
            ]
        }


def test_the_weight_is_that_of_a_conditional_logit_on_validation_users():
    row = {"history": ["h"], "target": "c", "also_met": ["x", "c"], "summary": "s"}
    # The first stage is wrong and the language model right: the first stage counts for nothing.
    weight, figures = fit(Fixed(), [row], 3)
    assert weight == 0
    assert figures["ndcg@10"] == {"first stage": 0.5, "language model": 1, "both": 1}
    # A target that is not passed on changes the figures, and not the weight.
    weight, figures = fit(Fixed(), [row, {**row, "target": "gone", "also_met": ["x"]}], 3)
    assert weight == 0
    assert (figures["users"], figures["retrieved"], figures["ndcg@10"]["both"]) == (2, 0.5, 0.5)
    # Both put the target first, the language model with b last, the first stage with c last: they count alike.
    weight, figures = fit(Fixed(), [{**row, "history": [], "target": "a"}], 3)
    assert weight == pytest.approx(1, abs=1e-6)
    assert set(figures["ndcg@10"].values()) == {1}
    # Nothing was passed on: nothing is known.
    assert fit(Fixed(), [{**row, "target": "gone", "also_met": ["x"]}], 3)[0] == 1
    # The language model is wrong and the first stage right.
    assert fit(Fixed(), [{**row, "target": "a", "also_met": ["x"]}], 3)[0] == LARGEST_WEIGHT


class Last(Fixed):
    """Both stages put the target last."""

    def __call__(self, request, stage_one):
        candidates = super().__call__(request, stage_one)["candidates"][:stage_one]
        return {"candidates": [one | {"log_odds": one["stage_one"]} for one in candidates]}


@pytest.mark.parametrize(
    ("recommender", "target", "why"),
    [
        (Last(), "c", "neither stage ranks the targets of 1 users better than chance"),
        (Fixed(), "gone", "the first stage passed on none of the targets of 1 users"),
    ],
)
def test_a_weight_that_could_not_be_fitted_is_said(recommender, target, why, caplog):
    row = {"history": ["h"], "target": target, "also_met": ["x", target], "summary": "s"}
    weight, figures = fit(recommender, [row], 3)
    assert (weight, figures["not_fitted"]) == (1, why)
    assert why in caplog.text


def test_a_target_that_was_met_before_is_found_as_in_the_evaluation_of_the_catalogue(pipe, rows, texts):
    unmet = [item_id for item_id in texts if item_id not in rows[0]["history"]]
    row = {**rows[0], "target": rows[0]["history"][1], "also_met": unmet[9:]}
    answer = retrieved_and_ranked(pipe, row, 100)
    assert {one["item_id"] for one in answer} == {*unmet[:9], row["target"]}
    plain = pipe(request_of(row), stage_one=100)["candidates"]
    assert len(plain) == 9
    odds = {one["item_id"]: one["log_odds"] for one in answer}
    assert [odds[one["item_id"]] for one in plain] == pytest.approx([one["log_odds"] for one in plain], abs=1e-5)


def test_a_measurement_of_both_stages_that_was_killed_goes_on(run, retriever, tmp_path, monkeypatch):
    import shutil

    own = shutil.copytree(run, tmp_path / "run")
    asked = []

    def counted(recommender, row, stage_one):
        asked.append(row["user_id"])
        if len(asked) == 3:
            raise KeyboardInterrupt
        return retrieved_and_ranked(recommender, row, stage_one)

    monkeypatch.setattr(answers, "retrieved_and_ranked", counted)
    with pytest.raises(KeyboardInterrupt):
        fuse_run(own, retriever, users=3, stage_one=4)
    record = fuse_run(own, retriever, users=3, stage_one=4)
    assert len(asked) == 4
    recipe = Run.read(own).recipe
    given = {"run": own, "limit": 4, "stage_one": 4}
    asked.clear()
    with pytest.raises(KeyboardInterrupt):
        evaluate_retriever(retriever, recipe.dataset, tmp_path / "out", **given)
    found = evaluate_retriever(retriever, recipe.dataset, tmp_path / "out", **given)["catalogue"]["systems"]
    assert len(asked) == 5
    monkeypatch.undo()
    assert fuse_run(own, retriever, users=3, stage_one=4) == record
    assert evaluate_retriever(retriever, recipe.dataset, tmp_path / "whole", **given)["catalogue"]["systems"] == found
    assert not [path for folder in (own, tmp_path / "out") for path in folder.glob(".answers*")]


def test_both_stages_see_the_histories_of_a_control_and_lists_of_one_item(run, retriever, tmp_path):
    import shutil

    own = shutil.copytree(run, tmp_path / "run")
    assert "users that the weight" in fuse_run(own, retriever, users=2, stage_one=4)["fitted"]["ndcg_of"]
    recipe = Run.read(own).recipe
    given = {"run": own, "limit": 3, "history": "last:1"}
    evaluate_retriever(retriever, recipe.dataset, tmp_path / "out", stage_one=3, **given)
    lists = ranked.read(tmp_path / "out", f"{retriever.name} + {recipe.name}, history last:1")
    shown = with_history(contract.read(recipe.dataset, recipe.config, "test").select(range(3)), "last:1", 0)
    recommender = load_recommender(str(own))
    for row, scores in zip(shown, lists.scores, strict=True):
        answer = recommender(request_of(row), stage_one=3)["candidates"]
        assert list(scores) == [item["item_id"] for item in answer]
    found = evaluate_retriever(retriever, recipe.dataset, tmp_path / "one", stage_one=1, **given)["catalogue"]
    first = ranked.read(tmp_path / "one", retriever.name)
    hits = [target == next(iter(scores)) for target, scores in zip(first.targets, first.scores, strict=True)]
    assert found["systems"][f"{recipe.name}, history last:1"]["recall@100"]["value"] == sum(hits) / 3
    shutil.copytree(retriever, tmp_path / recipe.name)
    with pytest.raises(UsageError, match="as another system that is evaluated with it"):
        evaluate_retriever(tmp_path / recipe.name, recipe.dataset, tmp_path / "same", run=own)


def test_a_run_with_a_fitted_catalogue_recommends_and_its_release_has_the_weight(
    quickstarted, run, retriever, rows, tmp_path, capsys, monkeypatch
):
    import shutil

    own = shutil.copytree(run, tmp_path / "run")
    main(["retrieve", "fuse", str(retriever), "--run", str(own), "--users", "3", "--stage-one", "8", "--json"])
    record = json.loads(capsys.readouterr().out)
    assert record["fitted"]["users"] == 3
    assert 0 <= record["weight"] <= LARGEST_WEIGHT
    dataset = Run.read(own).recipe.dataset
    out = tmp_path / "both"
    given = ["--dataset", dataset, "--run", str(own), "--stage-one", "8", "--limit", "4", "--out", str(out), "--json"]
    main(["retrieve", "evaluate", str(retriever), *given])
    systems = json.loads(capsys.readouterr().out)["catalogue"]["systems"]
    main(["retrieve", "evaluate", str(retriever), *given])  # the same again is no other evaluation
    again = json.loads(capsys.readouterr().out)["catalogue"]
    assert again["systems"] == systems
    assert again["second_stage"]["stage_one"] == 8
    assert again["second_stage"]["weight"] == record["weight"]
    both = f"{retriever.name} + {Run.read(own).recipe.name}"
    assert {retriever.name, Run.read(own).recipe.name, both} <= systems.keys()
    # The same lists as those that the pipeline gives, and the same targets passed on by the first stage.
    lists, first = (ranked.read(out, name) for name in (both, retriever.name))
    recommender, tested = load_recommender(str(own)), contract.read(dataset, Run.read(own).recipe.config, "test")
    for number, row in enumerate(tested.select(range(4))):
        answer = recommender(request_of(row), stage_one=8)["candidates"]
        assert list(lists.scores[number]) == [item["item_id"] for item in answer]
        assert sorted(lists.scores[number]) == sorted(list(first.scores[number])[:8])
        assert lists.metrics["recall@100"][number] == (row["target"] in lists.scores[number])
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"history": [{"item_id": one} for one in rows[0]["history"]]}))
    main(["recommend", str(request), "--model", str(own), "--top-k", "2"])
    answer = json.loads(capsys.readouterr().out)
    assert [one["rank"] for one in answer["candidates"]] == [1, 2]
    assert answer["summary"]
    assert ReleaseInputs.read(own, None, retriever).catalogue.record == record
    # Of another adapter, the weight is not this run's.
    path = own / CATALOGUE / "catalogue.json"
    path.write_text(json.dumps({**record, "fitted": {**record["fitted"], "run": "another"}}))
    assert ReleaseInputs.read(own, None, retriever).catalogue.record["fitted"] is None
    assert fuse_run(own, retriever, users=3, stage_one=8) == record
    with pytest.raises(RunError, match="No retriever at"):
        fuse_run(own, Path(tmp_path / "nowhere"))


def test_results_of_both_stages_say_how_the_weight_was_fitted(run, retriever, dataset, tmp_path, capsys):
    import shutil

    own = shutil.copytree(run, tmp_path / "run")
    fuse_run(own, retriever, users=2, stage_one=6)
    path = own / CATALOGUE / "catalogue.json"
    record = json.loads(path.read_text())
    fitted = {"split": "validation", "users": 2, "stage_one": 6}

    def evaluate(split, out, weight):
        path.write_text(json.dumps({**record, "weight": weight, "fitted": {**fitted, "run": "this one"}}))
        words = ["--dataset", dataset, "--run", str(own), "--split", split, "--limit", "2"]
        main(["retrieve", "evaluate", str(retriever), *words, "--out", str(tmp_path / out)])
        return capsys.readouterr().out

    note = "fitted on the first 2 rows of validation: figures of both stages"
    assert note in evaluate("validation", "fitted", 2.5)
    assert note not in evaluate("test", "others", 2.5)
    about = Run.read(own)
    assert json.loads((tmp_path / "others" / "catalogue.json").read_text())["second_stage"] == {
        "run": about.recipe.name,
        "weights": about.weights,
        "stage_one": 6,
        "weight": 2.5,
        "fitted": fitted,
    }
    assert default_folder(retriever, dataset, split="test", run=own).name == "test-run-stage-one-6"
    with pytest.raises(SystemExit):
        evaluate("test", "others", 3.5)  # fitted again, with another result
    assert "its second stage has changed" in capsys.readouterr().err


def test_two_processes_do_not_fuse_one_run(run, retriever):
    hold = [sys.executable, "-c", HOLD, str(run / CATALOGUE)]
    with subprocess.Popen(hold, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"Another process is writing {run / CATALOGUE}"):
            fuse_run(run, retriever, users=3, stage_one=8)
        other.kill()
