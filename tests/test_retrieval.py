"""The parts of a retriever against naive computations: sequences, losses, networks, search."""

import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from trsr.core.user_model import BLOCKS, SasRecBlock
from trsr.dataset import contract
from trsr.dataset.sequences import Sequences, training_sequences, windows
from trsr.errors import DataError, InputError, RunError, TrainError
from trsr.retrieval.batches import batch_of, epoch
from trsr.retrieval.draws import NegativeSampler
from trsr.retrieval.items import Catalogue
from trsr.retrieval.loss import backward_in_slices, sampled_softmax_loss, softmax_loss
from trsr.retrieval.network import Network, Shape
from trsr.retrieval.retriever import Retriever
from trsr.retrieval.search import top_k_items
from trsr.retrieval.training import Settings, fit
from trsr.retrieval.users import user_vectors
from trsr.retrieval.validation import Validation, measure

NUMBERS = {f"i{number}": number for number in range(12)}


def rows_of(*users):
    """Rows of `histories` from (user, history, target) as item numbers."""
    return Dataset.from_list(
        [
            {"user_id": user, "history": [f"i{n}" for n in history], "target": f"i{target}", "negatives": []}
            for user, history, target in users
        ],
        features=contract.HISTORIES,
    )


def sequences_of(*lists, first=None):
    return Sequences(
        np.concatenate([np.array(items, np.int32) for items in lists]),
        np.cumsum([len(items) for items in lists]),
        np.array(first or [0] * len(lists)),
    )


def lists_of(sequences):
    return [sequences[number].tolist() for number in range(len(sequences))]


def test_training_sees_no_target_of_validation_and_test():
    splits = {
        "train": rows_of(("a", [0, 1], 2)),
        "validation": rows_of(("b", [3, 4], 5)),
        "test": rows_of(("c", [6], 7), ("d", [], 8)),
    }
    found = training_sequences(splits, NUMBERS)
    assert lists_of(found) == [[0, 1, 2], [3, 4], [6]]
    assert found.counts(12).tolist() == [1, 1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0]
    # In time, a later row's history holds the earlier row's target: what is trained on ends with the training row.
    splits = {"train": rows_of(("a", [0, 1], 2)), "validation": rows_of(("a", [0, 1, 2], 3))} | {
        "test": rows_of(("a", [0, 1, 2, 3], 4))
    }
    assert lists_of(training_sequences(splits, NUMBERS)) == [[0, 1, 2]]


def test_a_history_ends_before_the_target_of_another_row_of_its_user():
    splits = {
        "train": rows_of(("a", [0, 1], 2)),
        "test": rows_of(("b", [3, 4], 5), ("b", [3, 4, 5, 6], 7), ("b", [5, 8], 9), ("c", [10, 11, 10], 10)),
    }
    found = training_sequences(splits, NUMBERS)
    assert lists_of(found) == [[0, 1, 2], [3, 4], [10, 11, 10]]  # a target that its own history holds was met before
    assert found.counts(12)[[5, 6, 7, 8, 9]].tolist() == [0] * 5


def test_rows_of_one_user_are_learnt_from_once():
    train = rows_of(("a", [0, 1], 2), ("a", [0, 1], 3), ("b", [4], 5), ("a", [0, 1, 3], 6))
    found = training_sequences({"train": train}, NUMBERS)
    assert lists_of(found) == [[0, 1, 2], [0, 1, 3], [4, 5], [0, 1, 3, 6]]
    assert found.learn_from.tolist() == [0, 2, 0, 3]
    assert found.counts(12).tolist() == [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]


def test_a_row_is_compared_with_all_earlier_ones_of_its_user():
    train = rows_of(("a", [0, 1, 2], 3), ("a", [0], 4), ("a", [0, 1, 2], 5), ("a", [0], 1), ("a", [0, 4], 6))
    found = training_sequences({"train": train}, NUMBERS)
    assert lists_of(found) == [[0, 1, 2, 3], [0, 4], [0, 1, 2, 5], [0, 4, 6]]  # the fourth begins the first
    assert found.learn_from.tolist() == [0, 1, 3, 2]
    assert found.counts(12).tolist() == [1] * 7 + [0] * 5


