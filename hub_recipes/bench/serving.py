"""Servers that tests start: a process of its own on a free port of the loopback, ready when it answers, ended with the test."""

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(
    words: Sequence[object], port: int, log: Path, patience: int = 180, **options
) -> Iterator[subprocess.Popen]:
    """The process that `words` start, with its output in `log`, once `port` answers.

    Args:
        patience: Seconds to wait for that.
        options: For `subprocess.Popen`.
    """
    with log.open("w") as into:
        server = subprocess.Popen([str(word) for word in words], stdout=into, stderr=into, **options)
    try:
        for _ in range(patience):
            assert server.poll() is None, log.read_text()[-3000:]
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(1)
        else:
            raise AssertionError(f"the server never answered: {log.read_text()[-3000:]}")
        yield server
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
