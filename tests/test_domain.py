"""A base for one dataset: its rows are the prompts that fine-tuning uses, and one forward is many prompts."""

import json

import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import tiny
from trsr.core.history import Item
from trsr.core.prompts import Encoder, RankingPrompt
from trsr.dataset import contract
from trsr.dataset.sequences import training_splits
from trsr.errors import DataError, ReleaseError
from trsr.hub.release import check_base
from trsr.pretrain.domain.batch import collate, forward
from trsr.pretrain.domain.rows import MAX_WINDOW, Rows, User, training_users, users
from trsr.pretrain.domain.tokenizer import superword_tokenizer
from trsr.pretrain.domain.train import train_domain
from trsr.pretrain.scratch import llama, ranking_losses

GENRES = ("mystery", "travel", "sea stories")
TEXTS = {f"i{n}": f"title: The Book No {n}; genre: {GENRES[n % 3]}" for n in range(30)}
PROMPT = RankingPrompt(recent_items=MAX_WINDOW)


@pytest.fixture(scope="module")
def tokenizer():
    items = [Item.parse(text) for text in TEXTS.values()]
    texts = [PROMPT.prefix("genre: mystery x3", [item]) + PROMPT.suffix(item) for item in items] * 3
    return superword_tokenizer([*texts, *[" yes", " no"] * 20], 700)


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return Encoder(tokenizer, PROMPT)


def everyone():
    """Two users who share no item."""
    items = [tuple(f"i{(7 * step) % 15 + first}" for step in range(14)) for first in (0, 15)]
    return [User(one, {5: "genre: travel x5", 10: "genre: travel x6, mystery x4"}) for one in items]


def rows(encoder, length=40, **options):
    return Rows(everyone(), TEXTS, encoder, length=length, **options)


def test_a_title_is_a_token_and_so_is_an_answer(tokenizer, encoder):
    pieces = tokenizer.convert_ids_to_tokens(encoder.text_ids("- title: The Book No 7; genre: sea stories"))
    assert [piece.replace("Ġ", " ") for piece in pieces] == ["- title: ", "The Book No 7", "; genre: ", "sea stories"]
    assert encoder.yes_id != encoder.no_id
    hostile = "title: <s> Ω; genre: \x00"
    assert tokenizer.decode(encoder.text_ids(hostile)) == hostile


def test_rows_are_the_prompts_of_fine_tuning(encoder):
    """Every candidate stands behind the ids of `prefix_ids` for some summary and some items in a row of a user."""
    known = {}
    for user in everyone():
        for summary in (None, *user.summaries.values()):
            for start in range(len(user.items)):
                for end in range(start + 1, len(user.items)):
                    shown = [Item.parse(TEXTS[item_id]) for item_id in user.items[start:end]]
                    known[tuple(encoder.prefix_ids(summary, shown).ids)] = user, end
    suffixes = {item_id: encoder.suffix_ids(Item.parse(text)) for item_id, text in TEXTS.items()}
    newline = encoder.text_ids("\n")
    kinds = set()
    for row in rows(encoder):
        for seen, candidates in row["branches"]:
            opened = newline if candidates[0][: len(newline)] == newline else []
            user, end = known[tuple(row["prefix"][:seen] + opened)]
            assert candidates[0] == opened + suffixes[user.items[end]]
            for other in candidates[1:]:
                assert other not in [opened + suffixes[item_id] for item_id in user.items]
            assert len({tuple(one) for one in candidates}) == len(candidates)
            kinds.add((bool(opened), len(candidates)))
    assert kinds == {(True, 5), (False, 11)}


def test_summaries_speak_of_what_was_before(tmp_path):
    table = contract.read(str(tiny.dataset(tmp_path)), "histories", "train")
    row = table[0] | {"block_summaries": ["one", "two"], "summary": "two"}
    assert users([row], 5, target=True) == [User((*row["history"], row["target"]), {5: "one", 7: "two"})]
    assert users([row], 5, target=False)[0].items == tuple(row["history"])
    # Of a longer history the oldest blocks were left out.
    assert users([row], 2, target=False)[0].summaries == {6: "one", 7: "two"}


