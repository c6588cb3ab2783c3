from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from spotrelay.instance.logbook import Logbook
from spotrelay.instance.programs import NOT_FOUND, NOT_RUNNABLE, Programs
from tests.instance.machine import eventually, write_program

WILD = ["$(touch pwned)", "`touch pwned`", "it's", 'a "quote"', "two\nlines", "", " ", "*", "-rf", "ü€", "a;b|c&d"]


def run(code: str, folder: Path, *arguments: str, **variables: str) -> tuple[int, Logbook]:
    logbook = Logbook()
    status = Programs(logbook).run([sys.executable, "-c", code, *arguments], {**os.environ, **variables}, folder)
    return status, logbook


def test_every_argument_and_variable_arrives_exactly(tmp_path: Path) -> None:
    code = "import json, os, sys; open('told', 'w').write(json.dumps([sys.argv[1:], os.environ['WILD']]))"

    status, _ = run(code, tmp_path, *WILD, WILD="".join(WILD))

    assert status == 0
    assert json.loads((tmp_path / "told").read_text()) == [WILD, "".join(WILD)]
    assert [path.name for path in tmp_path.iterdir() if path.name == "pwned"] == []


def test_output_and_errors_go_into_the_log_in_their_order(tmp_path: Path) -> None:
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr, flush=True); print('end')"

    _, logbook = run(code, tmp_path)

    assert logbook.take(everything=True) == b"out\nerr\nend\n"


def test_the_status_tells_exits_and_signals_apart(tmp_path: Path) -> None:
    assert run("raise SystemExit(3)", tmp_path)[0] == 3
    assert run("import os; os.kill(os.getpid(), 9)", tmp_path)[0] == -9


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    logbook = Logbook()

    assert Programs(logbook).run(["no-such-program"], os.environ, tmp_path) == NOT_FOUND

    assert "no-such-program" in logbook.tail()


def test_a_file_that_is_no_program_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    logbook = Logbook()

    assert Programs(logbook).run(["./data"], os.environ, tmp_path) == NOT_RUNNABLE

    assert "Permission denied" in logbook.tail()


def test_the_path_of_the_programs_own_environment_counts(tmp_path: Path) -> None:
    write_program(tmp_path / "bin" / "train", "#!/bin/sh\nexit 5\n")

    assert Programs(Logbook()).run(["train"], {"PATH": str(tmp_path / "bin")}, tmp_path) == 5


def test_the_program_stays_in_our_process_group(tmp_path: Path) -> None:
    run("import os; open('group', 'w').write(str(os.getpgrp()))", tmp_path)

    assert int((tmp_path / "group").read_text()) == os.getpgrp()


def test_a_request_to_stop_reaches_the_running_program(tmp_path: Path) -> None:
    programs = Programs(Logbook())
    code = (
        "import pathlib, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "pathlib.Path('ready').touch()\n"
        "signal.pause()\n"
    )
    result: list[int] = []
    thread = threading.Thread(
        target=lambda: result.append(programs.run([sys.executable, "-c", code], os.environ, tmp_path))
    )
    thread.start()
    eventually((tmp_path / "ready").exists, "the program was there")

    programs.stop()

    thread.join(20)
    assert result == [75]


def test_a_program_that_starts_after_the_request_is_stopped_too(tmp_path: Path) -> None:
    programs = Programs(Logbook())
    programs.stop()

    assert programs.run(["sleep", "60"], os.environ, tmp_path) == -15


def test_a_child_that_keeps_the_output_open_does_not_hold_the_end_back(tmp_path: Path) -> None:
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '30']); print(p.pid)"
    logbook = Logbook()
    programs = Programs(logbook, last_words_s=0.2)

    status = programs.run([sys.executable, "-c", code], os.environ, tmp_path)

    os.kill(int(logbook.take(everything=True)), 9)
    assert status == 0
