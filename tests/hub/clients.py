"""The environment in which a process takes this Hub for the Hub."""

import os
from pathlib import Path

from tests.hub.server import WRITER, Hub


def environment(hub: Hub, home: Path | str, token: str | None = WRITER) -> dict[str, str]:
    """The whole environment of a subprocess whose clients take `hub` for the Hub and keep their caches in `home`."""
    theirs = ("HF_", "HUGGING", "TRANSFORMERS_")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    ours |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "DISABLE_SAFETENSORS_CONVERSION": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    return ours | ({"HF_TOKEN": token} if token else {})