@given(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=5), min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)
def test_each_beginning_of_a_users_rows_is_learnt_once(rows):
    train = rows_of(*(("a", row[:-1], row[-1]) for row in rows))
    found = training_sequences({"train": train}, NUMBERS)
    learnt = [
        tuple(found[number][:end].tolist())
        for number, start in enumerate(found.learn_from)
        for end in range(start + 1, len(found[number]) + 1)
    ]
    assert sorted(learnt) == sorted({tuple(row[:end]) for row in rows for end in range(1, len(row) + 1)})


def test_unknown_items_and_sequences_of_one_item_are_refused():
    with pytest.raises(DataError, match="train: item 'i99' is not in the items config"):
        training_sequences({"train": rows_of(("a", [99], 1))}, NUMBERS)
    with pytest.raises(DataError, match="no next item"):
        training_sequences({"train": rows_of(("a", [], 1))}, NUMBERS)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 4), st.data())
@settings(max_examples=25, deadline=None)
def test_windows_hold_every_learnt_position_once(lengths, longest, data):
    first = [data.draw(st.integers(0, length - 1)) for length in lengths]
    items = np.arange(sum(lengths)).astype(np.int32)
    whole = Sequences(items, np.cumsum(lengths), np.array(first))
    parts = windows(whole, longest)
    assert parts.lengths.max() <= longest + 1

    def learnt(sequences):
        return sorted(
            item for number, start in enumerate(sequences.learn_from) for item in sequences[number][start:].tolist()
        )

    assert learnt(parts) == learnt(whole)


def test_a_batch_predicts_each_item_from_those_before_it():
    batch = batch_of(sequences_of([1, 2, 3], [4, 5], first=[0, 1]), [0, 1])
    assert batch.items.tolist() == [[1, 2], [4, 5]]
    assert batch.counts.tolist() == [2, 1]
    positions = list(
        zip(batch.row.tolist(), batch.column.tolist(), batch.targets.tolist(), batch.met.tolist(), strict=True)
    )
    assert positions == [
        (0, 0, 1, [-1, -1]),
        (0, 1, 2, [1, -1]),
        (0, 2, 3, [1, 2]),
        (1, 1, 5, [4, -1]),
    ]


def test_positions_of_a_window_are_counted_from_the_end_of_its_sequence():
    parts = windows(sequences_of(list(range(8))), 3)
    batch = batch_of(parts, range(len(parts)))
    # The last window sees 3 items before its target; those before it are followed by 3 and by 6 more.
    assert [parts[number].tolist() for number in range(len(parts))] == [[4, 5, 6, 7], [1, 2, 3, 4], [0, 1]]
    assert batch.counts.tolist() == [3, 6, 7]


def test_an_epoch_holds_every_position_once():
    lists = [list(range(length)) for length in (2, 7, 3, 1, 5, 4, 6)]
    batches = list(epoch(sequences_of(*lists), 3, np.random.default_rng(0)))
    targets = sorted(item for batch in batches for item in batch.targets.tolist())
    assert targets == sorted(item for items in lists for item in items)


def test_the_loss_is_the_softmax_over_all_items_that_were_not_met():
    torch.manual_seed(0)
    users, items = torch.randn(3, 4, dtype=torch.double), torch.randn(6, 4, dtype=torch.double)
    targets, met = torch.tensor([2, 0, 5]), torch.tensor([[1, 3], [-1, -1], [5, 4]])
    found = softmax_loss(users, items, targets, met)
    for row, (target, gone) in enumerate(zip(targets.tolist(), met.tolist(), strict=True)):
        odds = [math.exp(float(users[row] @ items[n])) if n == target or n not in gone else 0.0 for n in range(6)]
        assert found[row].item() == pytest.approx(-math.log(odds[target] / sum(odds)), rel=1e-12)


def test_the_estimate_of_the_denominator_is_unbiased():
    """With one draw, its mean over all items by their probability is the exact denominator."""
    torch.manual_seed(1)
    users, items = torch.randn(2, 4, dtype=torch.double), torch.randn(5, 4, dtype=torch.double)
    targets, met = torch.tensor([1, 4]), torch.tensor([[0, -1], [2, 3]])
    chances = torch.tensor([0.1, 0.3, 0.05, 0.35, 0.2], dtype=torch.double)
    own = (users * items[targets]).sum(-1)
    total = torch.zeros(2, dtype=torch.double)
    for drawn in range(5):
        losses = sampled_softmax_loss(users, items, targets, torch.tensor([drawn]), chances[drawn].log()[None], met)
        total += chances[drawn] * (losses + own).exp()
    exact = (softmax_loss(users, items, targets, met) + own).exp()
    assert torch.allclose(total, exact, rtol=1e-12)


def test_draws_come_as_often_as_they_are_expected():
    counts = np.array([0, 1, 9, 0])  # what nobody met is not drawn
    numbers, log_expected = NegativeSampler(counts, 100_000, np.random.default_rng(0))()
    seen = np.bincount(numbers.numpy(), minlength=4)
    expected = np.array([0, 30_000, 70_000, 0])
    assert np.abs(seen - expected).max() < 600
    for item in (1, 2):
        assert log_expected[numbers == item][0].exp().item() == pytest.approx(expected[item], rel=1e-5)


def test_slices_change_no_gradient(monkeypatch):
    torch.manual_seed(0)
    targets = torch.tensor([0, 3, 2, 1, 4])
    gradients = []
    for cells in (10**9, 5):
        monkeypatch.setattr("trsr.retrieval.loss.CELLS", cells)
        users = torch.nn.Parameter(torch.linspace(-1, 1, 15, dtype=torch.double).view(5, 3))
        items = torch.nn.Parameter(torch.linspace(1, -2, 18, dtype=torch.double).view(6, 3))
        mean = backward_in_slices(
            lambda users, items, part: softmax_loss(users, items, targets[part]), users * 2, items * 3, len(items)
        )
        gradients.append((mean, users.grad, items.grad))
    exact = F.cross_entropy(users.detach() * 2 @ (items.detach() * 3).T, targets).item()
    assert gradients[0][0] == pytest.approx(exact) == gradients[1][0]
    assert torch.allclose(gradients[0][1], gradients[1][1], rtol=1e-12)
    assert torch.allclose(gradients[0][2], gradients[1][2], rtol=1e-12)


def network(ids=12, text_width=3, **more):
    torch.manual_seed(0)
    return Network(Shape(ids, text_width, width=8, hidden=6, heads=2, longest=5, **more)).eval()


@pytest.mark.parametrize("blocks", BLOCKS)
def test_a_later_item_changes_no_earlier_vector(blocks):
    model = network(blocks=blocks)
    items, counts = torch.randn(2, 4, 8), torch.tensor([4, 4])
    changed = items.clone()
    changed[:, 2] += torch.randn(8)
    before, after = model.user(items, counts), model.user(changed, counts)
    assert before.shape == (2, 5, 8)
    assert torch.equal(before[:, :3], after[:, :3])
    assert (before[:, 3:] - after[:, 3:]).abs().amin(dim=(0, 2)).gt(0).all()


def test_positions_are_counted_from_the_newest_item():
    items, counts = torch.randn(2, 4, 8), torch.tensor([4, 4])
    for blocks, differ in (("relative", False), ("sasrec", True)):
        model = network(blocks=blocks)
        assert torch.equal(model.user(items, counts), model.user(items, counts + 1)) is not differ
        # Beyond the longest history all positions are one.
        assert torch.equal(model.user(items, counts + 9), model.user(items, counts + 10))


