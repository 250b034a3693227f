"""Recipes as their user meets them: names, files, overrides, and every mistake told at once."""

import json

import pytest
import torch
import yaml
from transformers import get_scheduler

from trsr.errors import RecipeError
from trsr.recommender.recipe import SCHEDULERS, _folder, build_recipe, load_recipe, names

RECIPES = sorted(path for path in _folder().iterdir() if path.name.endswith(".yaml"))
SMALL = "base: nano\ndataset: sample\n"


def write(folder, text, name="mine.yaml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def problems(source, overrides=()):
    with pytest.raises(RecipeError) as caught:
        load_recipe(source, overrides)
    return str(caught.value)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_shipped_recipe(path):
    name = path.name.removesuffix(".yaml")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"# trsr train {name}"
    assert lines[1].startswith("# ")
    assert all(len(line) <= 120 for line in lines)

    recipe = load_recipe(name)

    assert recipe.name == name
    assert load_recipe(str(path)) == recipe
    assert build_recipe(recipe.to_dict()) == recipe


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_shipped_recipe_lists_only_what_differs(path, tmp_path):
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    plain = load_recipe(write(tmp_path, f"base: {values['base']}\ndataset: {values['dataset']}\n")).to_dict()
    full = load_recipe(str(path)).to_dict()
    for key, value in values.items():
        if isinstance(value, dict):
            for inner in value:
                assert full[key][inner] != plain[key][inner], f"{key}.{inner}"
        elif key not in ("base", "dataset"):
            assert full[key] != plain[key], key


def test_names_are_the_folder():
    assert names() == sorted(path.name.removesuffix(".yaml") for path in RECIPES)
    assert "nano-sample" in names()


def test_defaults_are_the_papers(tmp_path):
    recipe = load_recipe(write(tmp_path, SMALL))
    lora, optim = recipe.lora, recipe.optim
    assert recipe.name == "mine"
    assert (recipe.recent_items, recipe.negatives, recipe.max_tokens) == (5, 1, 2048)
    assert (lora.r, lora.alpha, lora.dropout) == (8, 16, 0.05)
    assert lora.target_modules == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert (optim.learning_rate, optim.epochs, optim.batch_size * optim.accumulation) == (1e-4, 5, 64)
    assert (optim.weight_decay, optim.beta1, optim.beta2, optim.bf16) == (5e-4, 0.9, 0.95, True)


def test_a_file_by_either_ending(tmp_path):
    assert load_recipe(write(tmp_path, SMALL, "a.yml")) == load_recipe(write(tmp_path, SMALL, "a.yaml"))


def test_overrides(tmp_path):
    path = write(tmp_path, SMALL + "optim:\n  epochs: 3\n")
    recipe = load_recipe(
        path,
        [
            "seed=7",
            "optim.learning_rate=1e-3",
            "optim.max_steps=10",
            "lora.target_modules=[q_proj, v_proj]",
            "dataset=data/goodbooks",
            "summary=none",
            "name=a=b",
            "base_revision=1234567",
            "dataset_revision=null",
        ],
    )
    assert recipe.seed == 7
    assert recipe.optim.learning_rate == 1e-3
    assert (recipe.optim.epochs, recipe.optim.max_steps) == (3.0, 10)
    assert recipe.lora.target_modules == ("q_proj", "v_proj")
    assert (recipe.dataset, recipe.summary, recipe.name) == ("data/goodbooks", "none", "a=b")
    assert (recipe.base_revision, recipe.dataset_revision) == ("1234567", None)
    assert load_recipe(path).seed == 0


def test_one_module_needs_no_list(tmp_path):
    assert load_recipe(write(tmp_path, SMALL), ["lora.target_modules=q_proj"]).lora.target_modules == ("q_proj",)


def test_bare_yes_and_no_are_words(tmp_path):
    """YAML 1.1 reads them as booleans."""
    recipe = load_recipe(write(tmp_path, SMALL), ["yes=no", "no=yes", "chat=no"])
    assert (recipe.yes, recipe.no, recipe.chat) == ("no", "yes", False)


def test_texts_stay_as_they_are_written(tmp_path):
    """YAML 1.1 reads octal and sexagesimal numbers, dates, and more words as booleans."""
    texts = ["2024_01_05", "007", "12:30", "true", "0012345", "2026-13-01", "1e3", "on"]
    for text in texts:
        recipe = load_recipe(write(tmp_path, SMALL + f"base_revision: {text}\n"), [f"name={text}", f"yes={text}"])
        assert (recipe.base_revision, recipe.name, recipe.yes) == (text, text, text)
        assert build_recipe(recipe.to_dict()) == recipe
    assert load_recipe(write(tmp_path, SMALL), ["seed=010", "optim.epochs=1e1"]).seed == 10
    for text in ("1_000", "0x10", "1.0", "null"):
        assert f"seed: got {text!r}, expected int" in problems(write(tmp_path, SMALL), [f"seed={text}"])


def test_bare_yes_and_no_are_keys(tmp_path):
    recipe = load_recipe(write(tmp_path, SMALL + "yes: Yes please\nno: no\nchat: yes\n"))
    assert (recipe.yes, recipe.no, recipe.chat) == ("Yes please", "no", True)
    assert load_recipe(write(tmp_path, SMALL + "no: nein\n"), ["no=non"]).no == "non"


def test_all_mistakes_at_once(tmp_path):
    told = problems(
        write(
            tmp_path, "dataset: sample\nsumary: recurrent\nseed: many\nlora:\n  rank: 4\n  alpha: 1.5\noptim: fast\n"
        ),
        ["optim.epochs", "recent_items.most=3", "chat=maybe", "lora.target_modules={a: 1}", "=3"],
    )
    for line in (
        "11 problem(s) in recipe mine.yaml:",
        "'optim.epochs': write an override as key=value or section.key=value",
        "'=3': write an override as key=value or section.key=value",
        "base: missing",
        "sumary: unknown key, did you mean 'summary'?",
        "seed: got 'many', expected int",
        "lora.rank: unknown key, expected one of r, alpha, dropout, target_modules",
        "lora.alpha: got '1.5', expected int",
        "lora.target_modules: got {'a': '1'}, expected a list of words",
        "optim: got 'fast', expected a section",
        "chat: got 'maybe', expected bool",
        "recent_items: got {'most': '3'}, expected int",
    ):
        assert line in told
    assert len(told.splitlines()) == 12


def test_wrong_values_are_told_beside_wrong_keys(tmp_path):
    told = problems(write(tmp_path, "base: nano\nsed: 1\nsummary: both\nlora:\n  r: 0\noptim:\n  epochs: few\n"))
    for line in (
        "5 problem(s)",
        "dataset: missing",
        "sed: unknown key",
        "summary: got 'both'",
        "lora.r: got 0",
        "optim.epochs: got 'few'",
    ):
        assert line in told


def test_a_needed_value_of_the_wrong_kind(tmp_path):
    told = problems(write(tmp_path, "base: [nano]\ndataset:\n"))
    assert "base: got ['nano'], expected str" in told
    assert "dataset: got '', expected str" in told


def test_all_wrong_values_at_once(tmp_path):
    told = problems(
        write(tmp_path, SMALL),
        [
            "summary=both",
            "recent_items=-1",
            "negatives=0",
            "form=tree",
            "listwise=1.5",
            "lora.r=0",
            "lora.dropout=1",
            "optim.learning_rate=0",
            "optim.batch_size=0",
            "optim.device=tpu",
            "optim.scheduler=cosin",
            "optim.beta1=2",
            "optim.warmup_ratio=-0.5",
            "optim.weight_decay=-1",
            "optim.epochs=inf",
            "lora.target_modules=[]",
            "seed=-1",
        ],
    )
    for line in (
        "summary: got 'both', expected one of recurrent, hierarchical, none",
        "recent_items: got -1, expected at least 0",
        "negatives: got 0, expected at least 1",
        "form: got 'tree', expected one of flat, shared-prefix",
        "listwise: got 1.5, expected 0 to 1",
        "lora.r: got 0, expected at least 1",
        "lora.dropout: got 1.0, expected 0 or more and less than 1",
        "optim.learning_rate: got 0.0, expected a finite number above 0",
        "optim.batch_size: got 0, expected at least 1",
        "optim.device: got 'tpu', expected auto or cpu",
        "optim.scheduler: got 'cosin', expected one of linear, cosine, ",
        "optim.beta1: got 2.0, expected 0 or more and less than 1",
        "optim.warmup_ratio: got -0.5, expected 0 or more and less than 1",
        "optim.weight_decay: got -1.0, expected a finite number, 0 or more",
        "optim.epochs: got inf, expected a finite number above 0",
        "lora.target_modules: got none, expected at least one",
        "seed: got -1, expected 0 to 4294967295",
    ):
        assert line in told
    assert "17 problem(s)" in told
    assert "with watch.steps 0" in problems(write(tmp_path, SMALL), ["optim.scheduler=reduce_lr_on_plateau"])


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("tf-idf", "the name of a baseline"),
        ("label", "a column of scores.parquet"),
        ("mine, history last:3", "the name of a control"),
        ("mine, summaries shuffled", "the name of a control"),
        ("mine + theirs", "a sum of systems"),
        ('"fused: mine"', "a sum of systems"),
    ],
)
def test_a_name_that_another_system_or_column_has(tmp_path, name, taken):
    told = problems(write(tmp_path, SMALL), [f"name={name}"])
    assert f"name: got {name.strip(chr(34))!r}, which is {taken}, expected another" in told


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_scheduler_needs_no_more_settings(scheduler):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    assert get_scheduler(scheduler, optimizer, num_warmup_steps=1, num_training_steps=4)


