"""Summaries and recommendations on Ray: the same bytes as without, whoever is killed. Needs `llm-trsr[ray]`; skipped without it."""

import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests import tiny
from tests.scripted import ChatServer, ScriptedEngine, share
from tests.test_pipeline import recommender
from tests.test_summaries import PATHS, contents, dataset, lines
from trsr.cli import main
from trsr.core.answer import Answer
from trsr.dataset import contract
from trsr.errors import EngineError, RunError, UsageError
from trsr.retrieval import all_users
from trsr.retrieval.all_users import recommend_to_all
from trsr.retrieval.run import train_retriever
from trsr.retrieval.training import Settings
from trsr.summaries.engines.base import Sampling, Server
from trsr.summaries.engines.make import engine
from trsr.summaries.engines.vllm import OfflineEngine
from trsr.summaries.ray import deal, summarize_on_ray
from trsr.summaries.run import summarize_dataset
from trsr.summaries.store import UNCHECKED, Store

WORKERS = 2
# A machine that is busy starts processes slowly.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_worker_niceness": "0",
    "RAY_worker_register_timeout_seconds": "300",
}


@pytest.fixture(scope="module")
def ray():
    """One Ray for all tests of this file; its workers find `tests`."""
    module = pytest.importorskip("ray")
    os.environ |= ENVIRONMENT
    environment = {"env_vars": {"PYTHONPATH": PATHS, "HF_HUB_OFFLINE": "0"}}
    for tries_left in (3, 2, 1, 0):
        try:
            module.init(
                "local", num_cpus=WORKERS, include_dashboard=False, runtime_env=environment, logging_level="error"
            )
            break
        except Exception as error:
            # Ray gives its node 30 seconds to start, and no setting more.
            module.shutdown()
            if not tries_left or "timed out during startup" not in str(error):
                raise
    yield module
    module.shutdown()


@pytest.fixture
def source(tmp_path):
    return dataset(tmp_path / "source")


class Mortal(ScriptedEngine):
    """Kills its process, once in a run: before it answers what comes after `moment` requests of its own."""

    def __init__(self, moment: int, grave: Path, **options) -> None:
        super().__init__(**options)
        self._moment, self._grave = moment, grave

    async def answers(self, requests):
        if len(self.asked) == self._moment and not self._grave.exists():
            self._grave.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().answers(requests)


def both(source, folder, make, **options):
    """The same dataset without Ray and with it: the folders, and how many were asked twice."""
    summarize_dataset(source, folder / "plain" / "out", make(), **options)
    _, twice = summarize_on_ray(source, folder / "ray" / "out", make, workers=WORKERS, **options)
    return folder / "plain" / "out", folder / "ray" / "out", twice


def test_users_are_dealt_once_and_twins_meet(tmp_path):
    source = dataset(tmp_path / "source", users=90, length=lambda user: 9 + user % 30, seeds=30)
    splits = {split: contract.read(source, "histories", split) for split in contract.SPLITS}
    parts = deal(splits, 5, 5, 7)
    assert 1 < len(parts) <= 7
    users = [user for part in parts for user in part["user_id"].to_pylist()]
    assert len(users) == len(set(users)) == 90
    place = dict(zip(users, (p for part in parts for p in part["partition"].to_pylist()), strict=True))
    assert all(place[f"u{n}"] == place[f"u{n + 30}"] == place[f"u{n + 60}"] for n in range(30))
    assert [part.to_pydict() for part in deal(splits, 5, 5, 7)] == [part.to_pydict() for part in parts]


