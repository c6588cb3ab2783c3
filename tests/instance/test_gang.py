"""The agent of one of a gang's machines: its rank, the meeting with the others, and what it hears of them."""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spotrelay.core.live import ENDING, EXIT_DRAINED, EXIT_PARTED, LEFT, ExitReport, Heartbeat, Phase
from spotrelay.core.run import Attempt, AttemptState, Member, Run
from spotrelay.core.spec import Spec
from spotrelay.instance.environment import LOWEST_PORT, PORTS, meeting_environment, meeting_port
from spotrelay.instance.identity import Identity
from spotrelay.instance.metadata import Metadata
from spotrelay.testing import MemoryPublisher, MemoryStore
from tests.instance.attempts import BORN, INSTANCE, RUN, Bench, a_run, a_spec, an_identity
from tests.instance.machine import eventually
from tests.instance.metadata_server import FakeMetadata
from trainer_shim.environment import Identity as Told
from trainer_shim.watcher import Watcher

OTHER = "i-0000000000000000f"
TELL = """
import json, os
names = ("MASTER_ADDR", "MASTER_PORT", "NNODES", "NODE_RANK", "PET_NNODES", "PET_NODE_RANK", "PET_MASTER_ADDR")
print(json.dumps({name: os.environ[name] for name in names}))
"""


@pytest.fixture
def bench(tmp_path: Path, metadata: FakeMetadata) -> Bench:
    metadata.paths["local-ipv4"] = "10.0.0.2"
    return Bench(tmp_path / "work", Metadata(metadata.address))


def gang(*command: str, **rest: object) -> Spec:
    return a_spec(sys.executable, "-c", *command, nodes=2, **rest)


def a_gang(spec: Spec, *machines: str, **rest: object) -> Run:
    attempt = Attempt(1, AttemptState.BOOTING, machines[0], members=tuple(Member(each, BORN) for each in machines))
    return replace(a_run(spec), attempts=(replace(attempt, **rest),))  # type: ignore[arg-type]


def peer(bench: Bench, phase: Phase, node: int = 0, address: str = "10.0.0.1") -> None:
    bench.store.beat(Heartbeat(RUN, 1, 1, phase, node=node, address=address))


def changed(bench: Bench, **changes: object) -> None:
    """The run's row says something else about the attempt."""
    run = bench.store.load(RUN)
    attempts = (replace(run.attempts[0], **changes), *run.attempts[1:])  # type: ignore[arg-type]
    bench.store.save(run, replace(run, attempts=attempts))


