"""Names of the repos of a release, and the order in which they are pushed."""

import re
from collections.abc import Collection
from dataclasses import dataclass

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from trsr.errors import ReleaseError
from trsr.hub.spaces import METRICS

# Kind -> repo type, in the order of pushing: each repo pins the commits of earlier repos that it refers to.
COPIES = ("cross-encoder", "merged", "gguf")  # the same recommender for other engines, where it is wished
TYPES = {
    "base": "model",
    "dataset": "dataset",
    "adapter": "model",
    **dict.fromkeys(COPIES, "model"),
    "pipeline": "model",
    "space": "space",
    **dict.fromkeys(METRICS, "space"),
}
# Kinds of repos that belong to one release and get its tag. Base and metrics are shared by the releases of a namespace.
TAGGED = ("dataset", "adapter", *COPIES, "space", "pipeline")


@dataclass(frozen=True, slots=True)
class Names:
    """Repo ids of a release; in a release folder that stays on one machine, paths relative to the pipeline's.

    Attributes:
        base: ORG/trsr-nano where the nano base is published with the release, else the id that the recipe names.
        own: The kinds of repo that the release itself holds, in the order of `TYPES`.
    """

    base: str
    dataset: str
    adapter: str
    pipeline: str
    space: str
    own: tuple[str, ...]

    @property
    def local(self) -> bool:
        """Whether repos are folders beside one another, not on the Hub."""
        return self.pipeline.startswith(".")

    def repo(self, kind: str) -> str:
        """The repo id of a kind in `TYPES`."""
        if kind in COPIES:
            return f"../{kind}" if self.local else f"{self.pipeline}-{kind}"
        return f"{self.pipeline.split('/')[0]}/{kind}" if kind in METRICS else getattr(self, kind)


LOCAL = Names(
    "../base", "../dataset", "../adapter", "../pipeline", "../space", ("base", "dataset", "adapter", "pipeline")
)


def name_repos(
    namespace: str,
    name: str,
    *,
    base: str | None = None,
    new_base: str = "trsr-nano",
    dataset: str | None = None,
    copies: Collection[str] = (),
) -> Names:
    """The names of a release.

    Args:
        namespace: User or organisation.
        name: Of dataset, pipeline and Space; the adapter is NAME-lora, a copy NAME-merged.
        base: Id of a base on the Hub; None where the release brings its base along.
        new_base: Name of the repo for such a base.
        dataset: Id of a dataset on the Hub that is not published again.
        copies: Those of COPIES that the release holds.

    Raises:
        ReleaseError: If the Hub does not allow a name.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", namespace):
        raise ReleaseError(f"--namespace takes a user or organisation of the Hub, got {namespace!r}.")
    mine = f"{namespace}/{name}"
    left_out = {"base": base, "dataset": dataset, **{kind: kind not in copies for kind in COPIES}}
    own = tuple(kind for kind in TYPES if not left_out.get(kind))
    names = Names(base or f"{namespace}/{new_base}", dataset or mine, f"{mine}-lora", mine, mine, own)
    for kind in TYPES:
        try:
            validate_repo_id(names.repo(kind))
        except HFValidationError as error:
            raise ReleaseError(f"{names.repo(kind)!r} cannot be a repo id: {error} Choose another --name.") from None
    return names
