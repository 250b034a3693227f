"""The Hub itself: takes requests on the loopback, one at a time, logs them, and lets some fail."""

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from tests.hub import faults, files, repos
from tests.hub.call import Answer, Call, Refusal, Routes
from tests.hub.state import Repo, State, User

WRITER = "hf_test_writer"  # the token of the default user
ROUTES = Routes([*repos.routes, *files.routes])


@dataclass(frozen=True)
class Record:
    """One request of the log. `status` is the answer's, also if it was lost on the way; None: dropped."""

    number: int
    method: str
    path: str
    query: str
    status: int | None
    user: str | None
    faulted: bool


class Hub:
    """A Hub to use as `with Hub() as hub`.

    Attributes:
        url: What clients take as their endpoint.
        users: User by token.
        log: Every request since the last reset.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.reset()

    def __enter__(self) -> "Hub":
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.heal()
        self.fault(0, "drop", forever=True)  # or clients with an open connection would still be answered

    def reset(self) -> None:
        """Forget everything: state, log and faults; the default user is back, and alone."""
        with self._lock:
            self._state = State()
            self._faults: list[faults.Fault] = []
            self.log: list[Record] = []
            self.users = {WRITER: User("tester", "write", {"ORG": "write"})}

    @property
    def repos(self) -> dict[str, Repo]:
        """The live repos, by names such as "dataset ORG/name"; `repos[...].granted` are users let past a gate."""
        return self._state.repos

    def state(self) -> dict:
        """All that persists, as a plain dict to compare; uploads that no commit has named are not in it."""
        with self._lock:
            return self._state.export()

    def fault(self, at: int, kind: str, forever: bool = False) -> None:
        """Make request number `at`, or all from it on until `heal`, fail.

        Args:
            at: Counted from 0 since the last reset.
            kind: "drop" closes the connection before acting, "lost" after it; "forbidden" refuses writes with 403
                and lets reads pass; "expired" is a 401; "412", "429", "500" and "503" are answered without acting.
            forever: Where several apply, a fault for one request goes first, then the one that began last.
        """
        with self._lock:
            self._faults.append(faults.Fault(at, kind, forever))

    def heal(self) -> None:
        """Take all faults back."""
        with self._lock:
            self._faults.clear()

    def handle(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        """Act on a request and log it. None: its connection fails."""
        url = urlsplit(target)
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        with self._lock:
            user, number = self.users.get(token), len(self.log)
            call = Call(self.url, self._state, user, method, url.path, dict(parse_qsl(url.query)), headers, body)
            fault = faults.due(self._faults, number, call.writes)
            if fault == "drop":
                answer = None
            elif fault in faults.REFUSALS:
                answer = faults.REFUSALS[fault].answer
            elif token and user is None:
                answer = faults.REFUSALS["expired"].answer
            else:
                answer = _act(call)
            status, name = answer and answer.status, user and user.name
            self.log.append(Record(number, method, url.path, url.query, status, name, fault is not None))
        return None if fault in faults.OF_THE_CONNECTION else answer


def _act(call: Call) -> Answer:
    try:
        return ROUTES.answer(call)
    except Refusal as refusal:
        return refusal.answer
    except Exception as error:  # a bug of this server, as a 501: no client repeats that
        return Refusal(501, f"{type(error).__name__}: {error}").answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    hub: Hub

    def handle_error(self, request, client_address) -> None:
        """A client that went away is nothing to speak of."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # header and body leave apart
    server: _Server

    def _serve(self) -> None:
        # Read whole also where nothing is acted on, or the client would be stopped while it writes.
        asked = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.server.hub.handle(self.command, self.path, self.headers, asked)
        if answer is None:
            self.close_connection = True
            return
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response_only(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, re.sub(r"\s+", " ", value).encode("ascii", "replace").decode())
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve
