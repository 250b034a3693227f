from trsr.core.history import Item, sentence
from trsr.core.prompts import RankingPrompt
from trsr.pretrain.nano.games import game
from trsr.pretrain.nano.worlds import sample_world, training_world


def test_a_world_follows_from_its_seed():
    assert sample_world(3, 200, 20) == sample_world(3, 200, 20)
    assert sample_world(3, 200, 20) != sample_world(4, 200, 20)
    assert training_world(3) == training_world(3)


def test_titles_are_distinct_and_users_choose_an_item_once():
    world = sample_world(0, 600, 100)
    titles = [item.fields["title"] for item in world.items]
    assert len(set(titles)) == len(titles)
    for user in world.users:
        assert len(set(user.items)) == len(user.items)
        assert 13 <= len(user.items) <= 26


def test_the_last_five_items_often_mislead_but_the_history_tells():
    world = sample_world()
    hidden = 0
    for user in world.users:
        topics = [world.items[number].topic for number in user.items]
        hidden += topics[-1] not in topics[-6:-1] and topics[-1] in topics[:-6]
    assert hidden / len(world.users) > 0.4


def test_training_worlds_are_other_worlds():
    shipped = {sentence(item.fields) for item in sample_world().items}
    for seed in range(30):
        assert not {sentence(item.fields) for item in training_world(seed).items} & shipped


def test_poor_worlds_show_topics_alone():
    assert all(len(item.fields) == 1 for item in training_world(5, richness=0.0).items)


def test_a_game_has_one_right_answer():
    for seed in range(200):
        summary, recent, chosen, others = game(seed, seed / 200, 4)
        shown = RankingPrompt(recent_items=10).prefix(summary, recent)
        assert len(others) == 4
        assert isinstance(chosen, Item)
        topic = {part.split(": ", 1)[1] for part in chosen.text.split("; ") if not part.startswith("title")}
        assert all(one in shown for one in topic)
