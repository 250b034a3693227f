"""Generate synthetic worlds: catalogues of text-rich items, and users whose whole history tells more than their last items.

A world has topics, makers who each work in one or two of them, and users with long-term interests that drift, a
favourite maker, and, for most, a short burst of something else at the end. The next item mostly returns to the
long-term interests, so the last five items alone often mislead. The seed determines everything.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

# Topic: words that its titles and descriptions draw on.
TOPICS = {
    "sea stories": "harbor tide lighthouse captain reef anchor storm island sailor whale lagoon compass",
    "mountain climbing": "summit glacier rope ridge avalanche basecamp valley peak blizzard sherpa cliff crevasse",
    "baking": "bread yeast oven pastry flour butter crust cinnamon dough muffin vanilla sugar",
    "detective fiction": "murder inspector alibi clue suspect witness evidence motive verdict corpse poison warrant",
    "space opera": "starship galaxy empire nebula android colony orbit admiral wormhole planet reactor fleet",
    "garden lore": "orchid soil greenhouse seedling compost tulip hedge pruning meadow rose herb trellis",
    "jazz history": "trumpet saxophone rhythm quartet ballad club swing improviser melody bassist chorus record",
    "medieval history": "knight castle monastery crusade plague abbey feudal baron siege cathedral heir parchment",
    "ghost tales": "haunting attic seance phantom manor whisper candle graveyard curse mirror shadow omen",
    "desert travel": "caravan dune oasis camel nomad mirage bazaar spice canyon sandstorm well horizon",
    "courtroom drama": "lawyer jury judge trial appeal testimony defendant bail prosecutor justice scandal oath",
    "chess lore": "gambit bishop endgame rook opening tournament grandmaster pawn opponent sacrifice checkmate clock",
    "wartime spies": "cipher agent embassy radio defector border passport informer sabotage bunker dossier traitor",
    "family sagas": "grandmother inheritance sister orchard wedding homestead letters cousin quarrel reunion secret farm",
    "robotics": "circuit sensor algorithm machine engineer prototype battery laboratory automation servo code gearbox",
    "bird watching": "heron falcon nest migration feather marsh binoculars warbler owl plumage estuary song",
    "dragon fantasy": "dragon wizard prophecy sword kingdom sorcerer rune throne quest amulet goblin tower",
    "city romance": "kiss bookshop rooftop heartbreak cafe proposal subway florist stranger dance summer apartment",
    "polar expeditions": "iceberg sled husky aurora penguin explorer frostbite icebreaker tundra seal camp winter",
    "circus life": "acrobat clown trapeze tent juggler elephant ringmaster parade magician tightrope carnival troupe",
    "astronomy": "telescope comet eclipse constellation meteor observatory astronomer crater supernova moon planetarium lens",
    "tea culture": "kettle teapot ceremony leaf porcelain harvest plantation infusion jasmine steam merchant bamboo",
    "railway journeys": "locomotive station carriage timetable tunnel conductor viaduct sleeper platform whistle signal express",
    "underwater science": "submarine coral diver octopus trench plankton sonar kelp shipwreck jellyfish abyss current",
    "village comedy": "vicar fete gossip parish cricket marrow postmistress pub committee rivalry bicycle jumble",
    "pirate adventure": "treasure cutlass galleon parrot mutiny buccaneer rum map cannon plunder smuggler doubloon",
    "beekeeping": "hive honey swarm queen nectar pollen apiary wax comb drone clover smoker",
    "opera stories": "soprano aria conductor tenor rehearsal libretto premiere diva costume overture balcony encore",
    "frontier westerns": "sheriff saloon rancher outlaw stagecoach prairie revolver cattle homesteader bounty gold rustler",
    "mythology": "goddess labyrinth oracle titan underworld chariot nymph temple hero serpent trident immortal",
    "startup business": "founder investor market pitch product growth startup strategy revenue customer partner brand",
    "yoga practice": "breath posture balance stretch meditation mat calm teacher spine morning retreat focus",
    "dinosaur science": "fossil raptor extinction jurassic skeleton dig amber herd paleontologist egg swamp predator",
    "horse stories": "stable gallop saddle pony jockey paddock mare bridle hay foal race trainer",
    "vampire horror": "vampire coffin blood crypt fang midnight castle bat hunter garlic moonlight tomb",
    "football": "goalkeeper penalty striker coach league stadium derby captain transfer referee cup season",
    "ancient rome": "senator legion gladiator forum emperor aqueduct toga colosseum consul province villa tribune",
    "photography": "camera portrait darkroom exposure shutter tripod negative gallery landscape filter contrast studio",
    "climate science": "carbon drought glacier forecast ocean emission forest atmosphere flood satellite solar reef",
    "cat stories": "kitten whisker alley purr basket mouse tabby curtain cushion neighbor collar window",
}
GENERIC = (
    "letter house night river door journey winter garden road stone light voice memory mystery friend city "
    "silence promise fire glass bridge echo dream field mother father child stranger lesson history story secret "
    "world heart paper key water wind flower star name hand room song color line book time year love life death "
    "truth war peace"
).split()
ADJECTIVES = (
    "silent golden broken hidden distant crooked gentle bitter last first burning frozen hollow secret wandering "
    "quiet crimson ancient modern simple restless forgotten curious patient brave lonely bright pale wild narrow "
    "endless small great little young old new true dark strange perfect classic short complete essential "
    "practical illustrated"
).split()
PEOPLE = (
    "widow teacher doctor apprentice student stranger twin exile collector mechanic poet orphan farmer painter "
    "journalist nurse gardener librarian cook soldier professor traveller musician carpenter"
).split()
VERBS = (
    "discovers protects loses follows repairs remembers betrays studies rescues steals explains inherits defends "
    "seeks hides explores trains describes builds confronts collects restores questions masters"
).split()
FIRST_NAMES = (
    "Mara Jonas Elena Pieter Amina Lucas Greta Hiro Sofia Omar Ingrid Mateo Nadia Felix Leila Arthur Yuki Clara "
    "Diego Freya Ivan Rosa Samuel Tessa Viktor Wanda Noel Priya Hugo Edith Basil Carmen Dmitri Esther Gideon "
    "Hazel Ismael Judith Kofi Lydia"
).split()
LAST_NAMES = (
    "Quill Hartwell Moreno Lindqvist Okafor Brandt Castellan Tanaka Whitlock Farouk Vance Delgado Petrov Ashby "
    "Rahimi Kovacs Ellery Nakamura Stone Dupont Marsh Novak Abara Sinclair Holm Ferreira Winslow Grant Iyer "
    "Baptiste Crane Olsen Pryce Romano Thorne Ueda Vogel Yates Zeller Larkin Mbeki Hale Drummond Fisk Garrick"
).split()
# Words of real catalogues, so that a tokenizer trained here does not split real shelf names into letters.
SHELVES = (
    "fantasy romance mystery thriller horror classics fiction nonfiction biography memoir poetry drama humor "
    "children young adult historical contemporary literary science philosophy religion psychology business travel "
    "cooking health art music sports crime suspense adventure paranormal dystopian vampires magic school graphic "
    "novel comics short stories series literature american british women self help politics economics technology "
    "nature animals parenting education reference spirituality feminism war urban chick lit true picture books "
    "middle grade realistic"
).split()
DOMAINS = (
    ("title", "author", "genre", "about"),
    ("title", "director", "category", "plot"),
    ("title", "brand", "category", "description"),
    ("title", "host", "topic", "about"),
    ("title", "studio", "genre", "description"),
    ("title", "authors", "genres", "shelves", "about"),
    ("category", "subcategory", "title", "abstract"),
)
TOPIC_FIELDS = frozenset({"genre", "category", "topic", "genres"})
MAKER_FIELDS = frozenset({"author", "authors", "director", "brand", "host", "studio"})
PROSE = frozenset({"about", "plot", "description", "abstract"})
_ONSETS = ("b br c ch d dr f fl g gr h j k l m n p pr qu r s sh st t th tr v w y z").split()
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "ei", "io", "ou"]
_CODAS = ("n r l s t m nd rt ck ll ss x th lin ver son man ley ton").split()


@dataclass(frozen=True, slots=True)
class WorldItem:
    """An item with its fields, topic and maker. `topic` indexes the world's topics, -1 when it has none."""

    item_id: str
    fields: dict[str, str]
    topic: int
    maker: int


