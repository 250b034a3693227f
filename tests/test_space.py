"""The recommender's Space: what it asks, what it shows, and the page where gradio is installed."""

import json
import shutil

import pytest

from trsr.spaces import space_files

NASTY = "title: <img src=x onerror=alert(1)>; genre: **bold** [link](http://x)"


@pytest.fixture
def space(tmp_path):
    """The names that app.py defines, beside a recommender.json as it is written when it is published."""
    for target, source in space_files().items():
        shutil.copyfile(source, tmp_path / target)
    release = {"model": "ORG/pipeline", "revision": "a" * 40, "dataset": "ORG/dataset", "dataset_revision": None}
    (tmp_path / "recommender.json").write_text(json.dumps(release))
    names = {"__name__": "space_app", "__file__": str(tmp_path / "app.py")}
    exec(compile((tmp_path / "app.py").read_text(encoding="utf-8"), "app.py", "exec"), names)
    return names


class Fake:
    """A pipeline that ranks in reverse and remembers what it was asked."""

    def __call__(self, request, return_summary):
        assert return_summary
        self.asked = request
        ranked = list(enumerate(request["candidates"]))[::-1]
        return {
            "candidates": [
                {"index": index, "item": item, "score": 0.5, "log_odds": 0.0, "rank": rank}
                for rank, (index, item) in enumerate(ranked, 1)
            ],
            "summary": request.get("summary", "S"),
            "block_summaries": ["one", "two"],
            "shortened": {"recent_items_dropped": 2, "summary_words_dropped": 0},
        }


def test_importing_the_app_loads_neither_gradio_nor_a_model(space):
    assert "gradio" not in space
    assert space["recommender"].cache_info().currsize == 0


def test_lines_become_a_request_and_the_answer_plain_values(space):
    ask = Fake()
    found = space["recommend"]("a\n\n  b  \n", f"{NASTY}\nc\r\n", " ", ask=ask)
    assert ask.asked == {"history": ["a", "b"], "candidates": [NASTY, "c"]}
    assert found == (
        "S",
        "1. one\n\n2. two",
        [[1, "c", 0.5], [2, NASTY, 0.5]],
        "recent items dropped: 2, summary words dropped: 0",
    )
    assert space["recommend"]("", "c", " likes tea ", ask=ask)[0] == "likes tea"
    assert ask.asked == {"history": [], "candidates": ["c"], "summary": "likes tea"}


@pytest.mark.parametrize(
    ("history", "candidates", "summary", "message"),
    [
        ("a", " \n", "", "at least one candidate"),
        ("a\n" * 101, "c", "", "history: 101 lines, at most 100"),
        ("a", "c\n" * 51, "", "candidates: 51 lines, at most 50"),
        ("a", "c\n" + "x" * 1001, "", "candidates, item 2: 1001 characters, at most 1000"),
        ("a", "c", "x" * 4001, "summary: 4001 characters, at most 4000"),
    ],
)
def test_limits_are_told(space, history, candidates, summary, message):
    with pytest.raises(ValueError, match=message):
        space["recommend"](history, candidates, summary, ask=None)


def test_the_examples_hold_with_the_recommender_in_the_package(space):
    from transformers import pipeline

    import trsr  # noqa: F401

    ask = pipeline(space["TASK"], device="cpu")
    answers = [space["recommend"](*example, ask=ask) for example in space["EXAMPLES"]]
    assert "genre: sea stories x5" in answers[0][0]
    assert answers[0][2][0][1].startswith("title: Harbor of the Storm")
    assert answers[1][0] == space["EXAMPLES"][1][2]
    with pytest.raises(ValueError, match=r"candidates\[0\]: An item has no text"):
        space["recommend"]("a", "\u200b", ask=ask)


def test_the_page_shows_what_visitors_write_as_text_alone(space):
    gradio = pytest.importorskip("gradio")
    page = space["build"](Fake())
    [asking] = [function for function in page.fns.values() if function.api_name == "recommend"]
    for block in (*asking.inputs, *asking.outputs):
        assert isinstance(block, (gradio.Textbox, gradio.Dataframe))
        assert set(getattr(block, "datatype", ())) <= {"str", "number"}
    assert asking.fn("a", NASTY)[2] == [[1, NASTY, 0.5]]
    with pytest.raises(gradio.Error, match="at least one candidate"):
        asking.fn("a", "")
    assert "ORG/pipeline" in str(page.get_config_file())


def test_the_app_needs_nothing_of_ours(space, tmp_path):
    text = (tmp_path / "app.py").read_text(encoding="utf-8")
    assert "import trsr" not in text
    assert "from trsr" not in text
    assert "trsr" not in (tmp_path / "requirements.txt").read_text(encoding="utf-8")
