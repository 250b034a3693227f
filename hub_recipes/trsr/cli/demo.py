"""Serve the page of the Space on this machine: over the recommender in the package, or over a release.

Each step of the page is also a call of gradio_client and, with gradio[mcp], a tool of an MCP server.

examples:
  trsr demo
  trsr demo trsr-quickstart/release --port 7861
"""

import argparse
from pathlib import Path


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "release", nargs="?", type=Path, help="release folder; its code is run (what is in the package)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="(%(default)s)")


def run(options: argparse.Namespace) -> None:
    from trsr.demo import demo

    demo(options.release, server_name=options.host, server_port=options.port)