def test_a_server_is_asked_the_same_and_says_the_same(tmp_path, source, ray, monkeypatch):
    """Some answers are bad, some questions are rejected, and some requests fail for a moment."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    def fault(prompt, times):
        return 400 if share(prompt, 17) else 500 if share(prompt, 13) and not times else None

    def asked(way):
        with ChatServer(fault=fault) as server:
            make = partial(engine, "openai:org/model", None, Sampling(), Server(server.url, 6, backoff=0.01))
            way(make)
        return server

    plain, made = tmp_path / "plain" / "out", tmp_path / "ray" / "out"
    export = tmp_path / "ray" / "cache"
    one = asked(lambda make: summarize_dataset(source, plain, make()))
    many = asked(lambda make: summarize_on_ray(source, made, make, workers=WORKERS, export=export))
    assert contents(made) == contents(plain)
    assert many.answered() == one.answered()
    assert set(many.answered().values()) == {1}
    assert any(done == 400 for *_, done in one.log)
    assert many.most <= 6
    again = tmp_path / "again" / "out"
    none = asked(lambda make: summarize_on_ray(source, again, make, workers=WORKERS, caches=[str(export)]))
    assert not none.answered()
    assert not [one.problem for one in Store(again.with_name("out.store.sqlite")) if one.problem == UNCHECKED]


def test_a_killed_worker_loses_at_most_what_is_under_way(tmp_path, source, ray):
    killed_worker(tmp_path, source, random.Random(0).randrange(20, 60))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_workers_killed_at_any_moment(tmp_path, ray, seed):
    killed_worker(tmp_path, dataset(tmp_path / "source", 300), random.Random(seed).randrange(1, 600))


def killed_worker(folder, source, moment):
    log, grave = folder / "log", folder / "grave"
    plain = ScriptedEngine()
    summarize_dataset(source, folder / "plain" / "out", plain)
    make = partial(Mortal, moment, grave, workers=8, log=log)
    _, twice = summarize_on_ray(source, folder / "ray" / "out", make, workers=WORKERS)
    assert grave.exists()
    assert contents(folder / "ray" / "out") == contents(folder / "plain" / "out")
    asked = lines(log)
    assert set(asked) == {f"{key} {attempt}" for key, attempt in plain.asked}
    assert len(asked) - len(set(asked)) <= 8 // WORKERS + twice
    print(f"killed at {moment}: {len(set(asked))} requests, {len(asked) - len(set(asked))} again")


def test_an_engine_that_is_gone_ends_the_run_with_its_error(tmp_path, source, ray):
    make = partial(ScriptedEngine, gone)
    with pytest.raises(EngineError, match=r"gave no answer \d+ times in a row: unreachable"):
        summarize_on_ray(source, tmp_path / "out", make, workers=1)
    assert not (tmp_path / "out").exists()


def gone(prompt, seed):
    return Answer("", failure="unreachable")


def test_a_user_without_history(tmp_path, ray):
    source = dataset(tmp_path / "source", length=lambda user: user)
    with pytest.raises(ValueError, match="User 'u0' has no history"):
        summarize_on_ray(source, tmp_path / "out", ScriptedEngine, workers=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_model_in_each_worker(tmp_path, chat_tokenizer, ray):
    source = dataset(tmp_path / "source", users=12)
    network = tiny.model("llama")
    network.save_pretrained(tmp_path / "model")
    chat_tokenizer.save_pretrained(tmp_path / "model")
    make = partial(engine, f"transformers:{tmp_path / 'model'}", None, Sampling(max_new_tokens=6))
    plain, made, _ = both(source, tmp_path, make, keep_going=True)
    assert contents(made) == contents(plain)


DRIVER = """
import sys
from functools import partial
from pathlib import Path
from tests.test_pipeline import recommender
from tests.scripted import ScriptedEngine
from trsr.summaries.ray import summarize_on_ray
if __name__ == "__main__":
    source, out, log = sys.argv[1:]
    summarize_on_ray(source, Path(out), partial(ScriptedEngine, workers=8, log=Path(log)), workers=2)
