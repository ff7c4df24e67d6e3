"""`moola annotate` on a real store, asked over real HTTP: kills, a second process, Ctrl-C, Finish."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from harness import Store
from small_sessions import serving

from moola_mlflow.labels import read_event_labels


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_finish_ends_the_run_with_the_labels_file(store: Store) -> None:
    with serving(store) as served:
        window = served.client.window()
        window = served.client.decide(window, ("retracement", 30, 41)).body
        served.client.decide(window)
        body = served.client.ask("/api/finish", {}).body
        said = served.end()
    assert served.process.returncode == 0, said
    assert (body["looked_at"], body["kept"]) == (2, 1)
    (run,) = store.runs()
    assert (run.info.status, run.data.tags["moola.stage"]) == ("FINISHED", "annotate")
    labels = read_event_labels(store.artifact(run, "mine.parquet"))
    assert labels.counts() == {"retracement": 1, "none": 1}
    assert served.client.token not in said.split("Open ")[0]


def test_a_session_with_decisions_whose_file_cannot_be_written_keeps_its_run_and_its_journal(store: Store) -> None:
    with serving(store) as served:
        (store.folder / "mine.parquet").mkdir()  # by somebody else, while the page is open
        served.client.decide(served.client.window(), ("retracement", 30, 41))
        served.client.ask("/api/finish", {})
        said = served.end()
    assert served.process.returncode != 0, said
    (run,) = store.runs()
    assert run.info.status == "FAILED"
    assert len((store.folder / "mine.decisions.jsonl").read_text().splitlines()) >= 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_run_well(store: Store, number: signal.Signals) -> None:
    with serving(store) as served:
        served.client.decide(served.client.window(), ("retracement", 30, 41))
        served.process.send_signal(number)
        said = served.end()
    assert served.process.returncode == 0, said
    assert [run.info.status for run in store.runs()] == ["FINISHED"]
    assert len(read_event_labels(store.folder / "mine.parquet")) == 1


def test_a_kill_loses_nothing_but_the_window_on_the_screen(store: Store) -> None:
    ids = []
    for _ in range(3):
        with serving(store) as served:
            for _ in range(4):
                window = served.client.window()
                ids.append(window["window_id"])
                assert served.client.decide(window, ("consolidation", 10, 20)).status == 200
            shown = served.client.window()
            served.process.kill()
    with serving(store) as served:
        again = served.client.window()
        assert (again["window_id"], again["number"]) == (shown["window_id"], 13)
        assert served.client.decide(shown).status == 200  # its ticket still counts
        served.client.ask("/api/finish", {})
        served.end()
    assert len(set(ids)) == 12
    labels = read_event_labels(store.folder / "mine.parquet")
    assert set(labels.window_id) == {*ids, shown["window_id"]}
    assert labels.num_events == 12


def test_a_second_process_on_the_file_is_refused(store: Store) -> None:
    with serving(store):
        done = store.run("annotate", {"bars.sample_bars": "12000", "port": "0", "labels": "mine.parquet"})
        assert done.returncode == 2
        assert "another moola annotate adds to this file" in done.stderr


def test_two_clients_decide_each_window_once(store: Store) -> None:
    with serving(store) as served:
        window, again = served.client.window(), served.client.window()
        assert window == again
        first, second = served.client.decide(window), served.client.decide(again, ("retracement", 3, 9))
        assert (first.status, second.status) == (200, 409)
        assert second.body["window"]["progress"]["looked_at"] == 1


def test_other_hosts_origins_and_tokens_are_refused(store: Store) -> None:
    with serving(store) as served:
        ask = served.client.ask
        assert ask("/api/window", headers={"Host": "evil.example"}).status == 403
        assert ask("/api/window", headers={"Origin": "http://evil.example"}).status == 403
        assert ask("/api/window", headers={"Authorization": "Bearer wrong"}).status == 401
        assert ask("/api/window", token=False).status == 401
        link = ask("/?token=" + served.client.token, token=False)
        assert link.status == 303
        cookie = link.headers["set-cookie"].split(";")[0]
        assert ask("/api/window", headers={"Cookie": cookie}, token=False).status == 200
        assert ask("/api/decision", raw=b"x" * 70_000).status == 413


@pytest.mark.slow
def test_the_launcher_serves_the_page_too(store: Store) -> None:
    mine = store.folder / "mine.parquet"  # the launcher runs commands in the project's folder
    with serving(store, launcher=True, labels=str(mine)) as served:
        served.client.decide(served.client.window(), ("retracement", 30, 41))
        served.client.ask("/api/finish", {})
        said = served.end()
    assert served.process.returncode == 0, said
    (run,) = store.runs()
    assert (run.info.status, run.data.tags["moola.stage"]) == ("FINISHED", "annotate")
    assert len(read_event_labels(mine)) == 1
