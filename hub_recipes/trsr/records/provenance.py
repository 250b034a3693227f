"""The record of how a dataset was made: `provenance.json`, whose keys only this module knows.

Does not read files: `trsr.dataset.contract.provenance` does. A missing value is an error that names it, never a default: a
wrong block size could leak the target into a summary.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from trsr.errors import DataError

PROVENANCE_FILE = "provenance.json"
SAMPLE_SCRIPT = "dataset_scripts/sample.py"
# Fields in which two datasets must agree for one to continue the summaries of the other.
_CONTINUED = ("model", "revision", "adapter", "sampling", "prompts", "block_size", "max_blocks")

_COUNTED = ("calls", "fallen_back", "fallen_back_by_method")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)


def _are_counts(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(_is_whole, value.values()))


# What a value is, where the file has one: its place, the name of its kind, and a test for it. A whole stands before its parts.
_KINDS: tuple[tuple[tuple[str, ...], str, Callable[[object], bool]], ...] = (
    *(
        ((name,), "a JSON object", lambda value: isinstance(value, Mapping))
        for name in ("dataset", "options", "sampling", "protocol", "counts", "summaries")
    ),
    *((("dataset", name), "a string", lambda value: isinstance(value, str)) for name in ("name", "license")),
    (("dataset", "share_text"), "true or false", lambda value: isinstance(value, bool)),
    (("counts",), "an object of whole numbers", _are_counts),
    (("protocol", "split"), "a string", lambda value: isinstance(value, str)),
    (("protocol", "dates"), "a list of strings", _are_texts),
    (
        ("protocol", "min_rating"),
        "a number",
        lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    ),
    (("protocol", "k_core"), "a whole number", _is_whole),
    *(
        (("options", name), "a whole number or null", lambda value: value is None or _is_whole(value))
        for name in ("field_words", "field_values")
    ),
    (("summaries", "methods"), "a list of strings", _are_texts),
    *((("summaries", name), "an object of whole numbers", _are_counts) for name in _COUNTED),
    (("summaries", "since"), "a JSON object", lambda value: isinstance(value, Mapping)),
    (("summaries", "since", "summaries"), "a JSON object", lambda value: isinstance(value, Mapping)),
    (
        ("summaries", "adapter"),
        "an object with a name and a revision",
        lambda value: isinstance(value, Mapping) and _are_texts([value.get("name"), value.get("revision")]),
    ),
    (("summaries", "prompts"), "an object or null", lambda value: value is None or isinstance(value, Mapping)),
    (("summaries", "limit"), "a whole number or null", lambda value: value is None or _is_whole(value)),
)


@dataclass(frozen=True, slots=True)
class Terms:
    """Name and terms of use of a dataset: the object `dataset` in `provenance.json`.

    Attributes:
        name: Short name: `mind`, `goodbooks`. Releases are named after it.
        license: Identifier that the Hub knows, such as `cc-by-sa-4.0`; `other` needs `license_name`.
        language: ISO 639 codes.
        share_text: Whether texts of the source may be published. If not, a release holds ids and summaries only.
    """

    name: str
    license: str = "other"
    license_name: str | None = None
    license_link: str | None = None
    language: tuple[str, ...] = ()
    share_text: bool = True

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Terms":
        """Build terms from the values in the file. Raises DataError for an unknown key."""
        try:
            languages = values.get("language", ())
            return cls(**{**values, "language": (languages,) if isinstance(languages, str) else tuple(languages)})
        except (TypeError, AttributeError) as error:
            raise DataError(f"{PROVENANCE_FILE}: `dataset` is not as expected: {error}") from None

    def to_dict(self) -> dict[str, object]:
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items() if v is not None}

    def header(self) -> dict[str, Any]:
        """The fields for the YAML header of a card."""
        return {name: v for name, v in self.to_dict().items() if name not in ("name", "share_text") and v}


@dataclass(frozen=True, slots=True)
class SummaryProvenance:
    """How the summaries of a dataset were made.

    Attributes:
        values: The object `summaries` in `provenance.json`.
        source: Folder or id of the dataset, for messages.
    """

    values: Mapping[str, Any]
    source: str = "DATASET"

    @property
    def engine(self) -> str:
        """`extractive`, `nano`, `transformers`, `openai` or `vllm`."""
        return self._required("engine")

    @property
    def model(self) -> str:
        """Name or Hub id of the language model."""
        return self._required("model")

    @property
    def revision(self) -> str | None:
        """Commit or checksum of the language model; None if it is not known, as behind a server."""
        return self._required("revision")

    @property
    def adapter(self) -> Mapping[str, str] | None:
        """`name` and `revision` (a checksum) of the adapter on the language model that summarised; None without one."""
        return self.values.get("adapter")

    @property
    def sampling(self) -> Mapping[str, Any]:
        """Sampling parameters of the language model."""
        return self._required("sampling")

    @property
    def calls(self) -> Mapping[str, int]:
        """Method -> number of requested summaries."""
        return self._required("calls")

    @property
    def methods(self) -> tuple[str, ...]:
        """`recurrent`, `hierarchical` or both; none for a dataset without summaries."""
        return tuple(self.values.get("methods", ()))

    @property
    def prompts(self) -> Mapping[str, Any]:
        """Prompt texts for the language model; empty for an engine without prompts."""
        return self.values.get("prompts") or {}

    @property
    def summarised(self) -> str | None:
        """Checksum of the histories and items that were summarised; None for a dataset without summaries."""
        return self.values.get("source")

    @property
    def continues_others(self) -> bool:
        """Whether they continue the summaries of another dataset."""
        return "since" in self.values

    @property
    def fallen_back(self) -> Mapping[str, int]:
        """Reason -> number of summaries that the extractive summarizer wrote in the engine's place.

        Those of the summaries that were continued are included, though some of them may have been replaced.
        """
        return self._with_continued("fallen_back")

    @property
    def fallen_back_by_method(self) -> Mapping[str, int]:
        """Method -> number of those summaries, at most all, without zeros."""
        counts, most = self._with_continued("fallen_back_by_method"), self.values.get("calls")
        if most is not None:
            counts = {method: min(count, most.get(method, 0)) for method, count in counts.items()}
        return {method: count for method, count in counts.items() if count}

    @property
    def limit(self) -> int:
        """Users of each split that were summarised, as a trial; 0 = all."""
        return self.values.get("limit") or 0

    @property
    def block_size(self) -> int:
        """Items per block."""
        return self._required("block_size", positive=True)

    @property
    def max_blocks(self) -> int:
        """Largest number of blocks of a history: the newest ones were summarised."""
        return self._required("max_blocks", positive=True)

    def known_block_sizes(self) -> dict[str, int]:
        """`block_size` and `max_blocks`, if the file has positive numbers for them."""
        sizes = {name: self.values.get(name) for name in ("block_size", "max_blocks")}
        return {name: size for name, size in sizes.items() if isinstance(size, int) and size > 0}

    def differences(self, wanted: Mapping[str, Any]) -> list[str]:
        """Differences between how these summaries were made and `wanted`, a later `values`; if any, they cannot be continued.

        A different engine for the same model does not count.
        """
        differ = [part for part in _CONTINUED if self.values.get(part) != wanted.get(part)]
        engines = {self.values.get("engine"), wanted.get("engine")}
        if "extractive" in engines and len(engines) > 1:
            differ.append("engine")
        shown = {"prompts": "prompts_sha256"}  # they are long
        names = [shown.get(part, part) for part in differ]
        return [f"{name} was {self.values.get(name)!r}, is {wanted.get(name)!r}" for name in names]

    def _with_continued(self, name: str) -> dict[str, int]:
        """Counts of these summaries, and of those that they continue, and so on."""
        counts = dict(self.values.get(name, {}))
        earlier = self.values.get("since", {}).get("summaries", {})
        if earlier:
            # Checked as any other provenance is.
            for key, count in Provenance({"summaries": earlier}, self.source).summaries._with_continued(name).items():
                counts[key] = counts.get(key, 0) + count
        return counts

    def _required(self, name: str, positive: bool = False) -> Any:
        value = self.values.get(name)
        if name not in self.values or (positive and not (isinstance(value, int) and value > 0)):
            raise DataError(
                f"{self.source} does not say the {name} of its summaries ({PROVENANCE_FILE}, under summaries): how they were made is "
                f"not known. Summarise it again: trsr summarize {self.source} --out DIR"
            )
        return value


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a dataset was made: the content of its `provenance.json`.

    Attributes:
        values: The JSON object; empty for a dataset without the file.
        source: Folder or id of the dataset, for messages.
        terms: Name and terms of use.

    Raises:
        DataError: If the file, or a part of it that should be, is not a JSON object; or a value that is read here is of
            another kind.
    """

    values: Mapping[str, Any]
    source: str = "DATASET"
    terms: Terms = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping):
            raise DataError(
                f"{PROVENANCE_FILE} of {self.source} holds {type(self.values).__name__}, not a JSON object."
            )
        for keys, kind, fits in _KINDS:
            part: Any = self.values
            for name in keys[:-1]:
                part = part.get(name, {})
            if isinstance(part, Mapping) and keys[-1] in part and not fits(part[keys[-1]]):
                raise DataError(
                    f"{PROVENANCE_FILE} of {self.source}: {'.'.join(keys)!r} is {part[keys[-1]]!r:.80}, not {kind}."
                )
        object.__setattr__(self, "terms", Terms.of({"name": "dataset", **self.values.get("dataset", {})}))

    def __bool__(self) -> bool:
        return bool(self.values)

    @property
    def name(self) -> str | None:
        """Name of the dataset; None if the file does not state it."""
        return self.values.get("dataset", {}).get("name")

    @property
    def script(self) -> str:
        """The script that built the dataset."""
        return self._required("script")

    @property
    def made_up(self) -> bool:
        """Whether users and items are made up by rules: the sample's script built them. A name says nothing about it."""
        return self.values.get("script") == SAMPLE_SCRIPT

    @property
    def seed(self) -> int:
        """Seed of the splits and the negatives."""
        return self._required("seed")

    @property
    def counts(self) -> Mapping[str, int]:
        """Numbers of rows read, left out and kept."""
        return self.values.get("counts", {})

    @property
    def item_text(self) -> dict[str, int]:
        """Limits of item texts, as options of `core.prompts.RankingPrompt`: `field_words`, `field_values`; 0 = none."""
        built = self.values.get("options", {})
        return {name: built.get(name) or 0 for name in ("field_words", "field_values")}

    @property
    def protocol_record(self) -> Mapping[str, Any]:
        """How the interactions became rows: `split` (`users`, the default, `leave-one-out`, `date`, `given` or `impressions`)
        and, where they were asked for, `dates`, `min_rating` and `k_core`."""
        return {"split": "users", **self.values.get("protocol", {})}

    @property
    def by_impressions(self) -> bool:
        """Whether a row is a click, with the items shown beside it as negatives."""
        return self.protocol_record["split"] == "impressions"

    @property
    def users_in_several_splits(self) -> bool:
        """Whether a user occurs in several splits, each time with other targets."""
        return self.protocol_record["split"] in ("impressions", "leave-one-out", "date")

    @property
    def protocol(self) -> str:
        """The candidates of a user, the splits and the filters in words, for cards and results."""
        if self.by_impressions:
            return "a clicked item and what was shown beside it and not clicked, a row a click"
        sampling, record = self.values.get("sampling", {}), self.protocol_record
        how = f" {sampling['sampling']}" if sampling.get("sampling") else ""
        parts = [f"1 positive and {sampling.get('negatives', 'the given')}{how} negatives a user"]
        if record["split"] == "leave-one-out":
            parts.append("leave-one-out in time")
        if record["split"] == "date":
            parts.append(f"split by date at {' and '.join(record.get('dates', ()))}")
        if record["split"] == "given":
            parts.append("splits as given")
        if "min_rating" in record:
            parts.append(f"ratings of {record['min_rating']:g} or more")
        if "k_core" in record:
            parts.append(f"{record['k_core']}-core")
        return ", ".join(parts)

    @property
    def has_summaries(self) -> bool:
        """Whether the file describes summaries."""
        return "summaries" in self.values

    @property
    def summaries(self) -> SummaryProvenance:
        """How the summaries were made."""
        return SummaryProvenance(self.values.get("summaries", {}), self.source)

    def with_terms(self, terms: Terms) -> "Provenance":
        """The same provenance with other terms."""
        return Provenance({**self.values, "dataset": terms.to_dict()}, self.source)

    def with_summaries(self, values: Mapping[str, Any]) -> "Provenance":
        """The same provenance with the description of new summaries."""
        return Provenance({**self.values, "summaries": dict(values)}, self.source)

    def _required(self, name: str) -> Any:
        if name not in self.values:
            raise DataError(
                f"{self.source} does not say its {name} ({PROVENANCE_FILE}). Build it again with dataset_scripts/."
            )
        return self.values[name]