"""


@pytest.mark.slow
def test_a_killed_driver_goes_on(tmp_path):
    pytest.importorskip("ray")
    source, out, log = dataset(tmp_path / "source", 300), tmp_path / "ray" / "out", tmp_path / "log"
    plain = ScriptedEngine()
    summarize_dataset(source, tmp_path / "plain" / "out", plain)
    line = len(f"{plain.asked[0][0]} 0\n")
    moments = sorted(random.Random(0).sample(range(50, len(plain.asked) - 200), 2))
    for moment in (*moments, None):
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, source, str(out), str(log)],
            env=os.environ | ENVIRONMENT | {"PYTHONPATH": PATHS},
        )
        while moment and driver.poll() is None and (not log.exists() or log.stat().st_size < moment * line):
            time.sleep(0.001)
        if moment:
            driver.kill()
        assert driver.wait() == (-signal.SIGKILL if moment else 0)
        assert moment is None or not out.exists()
    assert contents(out) == contents(tmp_path / "plain" / "out")
    asked = lines(log)
    again = len(asked) - len(set(asked))
    assert set(asked) == {f"{key} {attempt}" for key, attempt in plain.asked}
    # Its workers outlive a driver by a moment, in which what they ask is kept as well.
    assert again <= 8 * len(moments)
    assert len(Store(out.with_name("out.store.sqlite"))) == len(set(asked))
    print(f"driver killed at {moments}: {len(set(asked))} requests, {again} again")


def test_without_ray_the_message_is_the_install_line(capsys, tmp_path, monkeypatch, small_dataset):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit) as end:
        main(["summarize", str(small_dataset), "--out", str(tmp_path / "out"), "--ray"])
    assert end.value.code == 2
    assert "pip install 'llm-trsr[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_answers_from_elsewhere_have_no_workers(tmp_path, source):
    make = partial(OfflineEngine, "org/model", None, Sampling(), tmp_path / "questions.parquet")
    with pytest.raises(ValueError, match="come from elsewhere"):
        summarize_on_ray(source, tmp_path / "out", make)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "2"], "go with --ray"),
        (["--ray", "--since", "before"], "leave out one of --since and --ray"),
        (["--ray", "--workers", "0"], "must be more than 0, got 0"),
    ],
)
def test_options_that_do_not_fit(capsys, tmp_path, small_dataset, options, message):
    with pytest.raises(SystemExit) as end:
        main(["summarize", str(small_dataset), "--out", str(tmp_path / "out"), *options])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_the_verb_and_an_engine_that_costs_nothing_and_leaves_no_store(capsys, tmp_path, small_dataset, ray):
    for name, more in (("plain", []), ("ray", ["--ray", "--workers", "2", "--partitions", "3"])):
        main(["summarize", str(small_dataset), "--out", str(tmp_path / name / "out"), *more])
    assert '"asked_twice": 0' in capsys.readouterr().out
    assert contents(tmp_path / "ray" / "out") == contents(tmp_path / "plain" / "out")
    assert [path.name for path in (tmp_path / "ray").iterdir()] == ["out"]


# Recommendations: 20 users in shards of 6.


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    """A dataset of 20 users, and a retriever on it."""
    folder = tmp_path_factory.mktemp("books")
    data = str(tiny.dataset(folder / "books"))
    train_retriever(data, folder / "retriever", settings=Settings(epochs=1, batch=4))
    return data, folder / "retriever"


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(all_users, "SHARD", 6)


def random_model(source, seed=0):
    return recommender(tiny.model("llama", seed=seed))


def mortal(driver, grave, source):
    """A model that kills the first process that loads it, the driver apart."""
    if os.getpid() != driver and not grave.exists():
        grave.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return random_model(source)


def another_on_workers(driver, source):
    return random_model(source, seed=int(os.getpid() != driver))


def shards(folder):
    return {path.name: path.read_bytes() for path in (folder / "recommendations").iterdir()}


@pytest.mark.parametrize("first_stage_only", [True, False])
def test_recommendations_are_the_same_bytes_and_go_on(books, tmp_path, ray, monkeypatch, first_stage_only):
    monkeypatch.setattr(all_users, "load_recommender", random_model)
    data, retriever = books
    options = {"retriever": retriever, "top_k": 3, "stage_one": 6, "first_stage_only": first_stage_only}
    recommend_to_all(data, tmp_path / "plain", **options)
    told = recommend_to_all(data, tmp_path / "ray", ray={"workers": WORKERS}, **options)
    assert (told["users"], told["new_users"]) == (20, 20)
    assert len(shards(tmp_path / "ray")) == 4
    assert shards(tmp_path / "ray") == shards(tmp_path / "plain")
    for name in ("provenance.json", "made_from.json"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    sorted((tmp_path / "ray" / "recommendations").iterdir())[1].unlink()
    assert recommend_to_all(data, tmp_path / "ray", ray={}, **options)["new_users"] == 6
    assert shards(tmp_path / "ray") == shards(tmp_path / "plain")


def test_a_worker_that_is_killed_makes_its_shard_again(books, tmp_path, ray, monkeypatch):
    data, retriever = books
    options = {"retriever": retriever, "top_k": 3, "stage_one": 6}
    monkeypatch.setattr(all_users, "load_recommender", partial(mortal, os.getpid(), tmp_path / "grave"))
    recommend_to_all(data, tmp_path / "ray", ray={"workers": WORKERS}, **options)
    assert (tmp_path / "grave").exists()
    recommend_to_all(data, tmp_path / "plain", **options)
    assert shards(tmp_path / "ray") == shards(tmp_path / "plain")


def test_a_worker_with_another_model_or_a_user_it_cannot_recommend_to(books, tmp_path, ray, monkeypatch):
    data, retriever = books
    monkeypatch.setattr(all_users, "load_recommender", partial(another_on_workers, os.getpid()))
    with pytest.raises(RunError, match="A worker has the model sha256:"):
        recommend_to_all(data, tmp_path / "another", retriever=retriever, ray={"workers": 1})
    monkeypatch.setattr(all_users, "_rows", lambda *_: [{"user_id": "u", "history": ["gone"], "target": "i0"}])
    with pytest.raises(RunError, match="User 'u': the catalogue has no item 'gone'"):
        recommend_to_all(data, tmp_path / "gone", retriever=retriever, first_stage_only=True, ray={"workers": 1})


def test_recommendations_without_ray_are_refused_with_the_install_line(books, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'llm-trsr\[ray\]'"):
        recommend_to_all(books[0], tmp_path / "recs", retriever=books[1], first_stage_only=True, ray={})
    for words, message in (
        (["--all-users", "--workers", "2"], "go with --ray"),
        (["--push-to-hub", "ORG/x"], "--dataset, --out, --push-to-hub go with --all-users"),
    ):
        with pytest.raises(SystemExit):
            main(["recommend", *words, "--dataset", "d", "--out", str(tmp_path / "x")])
        assert message in capsys.readouterr().err
