"""50 users at a time for a minute on the page's API, each asking again as soon as it is answered.

Prints what it measured (pytest -m slow -s tests/test_load.py). A quiet machine is assumed: figures of another are not kept.
"""

import json
import os
import re
import statistics
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from bench.serving import free_port, serving

client = pytest.importorskip("gradio_client")

ROOT = Path(__file__).parent.parent
USERS, SECONDS = 50, 60
# A busy page answers late: the client's own limit, 5 seconds for each request, is made for idle ones.
PATIENCE = 120


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Address and process id of the page, served by a process of its own."""
    port = free_port()
    words = [sys.executable, "-m", "trsr", "demo", "--port", port]
    given = {**os.environ, "PYTHONPATH": str(ROOT / "hub_recipes"), "OMP_NUM_THREADS": "1"}
    with serving(words, port, tmp_path_factory.mktemp("page") / "log", env=given) as server:
        yield f"http://127.0.0.1:{port}", server.pid


@contextmanager
def over_http(url, words):
    with httpx.Client(base_url=url, timeout=PATIENCE) as session:

        def ask():
            event = session.post("/gradio_api/call/rank", json={"data": words}).raise_for_status().json()["event_id"]
            answer = session.get(f"/gradio_api/call/rank/{event}").raise_for_status().text
            kind, data = re.search(r"event: (complete|error)\ndata: (.*)", answer).groups()
            assert kind == "complete", answer
            return json.loads(data)[0]

        yield ask


@contextmanager
def over_gradio_client(url, words):
    api = client.Client(url, verbose=False, httpx_kwargs={"timeout": PATIENCE})
    yield lambda: api.predict(*words, api_name="/rank")


def resident(process):
    """Mebibytes of memory that a process holds."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())[1]) / 1024


@pytest.mark.slow
@pytest.mark.parametrize("way", [over_http, over_gradio_client])
def test_fifty_users_for_a_minute(page, way):
    url, process = page
    api = client.Client(url, verbose=False, httpx_kwargs={"timeout": PATIENCE})
    user = api.predict(api.predict(api_name="/sample_users")[0], api_name="/sample_user")
    words = ["\n".join(user["history"]), "\n".join(user["candidates"]), "", "recurrent"]
    with way(url, words) as ask:
        expected = [one["text"] for one in ask()["candidates"]]
    before, seconds, errors = resident(process), [], []
    stop = time.monotonic() + SECONDS

    def visit():
        try:
            with way(url, words) as ask:
                while time.monotonic() < stop:
                    began = time.monotonic()
                    assert [one["text"] for one in ask()["candidates"]] == expected
                    seconds.append(time.monotonic() - began)
        except Exception as error:
            errors.append(repr(error))

    visitors = [threading.Thread(target=visit) for _ in range(USERS)]
    for one in visitors:
        one.start()
    for one in visitors:
        one.join()
    after = resident(process)
    p50, p95 = statistics.median(seconds), statistics.quantiles(seconds, n=20)[-1]
    print(
        f"\n{way.__name__}: {len(seconds)} answers to {USERS} users in {SECONDS} s, p50 {p50:.2f} s, p95 {p95:.2f} s, "
        f"{len(errors)} errors, {before:.0f} -> {after:.0f} MiB"
    )
    assert not errors, errors[:3]
    assert after < 1.25 * before