class Looks:
    """A store that counts how often the run's row was read."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.count = 0

    def read_run(self, run_id: str) -> Run:
        self.count += 1
        return self._store.read_run(run_id)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def running(bench: Bench) -> tuple[threading.Thread, list[Identity | None]]:
    """The agent, beside the test; what it returned."""
    serves: list[Identity | None] = []
    thread = threading.Thread(target=lambda: serves.append(bench.agent().run()), daemon=True)
    thread.start()
    return thread, serves


def report_of(bench: Bench, node: int) -> ExitReport:
    return next(r for r in bench.store.load(RUN).reports if r.node == node)


def test_a_machine_finds_its_rank_in_the_row_and_the_first_ones_address_in_its_heartbeat(bench: Bench) -> None:
    bench.submit(a_gang(gang(TELL), OTHER, INSTANCE))
    peer(bench, Phase.WAITING)

    bench.agent().run()

    report = report_of(bench, 1)
    told = json.loads(next(line for line in report.tail.splitlines() if line.startswith("{")))
    assert report.code == 0
    assert told == {
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": str(meeting_port(RUN, 1)),
        "NNODES": "2",
        "NODE_RANK": "1",
        "PET_NNODES": "2",
        "PET_NODE_RANK": "1",
        "PET_MASTER_ADDR": "10.0.0.1",
    }
    beat = bench.store.load(RUN).heartbeat(1, node=1)
    assert beat is not None and beat.address == "10.0.0.2"


def test_its_log_stands_beside_the_first_machines(bench: Bench) -> None:
    bench.submit(a_gang(gang("print('from the second')"), OTHER, INSTANCE))
    peer(bench, Phase.WAITING)

    bench.agent().run()

    names = {stored.key.rpartition("/")[2] for stored in bench.objects.list_versions(f"runs/{RUN}/logs/")}
    assert "000001-001.log" in names
    assert "from the second" in bench.log()


def test_until_the_row_names_the_machines_nothing_begins(bench: Bench) -> None:
    bench.submit(replace(a_run(gang("print('it ran')"), instance_id=None)))
    thread, _ = running(bench)
    assert bench.store.load(RUN).heartbeats == ()

    changed(bench, instance_id=INSTANCE, members=(Member(INSTANCE, BORN), Member(OTHER, BORN)))
    peer(bench, Phase.WAITING, node=1)

    thread.join(20)
    assert report_of(bench, 0).code == 0


def test_a_machine_that_the_row_does_not_name_says_nothing_and_ends(bench: Bench, halts: Path) -> None:
    bench.submit(a_gang(gang("print('it ran')"), OTHER, "i-0000000000000000e"))

    bench.agent().run()

    assert bench.store.load(RUN).reports == ()
    assert halts.read_text().splitlines() == ["-h now"]


def test_no_program_starts_before_every_machine_is_prepared(bench: Bench) -> None:
    bench.submit(a_gang(gang("print('it ran')"), INSTANCE, OTHER))
    peer(bench, Phase.SETUP, node=1)
    bench.live = looks = Looks(bench.store)
    thread, _ = running(bench)

    def waits() -> bool:
        beat = bench.store.load(RUN).heartbeat(1)
        return beat is not None and beat.phase is Phase.WAITING

    eventually(waits, "the machine is prepared")
    seen = looks.count
    eventually(lambda: looks.count > seen + 3, "it looked again, and again")
    assert "starting" not in bench.logbook.tail()

    peer(bench, Phase.WAITING, node=1)

    thread.join(20)
    assert report_of(bench, 0).code == 0


def test_a_notice_for_another_machine_before_the_start_drains_without_starting(bench: Bench) -> None:
    bench.submit(a_gang(gang("print('it ran')"), INSTANCE, OTHER))
    peer(bench, Phase.SETUP, node=1)
    thread, _ = running(bench)
    eventually(lambda: bench.store.load(RUN).heartbeat(1) is not None, "the machine beats")

    changed(bench, state=AttemptState.DRAINING)
    eventually(lambda: bool(bench.store.load(RUN).reports), "the report")
    bench.programs.stop()
    thread.join(20)

    assert report_of(bench, 0).code == EXIT_DRAINED
    assert "it ran" not in bench.log()


def test_a_notice_for_another_machine_reaches_the_program_through_its_state_folder(bench: Bench) -> None:
    word = str(bench.work / "state" / ENDING)
    started = bench.work / "code" / "started"
    wait = f"import os, time\nopen('started', 'w')\nwhile not os.path.exists({word!r}): time.sleep(0.01)"
    bench.submit(a_gang(gang(wait), INSTANCE, OTHER))
    peer(bench, Phase.WAITING, node=1)
    thread, _ = running(bench)
    eventually(started.exists, "the program runs")

    changed(bench, state=AttemptState.DRAINING)

    thread.join(20)
    assert report_of(bench, 0).code == 0
    generation, deadline, why = (bench.work / "state" / ENDING).read_text().split(" ", 2)
    assert generation == "1"
    assert float(deadline) <= time.monotonic() + bench.time_scale * 120
    assert "another" not in why and "machine of this gang" in why


def watcher(state: Path, generation: int = 1, nodes: int = 2) -> Watcher:
    told = Told(RUN, generation, INSTANCE, "t", "b", "bus", "r", state=state, metadata=None, nodes=nodes)
    return Watcher(told, MemoryPublisher())


def test_the_shim_takes_the_agents_word_for_a_notice(tmp_path: Path) -> None:
    (tmp_path / ENDING).write_text(f"1 {time.monotonic() + 60!r} EC2 takes a machine of this gang\n")
    listens = watcher(tmp_path)

    listens.heed()

    assert listens.ending is not None
    assert 50 < listens.ending.deadline - time.monotonic() <= 60
    assert listens.ending.why == "EC2 takes a machine of this gang"


@pytest.mark.parametrize("words", ["2 12.0 of another attempt", "nonsense", "1 soon why", ""])
def test_the_shim_heeds_no_other_word(words: str, tmp_path: Path) -> None:
    (tmp_path / ENDING).write_text(words)
    listens = watcher(tmp_path)

    listens.heed()

    assert listens.ending is None


def test_a_survivor_whose_program_broke_goes_on_in_the_attempt_that_names_it(bench: Bench, halts: Path) -> None:
    bench.submit(a_gang(gang(f"raise SystemExit({EXIT_PARTED})", setup=((sys.executable, "-c", ""),)), INSTANCE, OTHER))
    peer(bench, Phase.WAITING, node=1)
    thread, serves = running(bench)
    eventually(lambda: bool(bench.store.load(RUN).reports), "the report")
    (bench.work / "state" / LEFT).write_text("1 77")
    run = bench.store.load(RUN)
    heir = Attempt(
        2, AttemptState.BOOTING, INSTANCE, members=(Member(INSTANCE, BORN), Member("i-0000000000000000d", BORN))
    )

    bench.store.save(run, replace(run, attempts=(*run.attempts, heir)))

    thread.join(20)
    (serving,) = serves
    assert serving is not None
    assert (serving.generation, serving.instance_id, serving.nodes) == (2, INSTANCE, 1)
    assert list((bench.work / "state").iterdir()) == []
    assert not halts.exists()


def test_a_machine_whose_program_finished_ends(bench: Bench, halts: Path) -> None:
    bench.submit(a_gang(gang("pass"), INSTANCE, OTHER))
    peer(bench, Phase.WAITING, node=1)

    assert bench.agent().run() is None
    assert halts.read_text().splitlines() == ["-h now"]


def test_a_survivor_of_a_run_that_is_over_ends(bench: Bench, halts: Path) -> None:
    bench.submit(a_gang(gang("raise SystemExit(1)"), INSTANCE, OTHER))
    peer(bench, Phase.WAITING, node=1)
    thread, serves = running(bench)
    eventually(lambda: bool(bench.store.load(RUN).reports), "the report")
    run = bench.store.load(RUN)

    bench.store.save(run, replace(run, outcome=run.status.CANCELLED))

    thread.join(20)
    assert serves == [None]
    assert halts.read_text().splitlines() == ["-h now"]


def test_a_program_that_hangs_in_a_broken_gang_is_ended(bench: Bench) -> None:
    bench.submit(a_gang(gang("import time; time.sleep(600)"), INSTANCE, OTHER))
    peer(bench, Phase.WAITING, node=1)
    thread, serves = running(bench)
    eventually(lambda: "starting" in bench.logbook.tail(), "the program")

    changed(bench, state=AttemptState.ENDED, ended_why="its machine is gone")
    eventually(lambda: bool(bench.store.load(RUN).reports), "the report")
    bench.programs.stop()
    thread.join(20)

    assert report_of(bench, 0).code == -15
    assert serves == [None]


def test_what_was_set_up_once_is_not_set_up_again_on_the_same_machine(bench: Bench, tmp_path: Path) -> None:
    count = f"open({str(tmp_path / 'count')!r}, 'a').write('x')"
    bench.submit(a_gang(gang("pass", setup=((sys.executable, "-c", count),)), INSTANCE, OTHER))
    peer(bench, Phase.WAITING, node=1)

    bench.agent().run()
    bench.agent().run()

    assert (tmp_path / "count").read_text() == "x"


def test_the_meeting_port_is_the_attempts_own_and_below_those_that_are_handed_out() -> None:
    ports = {meeting_port("run-1", generation) for generation in range(1, 200)}

    assert len(ports) > 190
    assert all(LOWEST_PORT <= port < LOWEST_PORT + PORTS <= 32_768 for port in ports)


def test_one_machine_is_told_nothing_of_gangs(tmp_path: Path) -> None:
    assert meeting_environment(an_identity(tmp_path), "") == {}