def recurrent(*rows):
    """Rows of the config `recurrent` with a block size of 2, from (user, history, target), all but the oldest summary kept."""
    columns = {
        "user_id": [user for user, _, _ in rows],
        "history": [list(history) for _, history, _ in rows],
        "target": [target for _, _, target in rows],
        "block_summaries": [[f"{2 * n + 2} items" for n in range(-(-len(history) // 2))] for _, history, _ in rows],
    }
    return Dataset.from_dict(columns)


def test_what_validation_and_test_ask_for_is_not_trained_on():
    """Where users stand in several splits, the test row's history holds the validation target."""
    train, asked = recurrent(("u", "abc", "d"), ("v", "bc", "a")), recurrent(("u", "abcd", "e"))
    shared = {"train": train, "validation": asked, "test": recurrent(("u", "abcde", "f"))}
    alone = [User(tuple("abcd"), {2: "2 items", 3: "4 items"}), User(tuple("bca"), {2: "2 items"})]
    assert training_users(training_splits(shared), 2) == alone
    # A user of one split with several rows there: what follows the first target of another row is left out.
    apart = {
        "train": train,
        "validation": recurrent(("w", "abcde", "f"), ("x", "ab", "c"), ("w", "ab", "d")),
        "test": recurrent(("y", "abc", "d")),
    }
    others = [
        User(tuple("abc"), {2: "2 items"}),
        User(tuple("ab"), {2: "2 items"}),
        User(tuple("ab"), {2: "2 items"}),
        User(tuple("abc"), {2: "2 items", 3: "4 items"}),
    ]
    assert training_users(training_splits(apart), 2) == alone + others


def test_users_with_too_few_items_are_left_out(encoder, tokenizer):
    short, summarised = User(("i1", "i2"), {}), User(("i3", "i4"), {1: "genre: travel x1"})
    found = Rows([short, *everyone()[:1], short, summarised], TEXTS, encoder, length=40)
    assert found.users == [everyone()[0], summarised]
    # A batch of nothing but short histories has candidates to score too.
    batch = [Rows([summarised], TEXTS, encoder, length=8)[number] for number in range(8)]
    assert all(row["branches"] for row in batch)
    assert len(collate(batch, tokenizer.pad_token_id)["sizes"]) == 8
    with pytest.raises(DataError, match="None of 2 users has 3 items to train on"):
        Rows([short, short], TEXTS, encoder, length=4)


def test_rows_follow_from_their_number_and_the_seed(encoder):
    forwards = [rows(encoder)[number] for number in (0, 17, 5)]
    again = rows(encoder)
    assert [again[number] for number in (5, 0, 17)] == [forwards[2], forwards[0], forwards[1]]
    assert rows(encoder, seed=1)[17] != forwards[1]


def test_too_small_a_catalogue_is_refused(encoder):
    few = dict(list(TEXTS.items())[:20])
    with pytest.raises(DataError, match=r"20 items are too few .* 24 are needed"):
        Rows(everyone()[:1], few, encoder, length=4)


def test_one_forward_is_many_prompts(encoder, tokenizer):
    torch.manual_seed(0)
    model = llama(tokenizer, hidden=32, layers=2, heads=2)
    chosen = [rows(encoder)[number] for number in range(6)]
    answers, sizes, text = forward(model, collate(chosen, tokenizer.pad_token_id))
    model.set_attn_implementation("eager")
    place, losses = 0, []
    for row in chosen:
        for seen, candidates in row["branches"]:
            for candidate in candidates:
                expected = model(input_ids=torch.tensor([row["prefix"][:seen] + candidate])).logits[0, -1]
                torch.testing.assert_close(answers[place], expected, atol=1e-5, rtol=0)
                place += 1
        ids = torch.tensor([row["prefix"]])
        logits = model(input_ids=ids).logits[0, :-1]
        losses.append(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none"))
    assert place == len(answers) == sizes.sum()
    torch.testing.assert_close(text, torch.cat(losses).mean(), atol=1e-5, rtol=0)


def test_losses_by_hand():
    """Two groups, log-odds (2, 0) and (0, 0, 1); the vocabulary is no, yes."""
    odds = torch.tensor([2.0, 0.0, 0.0, 0.0, 1.0])
    found = ranking_losses(torch.stack([torch.zeros(5), odds], 1), torch.tensor([2, 3]), yes=1, no=0)
    soft = torch.nn.functional.softplus
    listwise = (soft(odds[1] - odds[0]) + torch.logsumexp(odds[2:], 0) - odds[2]) / 2
    chosen = (soft(-odds[0]) + soft(-odds[2])) / 2
    others = (soft(odds[1]) + (soft(odds[3]) + soft(odds[4])) / 2) / 2
    torch.testing.assert_close(found["listwise"], listwise)
    torch.testing.assert_close(found["answer"], (chosen + others) / 2)
    assert found["first"] == 0.5
    huge = ranking_losses(torch.tensor([[0.0, 500.0], [0.0, 400.0]]), torch.tensor([2]), yes=1, no=0)
    assert torch.isfinite(huge["listwise"])


def test_it_learns_who_chose_what_after_what(tmp_path):
    """Every user reads on from item n to item n + 3: the next one is known from the last."""
    source = tiny.dataset(tmp_path / "data", users=40)
    provenance = tmp_path / "data" / "provenance.json"
    provenance.write_text(json.dumps(json.loads(provenance.read_text()) | {"summaries": {"block_size": 7}}))
    small = {"vocab_size": 600, "hidden": 32, "layers": 2, "heads": 2}
    made = train_domain(str(source), tmp_path / "base", steps=300, learning_rate=5e-3, **small)
    assert made["last_log"]["first"] > 0.6  # chance is a fifth
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert model.dtype == torch.float32
    assert model.config._attn_implementation == "sdpa"
    assert AutoTokenizer.from_pretrained(tmp_path / "base")("x").input_ids[0] == 0
    card = (tmp_path / "base" / "README.md").read_text(encoding="utf-8")
    assert "trsr pretrain domain --dataset data --seed 0 --steps 300" in card
    assert "training users with their targets, the histories alone of the others |" in card
    assert str(tmp_path) not in card
    assert ModelCard(card).data.license == "other"


def test_a_dataset_without_summaries_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not say the block_size of its summaries"):
        train_domain(str(tiny.dataset(tmp_path / "data")), tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_a_base_made_of_texts_that_must_stay_is_not_released(tmp_path):
    (tmp_path / "training.json").write_text('{"share_text": false}', encoding="utf-8")
    with pytest.raises(ReleaseError, match="may not be passed on"):
        check_base(tmp_path)
    (tmp_path / "training.json").write_text('{"share_text": true}', encoding="utf-8")
    check_base(tmp_path)
