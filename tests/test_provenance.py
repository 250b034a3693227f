import json

import pytest

from trsr.dataset import contract
from trsr.dataset.check.provenance import severity_overrides
from trsr.errors import DataError
from trsr.records.provenance import Provenance, Terms

WHOLE = {
    "dataset": {"name": "books", "license": "mit", "language": ["en"], "share_text": False},
    "script": "dataset_scripts/tables.py",
    "options": {"field_words": 40, "field_values": None},
    "seed": 3,
    "sampling": {"negatives": 4, "sampling": "popularity", "seed": 3},
    "counts": {"users_kept": 7},
    "summaries": {
        "engine": "transformers",
        "model": "ORG/MODEL",
        "revision": None,
        "sampling": {"do_sample": False},
        "prompts": {"block": "Summarise."},
        "methods": ["recurrent"],
        "block_size": 3,
        "max_blocks": 5,
        "calls": {"recurrent": 20, "hierarchical": 0},
        "fallen_back": {"empty": 2},
        "fallen_back_by_method": {"recurrent": 2, "hierarchical": 0},
        "source": "sha256:ab",
    },
}


def test_what_the_file_says_is_read_once_and_by_name():
    made = Provenance(WHOLE, "data/books")
    assert made.terms == Terms("books", "mit", language=("en",), share_text=False)
    assert (made.name, made.script, made.seed, made.counts) == ("books", WHOLE["script"], 3, {"users_kept": 7})
    assert made.item_text == {"field_words": 40, "field_values": 0}
    assert made.protocol == "1 positive and 4 popularity negatives a user"
    assert not made.by_impressions
    assert not made.users_in_several_splits
    written = made.summaries
    assert (written.engine, written.model, written.revision) == ("transformers", "ORG/MODEL", None)
    assert (written.block_size, written.max_blocks, written.methods) == (3, 5, ("recurrent",))
    assert written.fallen_back_by_method == {"recurrent": 2}
    assert written.summarised == "sha256:ab"
    assert not written.continues_others


def test_summaries_that_continue_others_have_their_fallbacks_too():
    first = {"fallen_back": {"empty": 2}, "fallen_back_by_method": {"recurrent": 2}}
    second = {"fallen_back": {"empty": 1, "loop": 3}, "fallen_back_by_method": {"recurrent": 0, "hierarchical": 4}}
    made = {**WHOLE["summaries"], "calls": {"recurrent": 20, "hierarchical": 5}}
    made["since"] = {"summaries": {**second, "since": {"summaries": first}}}
    written = Provenance({"summaries": made}).summaries
    assert written.fallen_back == {"empty": 5, "loop": 3}
    assert written.fallen_back_by_method == {"recurrent": 4, "hierarchical": 4}
    made["calls"] = {"recurrent": 3}  # of so many fewer users that most of those are gone
    assert written.fallen_back_by_method == {"recurrent": 3}
    second["fallen_back"] = {"empty": "many"}
    with pytest.raises(DataError, match=r"'summaries\.fallen_back' is .*many.*, not an object of whole numbers"):
        Provenance({"summaries": {"since": {"summaries": second}}}).summaries.fallen_back  # noqa: B018


def test_negatives_that_were_given_are_told_as_such():
    assert Provenance({}).protocol == "1 positive and the given negatives a user"
    dated = {"protocol": {"split": "date", "dates": ["2003-01-01", "2003-02-01"], "min_rating": 4.0}}
    expected = (
        "1 positive and the given negatives a user, split by date at 2003-01-01 and 2003-02-01, ratings of 4 or more"
    )
    assert Provenance(dated).protocol == expected


def test_rows_of_impressions_are_clicks():
    made = Provenance({"protocol": {"split": "impressions"}})
    assert made.by_impressions
    assert made.users_in_several_splits
    assert made.protocol == "a clicked item and what was shown beside it and not clicked, a row a click"


@pytest.mark.parametrize("name", ["engine", "model", "revision", "sampling", "calls", "block_size", "max_blocks"])
def test_what_is_not_said_of_summaries_is_an_error_and_no_guess(name):
    summaries = {key: value for key, value in WHOLE["summaries"].items() if key != name}
    made = Provenance({**WHOLE, "summaries": summaries}, "data/books").summaries
    with pytest.raises(DataError, match=rf"data/books does not say the {name} .* trsr summarize data/books --out DIR"):
        getattr(made, name)


