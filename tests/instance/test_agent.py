"""The whole agent over in-memory ports, with real child processes."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from spotrelay.core.errors import Missing
from spotrelay.core.live import EXIT_DRAINED, EXIT_FENCED, ExitReport
from spotrelay.core.run import Attempt, AttemptState, Run
from spotrelay.core.spec import Spec
from spotrelay.instance.metadata import Metadata
from spotrelay.testing.faults import Fault, Script, faulty
from tests.instance.attempts import INSTANCE, RUN, Bench, MemorySecrets, a_run, a_spec, packed, store_checkpoint
from tests.instance.machine import eventually, write_program
from tests.instance.metadata_server import FakeMetadata


@pytest.fixture
def bench(tmp_path: Path, metadata: FakeMetadata) -> Bench:
    return Bench(tmp_path / "work", Metadata(metadata.address))


def python(code: str, *arguments: str, **rest: object) -> Spec:
    return a_spec(sys.executable, "-c", code, *arguments, **rest)


def the_report(bench: Bench) -> ExitReport:
    (report,) = bench.store.load(RUN).reports
    return report


def halted(halts: Path) -> list[str]:
    return halts.read_text().splitlines() if halts.exists() else []


def test_a_program_that_finishes_is_reported_its_log_shipped_and_the_machine_ended(bench: Bench, halts: Path) -> None:
    bench.submit(a_run(python("print('hello from training')")))

    bench.agent().run()

    assert (the_report(bench).code, the_report(bench).stage) == (0, "program")
    assert "hello from training" in bench.log()
    assert "hello from training" in the_report(bench).tail
    assert halted(halts) == ["-h now"]
    assert [d["what"] for d in bench.publisher.of("Attempt Reported")] == ["boot", "exited"]


@pytest.mark.parametrize("code", [1, 137, EXIT_FENCED])
def test_a_program_that_fails_is_reported_with_its_status_and_the_tail_of_its_log(
    code: int, bench: Bench, halts: Path
) -> None:
    bench.submit(a_run(python("import sys; print('it broke', file=sys.stderr); sys.exit(int(sys.argv[1]))", str(code))))

    bench.agent().run()

    assert (the_report(bench).code, the_report(bench).stage) == (code, "program")
    assert "it broke" in the_report(bench).tail
    assert halted(halts) == ["-h now"]


def test_code_setup_secrets_and_command_meet(bench: Bench) -> None:
    body, digest = packed(
        {"train.py": "import json, os, sys\njson.dump([sys.argv[1:], dict(os.environ)], open('o','w'))\n"}
    )
    bench.objects.put(f"code/{digest}.tar.gz", body)
    bench.secrets = MemorySecrets({"ssm:/key": "it's $(secret)"})
    wild = ["a'b", '"$(touch pwned)"', "two\nlines"]
    bench.submit(
        a_run(
            a_spec(
                sys.executable, "train.py", *wild,
                code_key=f"code/{digest}.tar.gz", code_digest=digest,
                env={"LR": "1e-3 $(touch pwned)"}, secrets={"KEY": "ssm:/key"},
                setup=(("sh", "-c", "echo set up >setup-was-here"), ("test", "-e", "setup-was-here")),
            )
        )
    )  # fmt: skip

    bench.agent().run()

    assert the_report(bench).code == 0, bench.log()
    arguments, environment = json.loads((bench.work / "code" / "o").read_text())
    assert arguments == wild
    assert environment["LR"] == "1e-3 $(touch pwned)"
    assert environment["KEY"] == "it's $(secret)"
    assert environment["SPOTRELAY_CACHE"] == str(bench.work / "cache")
    assert not list(bench.work.rglob("pwned"))
    for text in ("it's $(secret)", "1e-3", "two\nlines"):
        assert text not in bench.log(), "values are never logged"


def test_a_pinned_image_is_pulled_and_run_with_the_command_and_the_variables(bench: Bench, tmp_path: Path) -> None:
    docker = '#!/bin/sh\nprintf "%s|" "$@" >>"$NOTES"\nprintf "LR=%s\\n" "$LR" >>"$NOTES"\n'
    write_program(tmp_path / "bin" / "docker", docker)
    notes = tmp_path / "notes"
    bench.environ = {"PATH": f"{tmp_path / 'bin'}:{bench.environ['PATH']}", "NOTES": str(notes)}
    image = "registry.example.com/train@sha256:" + "a" * 64
    bench.submit(a_run(a_spec("train", "it's $(here)", image=image, env={"LR": "0.1"})))

    bench.agent().run()

    assert the_report(bench).code == 0
    pulled, inspected, ran = notes.read_text().splitlines()
    assert pulled == f"pull|{image}|LR=0.1"
    assert inspected.startswith("image|inspect|")
    assert ran.startswith("run|--rm|") and ran.endswith(f"|{image}|train|it's $(here)|LR=0.1")


@pytest.mark.parametrize(
    ("spec", "word", "code"),
    [
        (a_spec("true", code_key="code/x.tar.gz", code_digest="0" * 64), "code/x.tar.gz", 1),
        (a_spec("true", secrets={"KEY": "ssm:/none"}), "ssm:/none", 1),
        (a_spec("true", setup=(("sh", "-c", "echo no wheel; exit 7"),)), "setup step 1 of 1", 7),
        (a_spec("true", setup=(("no-such-tool",),)), "no-such-tool", 127),
    ],
    ids=["code missing", "secret missing", "setup fails", "setup tool missing"],
)
def test_a_boot_that_fails_is_reported_with_its_reason(
    spec: Spec, word: str, code: int, bench: Bench, halts: Path
) -> None:
    bench.submit(a_run(spec))

    bench.agent().run()

    assert (the_report(bench).stage, the_report(bench).code) == ("boot", code)
    assert word in the_report(bench).tail
    assert word in bench.log()
    assert halted(halts) == ["-h now"]


def test_code_with_another_digest_is_a_boot_failure(bench: Bench) -> None:
    body, _ = packed({"train.py": ""})
    bench.objects.put("code/x.tar.gz", body)
    bench.submit(a_run(a_spec("true", code_key="code/x.tar.gz", code_digest="0" * 64)))

    bench.agent().run()

    assert the_report(bench).stage == "boot"
    assert "SHA-256" in the_report(bench).tail


def test_a_full_disk_is_a_boot_failure_that_names_the_place(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/var/tmp/code/train.py")

    monkeypatch.setattr("spotrelay.instance.preparation.fetch_bundle", full)
    bench.submit(a_run(a_spec("true", code_key="code/x.tar.gz", code_digest="0" * 64)))

    bench.agent().run()

    assert "No space left on device: /var/tmp/code/train.py" in the_report(bench).tail


@pytest.mark.parametrize(
    "run",
    [
        a_run(a_spec(), attempts=(Attempt(1, AttemptState.BOOTING, "i-0bbbbbbbbbbbbbbbb"),)),
        a_run(a_spec(), attempts=(Attempt(1, AttemptState.ENDED, INSTANCE),)),
    ],
    ids=["another machine's", "ended"],
)
def test_a_machine_that_may_not_start_says_nothing_about_the_attempt_and_ends(
    run: Run, bench: Bench, halts: Path
) -> None:
    bench.submit(run)

    bench.agent().run()

    loaded = bench.store.load(RUN)
    assert (loaded.reports, loaded.heartbeats) == ((), ())
    assert bench.publisher.events == []
    assert "does nothing" in bench.log()
    assert halted(halts) == ["-h now"]


def test_a_fenced_machine_does_not_start_its_program(bench: Bench, halts: Path, tmp_path: Path) -> None:
    bench.submit(a_run(a_spec("touch", str(tmp_path / "ran"))))
    bench.store.fence(RUN, 2)

    bench.agent().run()

    assert not (tmp_path / "ran").exists()
    assert halted(halts) == ["-h now"]


def test_a_run_that_nobody_knows_ends_the_machine(bench: Bench, halts: Path) -> None:
    bench.agent().run()

    assert halted(halts) == ["-h now"]


def test_a_table_that_is_not_there_is_told_in_the_log(bench: Bench, halts: Path) -> None:
    class Gone:
        def read_run(self, _: str) -> None:
            raise Missing("table spotrelay is not there")

        def report(self, _: ExitReport) -> None:
            raise Missing("table spotrelay is not there")

    bench.live = Gone()

    bench.agent().run()

    assert "table spotrelay is not there" in bench.log()
    assert halted(halts) == ["-h now"]


def test_a_table_that_fails_for_a_while_is_waited_for(bench: Bench) -> None:
    bench.submit(a_run(a_spec("true")))
    bench.live = faulty(bench.store, Script({"read_run": [Fault.UNAVAILABLE] * 4, "report": [Fault.LOST_REPLY] * 2}))

    bench.agent().run()

    assert the_report(bench).code == 0


def test_the_program_trains_on_while_heartbeats_and_log_are_refused(bench: Bench) -> None:
    bench.submit(a_run(a_spec("true")))
    bench.live = faulty(bench.store, Script({"beat": [Fault.UNAVAILABLE] * 10000}))

    bench.agent().run()

    assert the_report(bench).code == 0


def test_the_newest_checkpoint_is_in_the_cache_before_the_program_needs_it(bench: Bench) -> None:
    wait = (
        "import os, pathlib, time\n"
        "cache, until = pathlib.Path(os.environ['SPOTRELAY_CACHE']), time.monotonic() + 20\n"
        "while not list(cache.glob('*.safetensors')): assert time.monotonic() < until; time.sleep(0.01)\n"
    )
    bench.submit(a_run(python(wait)))
    checkpoint = store_checkpoint(bench.objects, 1, (b"weights",))
    bench.store.take_lease(RUN, 1, INSTANCE)
    bench.store.commit(checkpoint.commit, INSTANCE)
    assert checkpoint.verdict is not None
    bench.store.record_verdict(RUN, checkpoint.verdict)

    bench.agent().run()

    assert the_report(bench).code == 0


@pytest.fixture
def in_background() -> Callable[[Bench], threading.Thread]:
    def start(bench: Bench) -> threading.Thread:
        thread = threading.Thread(target=bench.agent().run, daemon=True)
        thread.start()
        return thread

    return start


def test_a_drained_program_is_reported_and_the_machine_left_to_ec2(
    bench: Bench, halts: Path, in_background: Callable[[Bench], threading.Thread]
) -> None:
    bench.time_scale = 0.05
    bench.submit(a_run(python(f"raise SystemExit({EXIT_DRAINED})")))
    agent = in_background(bench)
    eventually(lambda: "waiting for EC2" in bench.log(), "the agent idled")

    assert the_report(bench).code == EXIT_DRAINED
    assert halted(halts) == []

    bench.programs.stop()  # as EC2's shutdown does
    agent.join(20)
    assert not agent.is_alive()


def test_a_machine_that_ec2_takes_is_not_ended_by_us_whatever_the_program_said(
    bench: Bench, halts: Path, metadata: FakeMetadata, in_background: Callable[[Bench], threading.Thread]
) -> None:
    metadata.announce_reclaim()
    bench.time_scale = 0.05
    bench.submit(a_run(python("raise SystemExit(1)")))
    agent = in_background(bench)

    eventually(lambda: "waiting for EC2" in bench.log(), "the agent idled")

    assert the_report(bench).code == 1
    assert halted(halts) == []
    bench.programs.stop()
    agent.join(20)


def test_a_drained_machine_that_ec2_forgets_does_not_bill_for_ever(bench: Bench, halts: Path) -> None:
    bench.submit(a_run(python(f"raise SystemExit({EXIT_DRAINED})")))

    bench.agent().run()

    assert "EC2 has not taken this machine" in bench.log()
    assert halted(halts) == ["-h now"]


def test_a_program_that_ends_with_its_machine_is_no_failure(
    bench: Bench, in_background: Callable[[Bench], threading.Thread], tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    bench.submit(
        a_run(python("import pathlib, signal, sys; pathlib.Path(sys.argv[1]).touch(); signal.pause()", str(ready)))
    )
    agent = in_background(bench)
    eventually(ready.exists, "the program ran")

    bench.programs.stop()

    agent.join(20)
    assert bench.store.load(RUN).reports == ()


def test_a_request_to_end_during_the_setup_starts_no_program(
    bench: Bench, in_background: Callable[[Bench], threading.Thread], tmp_path: Path
) -> None:
    ready, ran = tmp_path / "ready", tmp_path / "ran"
    setup = (("sh", "-c", 'touch "$1"; exec sleep 60', "sh", str(ready)),)
    bench.submit(a_run(a_spec("touch", str(ran), setup=setup)))
    agent = in_background(bench)
    eventually(ready.exists, "the setup ran")

    bench.programs.stop()

    agent.join(20)
    assert not ran.exists()
    assert bench.store.load(RUN).reports == ()


def leaving(status: int, generation: int = 1) -> str:
    """A program like torchrun's: whatever its processes meant to say, it ends with 1."""
    write = f"(pathlib.Path(os.environ['SPOTRELAY_STATE']) / 'left').write_text('{generation} {status}')"
    return f"import os, pathlib; {write}; raise SystemExit(1)"