def test_the_block_of_sasrec_is_that_of_rectools():
    """Its layer (RecTools 0.19, `SASRecTransformerLayer`) written with torch's own attention, where no distance counts."""
    torch.manual_seed(0)
    shape = Shape(0, 0, width=8, heads=2, longest=5, blocks="sasrec")
    block = SasRecBlock(shape).eval()
    attention = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        for target, parts in (
            (attention.in_proj_weight, (block.query.weight, block.key_value.weight)),
            (attention.in_proj_bias, (block.query.bias, block.key_value.bias)),
            (attention.out_proj.weight, (block.out.weight,)),
            (attention.out_proj.bias, (block.out.bias,)),
        ):
            target.copy_(torch.cat(parts))
    x = torch.randn(3, 5, 8)
    future = torch.ones(5, 5, dtype=torch.bool).triu(1)
    query = block.attention_norm(x)
    seen = block.feed_norm(query + attention(query, x, x, attn_mask=future)[0])
    assert torch.allclose(block(x), seen + block.feed(seen), atol=1e-6)


@pytest.mark.parametrize("blocks", BLOCKS)
def test_padding_changes_no_vector_and_the_newest_items_count(blocks):
    model = network(blocks=blocks)
    vectors = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
    histories = [np.array(items, np.int64) for items in ([], [1], [3, 2, 1, 4, 5], [9, 3, 2, 1, 4, 5])]
    together = user_vectors(model, vectors, histories)
    alone = np.concatenate([user_vectors(model, vectors, [history]) for history in histories])
    assert np.allclose(together, alone, atol=1e-6)
    assert np.array_equal(together[2], together[3])  # longest is 5
    assert not np.allclose(together[0], together[1])


def test_an_item_that_nobody_met_has_no_id_part():
    model = network()
    text = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    counts = np.array([1] * 11 + [0])
    vectors = Catalogue.of(text, counts, model.shape).vectors(model)
    from_text = model.item.text(torch.from_numpy(text)).detach().numpy()
    assert np.allclose(vectors[11], from_text[11])
    assert np.allclose(vectors[:11], from_text[:11] + model.item.ids.weight[:11].detach().numpy())


@pytest.mark.parametrize("draws", [0, 16])
def test_training_learns_nothing_of_what_nobody_met(draws):
    """Else a new item would be ranked below all others, whatever its text says."""
    sequences = sequences_of(*([number, (number + 1) % 8, (number + 2) % 8] for number in range(8)))
    text = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    shape = Shape(12, 3, width=8, hidden=6, heads=2, longest=5, dropout=0.0)
    validation = Validation([np.array([0, 1])], np.array([2]))
    settings = Settings(epochs=3, batch=4, draws=draws)
    new = text[8:]
    one, other = (
        fit(sequences, 12, np.concatenate([text[:8], texts]), shape, settings, validation)
        for texts in (new, 2 * new.mean(0) - new)  # others of the same mean and variance, which scale all texts
    )
    assert one.known.tolist() == [True] * 8 + [False] * 4
    assert np.allclose(one.vectors[:8], other.vectors[:8], atol=1e-5)  # of the mean's rounding
    assert not np.allclose(one.vectors[8:], other.vectors[8:], atol=1e-2)
    assert [entry["loss"] for entry in one.log] == pytest.approx([entry["loss"] for entry in other.log], abs=1e-4)


@pytest.mark.parametrize("draws", [0, 16])
def test_a_training_that_diverges_ends(draws):
    """A target whose score is NaN has no item above it: such a network would look perfect."""
    sequences = sequences_of(*([number, (number + 1) % 8, (number + 2) % 8] for number in range(8)))
    shape = Shape(12, 0, width=8, hidden=6, heads=2, longest=5, dropout=0.0)
    validation = Validation([np.array([0, 1])], np.array([2]))
    with pytest.raises(
        TrainError, match=r"loss of the retriever is \w+ in step \d: .*Lower the learning rate, which is 1e\+30"
    ):
        fit(sequences, 12, None, shape, Settings(epochs=3, batch=4, draws=draws, learning_rate=1e30), validation)


def test_a_retriever_has_finite_vectors():
    model = network()
    with pytest.raises(RunError, match="Vectors of the retriever are not finite"):
        Retriever(model, ["a"], np.full((1, model.shape.width), np.nan, np.float32), None, {})