@pytest.mark.parametrize("size", [None, 0, -1, "5"])
def test_a_block_has_a_positive_number_of_items(size):
    made = Provenance({"summaries": {"block_size": size, "max_blocks": 5}}).summaries
    with pytest.raises(DataError, match="block_size"):
        made.block_size  # noqa: B018
    assert made.known_block_sizes() == {"max_blocks": 5}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1], "holds list, not a JSON object"),
        ({"dataset": "blue"}, "'dataset' is 'blue', not a JSON object"),
        ({"dataset": {"colour": "blue"}}, "colour"),
        ({"dataset": {"name": 3}}, r"'dataset\.name' is 3, not a string"),
        ({"dataset": {"license": None}}, r"'dataset\.license' is None, not a string"),
        ({"dataset": {"share_text": "false"}}, r"'dataset\.share_text' is 'false', not true or false"),
        ({"protocol": "impressions"}, "'protocol' is 'impressions', not a JSON object"),
        ({"counts": {"targets_tied_in_time": "3"}}, r"'counts' is \{.*'3'\}, not an object of whole numbers"),
        ({"protocol": {"split": "date", "dates": None}}, r"'protocol\.dates' is None, not a list of strings"),
        ({"protocol": {"split": "date", "dates": "2003"}}, r"'protocol\.dates' is '2003', not a list of strings"),
        ({"protocol": {"split": ["date"]}}, r"'protocol\.split' is \['date'\], not a string"),
        ({"protocol": {"split": "users", "min_rating": "4"}}, r"'protocol\.min_rating' is '4', not a number"),
        ({"protocol": {"split": "users", "k_core": None}}, r"'protocol\.k_core' is None, not a whole number"),
        ({"options": {"field_words": "40"}}, r"'options\.field_words' is '40', not a whole number or null"),
        ({"summaries": {"methods": None}}, r"'summaries\.methods' is None, not a list of strings"),
        ({"summaries": {"methods": "recurrent"}}, r"'summaries\.methods' is 'recurrent', not a list of strings"),
        ({"summaries": {"calls": {"recurrent": None}}}, r"'summaries\.calls' .* not an object of whole numbers"),
        ({"summaries": {"fallen_back": None}}, r"'summaries\.fallen_back' is None, not an object of whole numbers"),
        ({"summaries": {"prompts": ["x"]}}, r"'summaries\.prompts' is \['x'\], not an object or null"),
        ({"summaries": {"limit": "3"}}, r"'summaries\.limit' is '3', not a whole number or null"),
        ({"counts": 3}, "'counts' is 3, not a JSON object"),
        ({"summaries": ["recurrent"]}, "'summaries'"),
    ],
)
def test_a_file_that_is_something_else_is_refused(values, said):
    with pytest.raises(DataError, match=said):
        Provenance(values)


def test_an_unreadable_file_is_one_error(tmp_path):
    (tmp_path / contract.PROVENANCE_FILE).write_text("{broken")
    with pytest.raises(DataError, match=f"{contract.PROVENANCE_FILE} of .* cannot be read"):
        contract.provenance(str(tmp_path))


def test_no_file_is_an_empty_record(tmp_path):
    made = contract.provenance(str(tmp_path))
    assert not made
    assert made.name is None
    assert not made.has_summaries
    assert made.terms.name == "dataset"


def test_other_terms_and_summaries_leave_the_rest_and_the_order(tmp_path):
    (tmp_path / contract.PROVENANCE_FILE).write_text(json.dumps(WHOLE))
    made = contract.provenance(str(tmp_path))
    changed = made.with_terms(Terms("books", "cc0-1.0")).with_summaries({"engine": "extractive"})
    assert list(changed.values) == list(WHOLE)
    assert changed.values["counts"] == WHOLE["counts"]
    assert changed.summaries.engine == "extractive"
    assert made.values == WHOLE


def test_summaries_that_were_made_otherwise_are_told_apart():
    made = Provenance(WHOLE).summaries
    assert made.differences({**WHOLE["summaries"], "engine": "openai"}) == []  # the same model, served elsewhere
    assert made.differences({**WHOLE["summaries"], "block_size": 4}) == ["block_size was 3, is 4"]
    assert made.differences({**WHOLE["summaries"], "engine": "extractive"}) == [
        "engine was 'transformers', is 'extractive'"
    ]


def test_a_date_split_may_show_an_item_again_and_a_leave_one_out_may_not():
    """Under a date split an earlier row reaches further back, whether or not a target stands in its own history."""
    by_date = Provenance({"protocol": {"split": "date", "dates": ["2001-01-01"]}})
    assert severity_overrides(by_date) == {"target-in-earlier-split": "warning"}
    assert severity_overrides(Provenance({"protocol": {"split": "leave-one-out"}})) == {}
    repeated = Provenance({"counts": {"targets_in_own_history": 2}})
    assert severity_overrides(repeated) == {"target-in-history": "warning"}
