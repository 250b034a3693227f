"""The licence of a base, and which licence identifiers there are: the Hub refuses cards with one that it does not know.

Its list: https://huggingface.co/docs/hub/repositories-licenses
"""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

from trsr.assets.paths import base_path
from trsr.errors import HubError
from trsr.hub.retry import with_retries
from trsr.records.cards import header_of

LICENCES = frozenset(
    """
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0
    cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
    cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0
    cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2
    fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 grok2-community h-research intel-research isc lgpl
    lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by
    ofl-1.1 openmdw-1.0 openrail openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
    """.split()
)

# Those that let changed weights be passed on by anyone who keeps their notice, under a licence of one's own choice or the same.
FREE = frozenset(
    """
    afl-3.0 apache-2.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc-by-4.0 cc0-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 ecl-2.0 isc mit ncsa openmdw-1.0 pddl postgresql unlicense wtfpl zlib
    """.split()
)


def problem(licence: str, option: str, what: str) -> str | None:
    """A message for a licence that the Hub does not know, with the nearest ones; None if it knows the licence.

    Args:
        option: Command-line option that sets the licence.
        what: What the licence covers, such as `the weights`.
    """
    if licence in LICENCES:
        return None
    close = get_close_matches(str(licence).lower(), LICENCES, n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return (
        f"The licence {licence!r} of {what} is none that the Hub knows.{hint} Set {option} to one that it knows, or to "
        "other with a name: https://huggingface.co/docs/hub/repositories-licenses"
    )


def of_base(base: str) -> dict[str, str | None]:
    """Licence of a base, from its card: `license` and, for `other`, its name and link. Empty where it has no card.

    Raises:
        HubError: If the card is on the Hub, and out of reach.
        UsageError: If its header is no YAML.
    """
    source = base_path(base)

    def read() -> dict[str, Any]:
        try:
            path = Path(source) / "README.md" if Path(source).is_dir() else Path(hf_hub_download(source, "README.md"))
        except RemoteEntryNotFoundError:
            return {}
        return header_of(path) if path.is_file() else {}

    try:
        header = with_retries(f"Read the card of {source}", read)
    except LocalEntryNotFoundError:  # a kind of EntryNotFoundError, which tells nothing of the repo
        raise HubError(
            f"The card of the base {source} is out of reach, so its licence is not known. Run the command again where the Hub can "
            "be reached, or read the licence and give --license, and for merged weights --accept-base-licence."
        ) from None
    stated = header.get("license")
    names = stated if isinstance(stated, list) else [stated]  # the Hub takes a list too
    license = ", ".join(str(name) for name in names if name) or None
    return {"license": license, **{name: header.get(name) for name in ("license_name", "license_link")}}