def test_the_shims_own_word_counts_more_than_the_status_of_its_launcher(
    bench: Bench, halts: Path, in_background: Callable[[Bench], threading.Thread]
) -> None:
    bench.time_scale = 0.05
    bench.submit(a_run(python(leaving(EXIT_DRAINED))))
    agent = in_background(bench)
    eventually(lambda: "waiting for EC2" in bench.log(), "the agent idled")

    assert the_report(bench).code == EXIT_DRAINED
    assert "ended with status 75, which counts" in bench.log()

    bench.programs.stop()
    agent.join(20)


def test_the_word_of_another_attempt_counts_for_nothing(bench: Bench) -> None:
    bench.submit(a_run(python(leaving(EXIT_DRAINED, generation=7))))

    bench.agent().run()

    assert the_report(bench).code == 1


def test_the_machine_of_a_failed_attempt_stays_until_it_is_ended_where_the_spec_says_so(
    bench: Bench, halts: Path
) -> None:
    bench.submit(a_run(python("raise SystemExit('no data')", keep_failed_minutes=30)))
    agent = bench.agent()
    at_work = threading.Thread(target=agent.run)

    at_work.start()
    eventually(lambda: "this machine stays for 30 minutes" in bench.log(), "the machine stays")
    assert the_report(bench).code == 1, "the control plane knows already"
    assert halted(halts) == []
    agent._programs.stop()
    at_work.join(20)

    assert not at_work.is_alive()
    assert halted(halts) == ["-h now"]


def test_the_machine_of_an_attempt_that_finished_does_not_stay(bench: Bench, halts: Path) -> None:
    bench.submit(a_run(python("pass", keep_failed_minutes=30)))

    bench.agent().run()

    assert halted(halts) == ["-h now"]


def test_a_bad_host_is_reported_before_anything_of_the_run_is_set_up(bench: Bench, halts: Path) -> None:
    bench.submit(a_run(python("open('ran', 'w')", setup=(("touch", "set-up"),))))
    agent = bench.agent()
    agent._gpu_trouble = lambda: "GPU 1 has 3 uncorrected memory errors"

    agent.run()

    assert the_report(bench).stage == "host"
    assert the_report(bench).tail.rstrip().endswith("GPU 1 has 3 uncorrected memory errors")
    assert not (bench.work / "code" / "set-up").exists()
    assert halted(halts) == ["-h now"]


def test_the_spec_may_do_without_the_gpu_test(bench: Bench) -> None:
    bench.submit(a_run(python("pass", gpu_test=False)))
    agent = bench.agent()
    agent._gpu_trouble = lambda: "it was asked all the same"

    agent.run()

    assert the_report(bench).code == 0
