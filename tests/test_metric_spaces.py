"""The metric Spaces, put together as they are published and loaded by `evaluate` itself."""

import doctest
import re
import shutil
import sys

import evaluate
import numpy as np
import pytest

from trsr.hub.spaces import METRICS, metric_files
from trsr.metrics import ranking

SCORES = [[0.9, 0.7, 0.1], [0.2, 0.5, 0.5, 0.1], [1.0, 0.0]]
LABELS = [[0, 1, 0], [0, 0, 1, 0], [1, 0]]


@pytest.fixture(scope="module")
def spaces(tmp_path_factory):
    """Folders as they are uploaded; what `evaluate` writes stays beside them."""
    folder = tmp_path_factory.mktemp("spaces")
    for name in METRICS:
        (folder / name).mkdir()
        for target, source in metric_files(name).items():
            shutil.copyfile(source, folder / name / target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", str(folder / "modules"))
        patch.syspath_prepend(folder / "modules")  # put back when the tests are done
        yield folder
    for module in [
        module for module in sys.modules if module.startswith(evaluate.config.MODULE_NAME_FOR_DYNAMIC_MODULES)
    ]:
        del sys.modules[module]


@pytest.fixture(params=METRICS)
def name(request):
    return request.param


@pytest.fixture
def metric(spaces, name):
    return evaluate.load(str(spaces / name), keep_in_memory=True)


@pytest.mark.parametrize("k", [1, 2, 3, 50])
def test_the_value_is_the_mean_of_per_user(metric, name, k):
    key = f"{name.split('_')[0]}@{k}"
    expected = np.mean([ranking.per_user([s], [y], at=[k])[key] for s, y in zip(SCORES, LABELS, strict=True)])
    found = metric.compute(predictions=SCORES, references=LABELS, k=k)
    assert found == {name: pytest.approx(expected)}
    assert type(found[name]) is float


def test_a_constant_scorer_gets_chance(metric, name):
    labels = np.eye(21, dtype=int)
    found = metric.compute(predictions=np.full((21, 21), 0.3), references=labels, k=3)[name]
    discounts = {"recall_at_k": [1, 1, 1], "mrr_at_k": [1, 1 / 2, 1 / 3], "ndcg_at_k": 1 / np.log2([2, 3, 4])}
    assert found == pytest.approx(sum(discounts[name]) / 21)


def test_labels_may_be_booleans_and_k_is_ten_if_left_out(metric, name):
    truth = [[label == 1 for label in labels] for labels in LABELS]
    expected = metric.compute(predictions=SCORES, references=LABELS, k=10)
    assert metric.compute(predictions=SCORES, references=truth) == expected


@pytest.mark.parametrize(
    ("scores", "labels", "k", "message"),
    [
        ([[1, 2, 3]], [[1, 0]], 3, "row 0 has 3 scores and 2 labels"),
        ([[1, 2], [3, 4]], [[1, 0]], 3, "Mismatch in the number of predictions"),
        ([[1, 2]], [[0, 0]], 3, "row 0 .*no positive"),
        ([[1, 2]], [[1, 1]], 3, "row 0 .*no negative"),
        ([[1, 2]], [[2, 0]], 3, "labels must hold 0 and 1"),
        ([[1, 2]], [[1, 0.9]], 3, "labels must hold 0 and 1"),
        ([[1, float("nan")]], [[1, 0]], 3, "scores must be finite"),
        ([[1, 2]], [[1, 0]], 0, "Cut-offs are whole numbers from 1"),
        ([["a", "b"]], [[1, 0]], 3, "could not convert|expected format"),
        ([1, 2], [1, 0], 3, "expected format"),
        ([], [], 3, "one of labels a user"),
    ],
)
def test_faults_are_told_and_leave_no_rows_behind(metric, name, scores, labels, k, message):
    with pytest.raises(ValueError, match=message):
        metric.compute(predictions=scores, references=labels, k=k)
    assert metric.compute(predictions=[[2, 1]], references=[[1, 0]]) == {name: 1}


def test_the_example_gives_what_it_says(metric, name):
    [example] = doctest.DocTestParser().get_examples(re.sub(r".*load.*\n", "", metric.inputs_description))
    assert repr(eval(example.source, {"metric": metric})) == example.want.strip()
    assert "2403.13325" in metric.citation


def test_the_example_names_its_own_space(metric, name):
    assert f'evaluate.load("ORG/{name}")' in metric.inputs_description


def test_there_are_no_files_without_a_metric():
    with pytest.raises(ValueError, match="expected one of recall_at_k"):
        metric_files("recall")
    for one in METRICS:
        assert all(source.is_file() for source in metric_files(one).values())


def test_the_form_computes(spaces, name, monkeypatch):
    gradio = pytest.importorskip("gradio")
    space = {"__name__": "app", "__file__": str(spaces / name / "app.py")}
    exec((spaces / name / "app.py").read_text(encoding="utf-8"), space)
    assert space["compute"](space["SCORES"], space["LABELS"], 50) > 0.4
    for broken in ("<b>", '[["<b>"]]', "1", "[" * 20_001):
        with pytest.raises(gradio.Error) as caught:
            space["compute"](broken, space["LABELS"], 3)
        assert "<b>" not in str(caught.value)