@dataclass(frozen=True, slots=True)
class WorldUser:
    """A user's items, oldest first; the last one is the target."""

    user_id: str
    items: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class World:
    """A catalogue and its users, who index into `items`."""

    items: tuple[WorldItem, ...]
    users: tuple[WorldUser, ...] = field(repr=False)


def sample_world(seed: int = 0, items: int = 1500, users: int = 1500) -> World:
    """A world like the sample in the package: books whose topics are English words."""
    rng = random.Random(f"sample-{seed}")
    topics = {name: words.split() for name, words in TOPICS.items()}
    chosen = dict(rng.sample(sorted(topics.items()), 24))
    return _world(rng, chosen, DOMAINS[0], items, users, per_maker=6, invented=0.0)


def training_world(seed: int, users: int = 64, richness: float = 1.0) -> World:
    """A world for pretraining, of a random domain. One world of six has random topics, so that only matching helps.

    Args:
        richness: 0 to 1: at 0 items have a topic alone, at 1 all fields, mostly without running text.
    """
    rng = random.Random(f"training-{seed}")
    words = lexicon()
    topics: dict[str, list[str]] = {}
    count = rng.randint(10, 28)
    if rng.random() < 5 / 6:
        topics = {name: TOPICS[name].split() for name in rng.sample(sorted(TOPICS), count)}
    while len(topics) < count:
        kind = rng.random()
        if kind < 0.25:
            name = " ".join(rng.sample(SHELVES, rng.choice([1, 1, 2])))
        elif kind < 0.45:
            name = rng.choice(sorted(TOPICS))
        elif kind < 0.6:
            name = invented_name(rng)
        else:
            name = " ".join(rng.sample(words, rng.choice([1, 2, 2])))
        topics[name] = rng.sample(words, 12)
    domain: tuple[str, ...] = rng.choice(DOMAINS)
    if rng.random() < 0.85:
        domain = tuple(name for name in domain if name not in PROSE)
    if rng.random() >= richness:
        allowed = TOPIC_FIELDS if rng.random() >= richness else TOPIC_FIELDS | MAKER_FIELDS
        domain = tuple(name for name in domain if name in allowed)
    return _world(
        rng, topics, domain, 400, users, per_maker=rng.choice([3, 6, 10]), invented=rng.choice([0.0, 0.5, 1.0])
    )


@cache
def lexicon() -> list[str]:
    """All words of topics, titles and shelves."""
    return sorted({word for words in TOPICS.values() for word in words.split()} | set(GENERIC) | set(SHELVES))


def _world(
    rng: random.Random,
    topics: dict[str, list[str]],
    domain: Sequence[str],
    items: int,
    users: int,
    per_maker: int,
    invented: float,
) -> World:
    names = list(topics)
    makers = max(len(names), items // per_maker)
    maker_names = _distinct(rng, makers, invented)
    # Every topic has makers; some makers work in a second topic.
    homes = [
        (maker % len(names), rng.randrange(len(names)) if rng.random() < 0.3 else maker % len(names))
        for maker in range(makers)
    ]
    catalogue = []
    titles: set[str] = set()
    for number in range(items):
        maker = rng.randrange(makers)
        topic = rng.choice(homes[maker])
        item = _item(rng, f"i{number:05d}", names, topics, domain, topic, maker, maker_names[maker], titles)
        catalogue.append(item)
    by_topic: list[list[int]] = [[] for _ in names]
    by_maker: list[list[int]] = [[] for _ in range(makers)]
    for number, item in enumerate(catalogue):
        by_topic[item.topic].append(number)
        by_maker[item.maker].append(number)
    live = [topic for topic, members in enumerate(by_topic) if len(members) >= 8]
    people = tuple(_user(rng, f"u{number:05d}", live, by_topic, by_maker, catalogue) for number in range(users))
    return World(tuple(catalogue), people)


def _item(rng, item_id, names, topics, domain, topic, maker, maker_name, titles: set[str]) -> WorldItem:
    words = topics[names[topic]]
    while True:
        title = _title(rng, words)
        if title not in titles:
            break
        title += f" {rng.choice(['II', 'Again', 'Revisited', 'Tales', 'Stories', 'Reader'])}"
        if title not in titles:
            break
    titles.add(title)
    first, second, third = rng.sample(words, 3)
    about = rng.choice(
        (
            f"A {rng.choice(PEOPLE)} {rng.choice(VERBS)} a {rng.choice(ADJECTIVES)} {first} and a {second}.",
            f"The {rng.choice(ADJECTIVES)} {rng.choice(GENERIC)} of a {first}, a {second} and a {third}.",
            f"How a {rng.choice(PEOPLE)} {rng.choice(VERBS)} the {first} beside a {rng.choice(ADJECTIVES)} {second}.",
            f"On {first}, {second} and {third}: a {rng.choice(ADJECTIVES)} {rng.choice(GENERIC)}.",
        )
    )
    about = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", about)
    fields: dict[str, str] = {}
    for name in domain:
        if name == "title":
            fields[name] = title
        elif name in PROSE:
            fields[name] = about
        elif name in TOPIC_FIELDS - {"genres"}:
            fields[name] = names[topic]
        elif name == "subcategory":
            fields[name] = f"{first} {second}"
        elif name == "genres":
            fields[name] = ", ".join([names[topic], *rng.sample(SHELVES, rng.choice([0, 1, 2]))])
        elif name == "shelves":
            fields[name] = ", ".join(rng.sample(SHELVES, 2))
        else:
            fields[name] = maker_name
    return WorldItem(item_id, fields, topic, maker)


def _user(rng, user_id, live, by_topic, by_maker, catalogue) -> WorldUser:
    interests = rng.sample(live, 4)
    stable, drifted = interests[:3], interests[3]
    weights = [3, 2, 2]
    length = rng.randint(13, 26)
    burst = rng.randint(4, 6) if rng.random() < 0.7 else 0
    burst_topic = rng.choice([topic for topic in live if topic not in interests])
    favourite_maker = catalogue[rng.choice(by_topic[stable[0]])].maker
    drift_at = rng.uniform(0.3, 0.6) * length
    items: list[int] = []
    while len(items) < length:
        position = len(items)
        last = position == length - 1
        roll = rng.random()
        if burst and not last and position >= length - 1 - burst:
            pool = by_topic[burst_topic] if roll < 0.9 else by_topic[rng.choice(live)]
        elif roll < 0.05:
            pool = by_topic[rng.choice(live)]
        elif roll < 0.25:
            pool = by_maker[favourite_maker]
        else:
            early = position < drift_at
            current_topics = [drifted if early and topic == stable[2] else topic for topic in stable]
            pool = by_topic[rng.choices(current_topics, weights)[0]]
        fresh = [number for number in pool if number not in items]
        items.append(rng.choice(fresh or [n for n in range(len(catalogue)) if n not in items]))
    return WorldUser(user_id, tuple(items))


def _title(rng: random.Random, words: Sequence[str]) -> str:
    first, second = (word.capitalize() for word in rng.sample(list(words), 2))
    adjective, noun = rng.choice(ADJECTIVES).capitalize(), rng.choice(GENERIC).capitalize()
    title = rng.choice(
        (
            f"The {adjective} {first}",
            f"{first} and {second}",
            f"The {first} of {noun}",
            f"{adjective} {noun}, {adjective} {second}",
            f"A {first} for the {second}",
            f"{noun} of the {first}",
        )
    )
    return re.sub(r"\bA (?=[AEIOU])", "An ", title)


def invented_name(rng: random.Random) -> str:
    """A made-up word of one to three syllables."""
    syllables = rng.choice([1, 1, 2, 2])
    word = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables)) + rng.choice(_CODAS)
    return word.capitalize()


def _distinct(rng: random.Random, count: int, invented: float) -> list[str]:
    """Names of makers; a share of `invented` of them is made of random syllables."""
    names: dict[str, None] = {}
    while len(names) < count:
        if rng.random() < invented:
            names[f"{invented_name(rng)} {invented_name(rng)}"] = None
        else:
            names[f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"] = None
    return list(names)
