"""Servers that a benchmark or a test starts: a process of its own on a free port of the loopback, ended with the work."""

import http.client
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trsr.errors import UsageError


def free_port() -> int:
    """A port of the loopback that no process listens to now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(
    words: Sequence[object], port: int, log: Path, patience: int = 180, health: str | None = None, **options
) -> Iterator[subprocess.Popen]:
    """The process that `words` start, with its output in `log`, once it is ready.

    Args:
        log: File for its output; overwritten.
        port: That it listens to when it is ready.
        patience: Seconds to wait for that.
        health: Path that answers with 200 only once a model is loaded, where a server listens before.
        options: For `subprocess.Popen`.

    Raises:
        UsageError: If it ends before, or never answers; with the end of its output.
    """
    with log.open("w") as into:
        server = subprocess.Popen([str(word) for word in words], stdout=into, stderr=into, **options)
    try:
        for _ in range(patience):
            if server.poll() is not None:
                raise UsageError(f"{words[0]} ended with {server.returncode}: {log.read_text()[-3000:]}")
            if _answers(port, health):
                break
            time.sleep(1)
        else:
            raise UsageError(f"{words[0]} never answered on port {port}: {log.read_text()[-3000:]}")
        yield server
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@contextmanager
def llama_server(server: str, file: Path, log: Path, *flags: str) -> Iterator[tuple[str, int]]:
    """The URL and the process id of a llama-server that serves a GGUF file, a request at a time on one thread.

    Args:
        server: Its path.
        log: File for its output.
        flags: Further ones.

    Raises:
        UsageError: As `serving`.
    """
    port = free_port()
    words = [server, "-m", file, "--host", "127.0.0.1", "--port", port, "-c", 4096, "-np", 1, "-t", 1, *flags]
    with serving(words, port, log, health="/health") as process:
        yield f"http://127.0.0.1:{port}", process.pid


def llama_server_version(server: str) -> str:
    """What a llama-server says of itself.

    Raises:
        UsageError: If it cannot be run.
    """
    try:
        done = subprocess.run([server, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UsageError(
            f"{server} is no llama-server that runs here ({error}). Give the path of llama.cpp's."
        ) from None
    return (done.stdout + done.stderr).strip().splitlines()[0].removeprefix("version: ")


def _answers(port: int, health: str | None) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.connect()
        if health:
            connection.request("GET", health)
            return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
    return True