def test_validation_ranks_ties_in_their_middle_and_refuses_what_is_no_number():
    model = network(text_width=0)
    validation = Validation([np.array([0, 1]), np.array([2, 3])], np.array([4, 3]))  # 3 is met again
    vectors = np.ones((12, 8), np.float32)
    # 4 among the 10 that are not met, 3 among 11 with itself: in the middle of all.
    expected = np.mean([1 / math.log2(1 + rank) for rank in (5.5, 6)])
    assert measure(model, vectors, validation) == {"recall@10": 1, "ndcg": pytest.approx(expected)}
    also = Validation(validation.histories, validation.targets, [np.array([5, 6, 7]), np.array([], int)])
    assert measure(model, vectors, also)["ndcg"] == pytest.approx(np.mean([1 / math.log2(1 + rank) for rank in (4, 6)]))
    for broken in (np.nan, np.inf):
        vectors[5] = broken
        with pytest.raises(TrainError, match=r"diverged\. Give a lower --learning-rate"):
            measure(model, vectors, validation)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (Settings, {"epochs": 0}, "Epochs, batch and patience must be 1 or more"),
        (Settings, {"draws": -1}, "draws, seed and weight decay not negative"),
        (Settings, {"learning_rate": 0.0}, "The learning rate must be more than 0"),
        (Shape, {"ids": 3, "text_width": 0, "width": 130}, "multiple of 4 heads, got 130"),
        (Shape, {"ids": 3, "text_width": 0, "dropout": 1.0}, "dropout from 0 to less than 1"),
        (
            Shape,
            {"ids": 3, "text_width": 0, "blocks": "gru"},
            "Unknown blocks 'gru' of a user model, expected one of relative",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(kind, given, message):
    with pytest.raises(InputError, match=message):
        kind(**given)


def test_the_best_epoch_is_chosen_before_figures_are_rounded(monkeypatch):
    figures = iter([0.10001, 0.10003, 0.10002])
    monkeypatch.setattr("trsr.retrieval.training.measure", lambda *given: {"recall@10": 0.5, "ndcg": next(figures)})
    shape = Shape(12, 0, width=8, hidden=6, heads=2, longest=5)
    validation = Validation([np.array([0, 1])], np.array([2]))
    fitted = fit(sequences_of([0, 1, 2], [3, 4, 5]), 12, None, shape, Settings(epochs=3), validation)
    assert fitted.best["epoch"] == 2
    assert [entry["ndcg"] for entry in fitted.log] == [0.1] * 3
    assert all(entry["loss"] == round(entry["loss"], 4) for entry in fitted.log)


def test_slices_of_a_sampled_softmax_are_bounded_by_its_draws(monkeypatch):
    cells = []

    def counted(users, items, targets, drawn, *more):
        cells.append(len(users) * len(drawn))
        return sampled_softmax_loss(users, items, targets, drawn, *more)

    monkeypatch.setattr("trsr.retrieval.training.sampled_softmax_loss", counted)
    monkeypatch.setattr("trsr.retrieval.loss.CELLS", 700)
    shape = Shape(12, 0, width=8, hidden=6, heads=2, longest=5)
    validation = Validation([np.array([0, 1])], np.array([2]))
    settings = Settings(epochs=1, draws=300)  # of 12 items
    fit(sequences_of([0, 1, 2], [3, 4, 5]), 12, None, shape, settings, validation)
    assert max(cells) == 600


@given(st.integers(1, 7), st.integers(1, 9), st.integers(1, 12), st.integers(1, 40), st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_search_in_blocks_finds_what_sorting_all_does(users, items, k, cells, seed):
    random = np.random.default_rng(seed)
    # Few values, so that many are equal.
    left, right = (random.integers(-1, 2, (rows, 2)).astype(np.float32) for rows in (users, items))
    met = [random.choice(items, random.integers(0, items + 1), replace=False) for _ in range(users)]
    numbers, scores = top_k_items(left, right, k, met, cells=cells)
    for row in range(users):
        product = left[row] @ right.T
        order = sorted(set(range(items)) - set(met[row].tolist()), key=lambda item: (-product[item], item))[:k]
        assert numbers[row][numbers[row] >= 0].tolist() == order
        assert scores[row][: len(order)].tolist() == product[order].tolist()
        assert (numbers[row][len(order) :] == -1).all()