def test_candidates_are_compared_only_where_they_stand_together(tmp_path):
    told = problems(write(tmp_path, SMALL), ["listwise=0.5"])
    assert "listwise: got 0.5 in the form flat, expected 0, or form: shared-prefix" in told
    assert load_recipe(write(tmp_path, SMALL), ["listwise=0.5", "form=shared-prefix"]).listwise == 0.5


def test_an_override_of_a_plain_value_is_no_section(tmp_path):
    assert "seed.x: seed is not a section" in problems(write(tmp_path, SMALL + "seed: 3\n"), ["seed.x=1"])


def test_unknown_recipe():
    assert problems("nano-sampel") == "Unknown recipe 'nano-sampel'. Did you mean 'nano-sample'? See: trsr recipes"
    assert problems("zzz") == "Unknown recipe 'zzz'. See: trsr recipes"
    assert problems("../recipe") == "Unknown recipe '../recipe'. See: trsr recipes"


def test_missing_file(tmp_path):
    path = str(tmp_path / "none.yaml")
    assert problems(path) == f"No recipe file at {path!r}. See: trsr recipes"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_recipe_is_read_in_the_encodings_of_editors_and_shells(tmp_path, encoding):
    expected = load_recipe(write(tmp_path, SMALL))
    (tmp_path / "mine.yaml").write_bytes(SMALL.encode(encoding))
    assert load_recipe(str(tmp_path / "mine.yaml")) == expected


