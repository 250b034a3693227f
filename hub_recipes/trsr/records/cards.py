"""The header of a card, such as README.md of a repo or a folder."""

from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import metadata_load

from trsr.errors import UsageError


def header_of(card: Path) -> dict[str, Any]:
    """The YAML header of a card, empty if it has none. Raises UsageError if it is not valid YAML."""
    try:
        return metadata_load(card) or {}
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(
            f"The header of {card} is no YAML in UTF-8: {' '.join(str(error).split())}. Fix it."
        ) from error