@pytest.mark.parametrize("text", ["base: [nano\n", "base: 'nano\n", "a: b: c\n"])
def test_broken_yaml(tmp_path, text):
    assert problems(write(tmp_path, text)).startswith("mine.yaml is not readable YAML: ")


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"base: \xff\xfe\n")
    assert "mine.yaml is not readable YAML" in problems(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(("text", "kind"), [("", "NoneType"), ("- base\n", "list"), ("nano\n", "str")])
def test_yaml_of_another_shape(tmp_path, text, kind):
    assert problems(write(tmp_path, text)) == f"mine.yaml must hold `key: value` lines, got {kind}."


def test_an_override_that_is_no_yaml(tmp_path):
    told = problems(write(tmp_path, SMALL), ["lora.target_modules=[q_proj", "name='a", "sed=1"])
    assert 'name: "\'a" is not readable YAML' in told
    assert "lora.target_modules: '[q_proj' is not readable YAML" in told
    assert "sed: unknown key" in told


def test_a_saved_recipe_is_checked_too():
    with pytest.raises(RecipeError, match="sed: unknown key, did you mean 'seed'") as caught:
        build_recipe({"base": "nano", "sed": 1})
    assert "dataset: missing" in str(caught.value)


def test_seeds_of_one_run_have_the_same_settings():
    """Where the files lie and what the machine needs make no other run; what the model learns from does."""
    first = load_recipe("smollm2-135m-goodbooks", ["base=bases/smollm2", "dataset=data/books"])
    overrides = ["base=/elsewhere/smollm2", "dataset=books", "seed=1", "optim.device=auto", "optim.save_steps=7"]
    assert load_recipe("smollm2-135m-goodbooks", overrides).settings() == first.settings()
    for other in ("recent_items=3", "lora.r=8", "optim.epochs=2", "base=bases/gemma"):
        assert load_recipe("smollm2-135m-goodbooks", [*overrides, other]).settings() != first.settings()
    json.dumps(first.settings())
