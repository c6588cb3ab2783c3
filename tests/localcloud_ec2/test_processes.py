"""Instances are processes of this machine: they really run their user data, and nothing of them is ever left."""

from __future__ import annotations

import base64
import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from spotrelay.localcloud.ec2.process_table import MARK
from spotrelay.localcloud.ec2.standalone import Standalone
from tests.localcloud_ec2 import kit


def alive(pid: int) -> bool:
    """Whether the process table shows it as more than a corpse."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def run(cloud: Standalone, script: str | bytes, **data: Any) -> str:
    """Launch a machine with this user data."""
    kit.template(cloud, script, **data)
    return kit.launch(cloud)


def test_user_data_runs_in_a_folder_of_its_own_with_a_clean_environment(
    cloud: Standalone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST_SECRET", "never to be seen")
    cloud.world.environment = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    say = 'echo "$PWD|$HOME|$(readlink -f "$TMPDIR")|$(command -v shutdown)|$(command -v python)|"'
    script = f"#!/bin/bash\n{say}; env; echo 'done'\n"

    instance = run(cloud, script)
    console = kit.says(cloud, instance, "done")

    home = tmp_path / "instances" / instance
    folders = f"{home}/root|{home}/root|{home}/tmp|{home}/bin/shutdown|{Path(sys.executable).parent}/python|"
    assert folders in console
    assert "HOST_SECRET" not in console
    assert f"{MARK}={instance}" in console
    assert "AWS_ENDPOINT_URL=http://127.0.0.1:1" in console
    assert f"AWS_EC2_METADATA_SERVICE_ENDPOINT={kit.seen(cloud, instance)['metadata_endpoint']}" in console


def test_sockets_fit_into_the_machines_temporary_folder(cloud: Standalone, tmp_path: Path) -> None:
    lines = (
        f"#!{sys.executable}",
        "from multiprocessing.connection import Listener",
        "Listener(family='AF_UNIX')",
        "print('bound')",
    )
    assert len(str(tmp_path)) > 50

    instance = run(cloud, "\n".join(lines))

    kit.says(cloud, instance, "bound")


def test_the_shebang_decides_who_runs_the_user_data(cloud: Standalone) -> None:
    instance = run(cloud, f"#!{sys.executable}\nprint('from', 'python')\n")

    kit.says(cloud, instance, "from python")


def test_gzipped_user_data_runs_as_cloud_init_runs_it(cloud: Standalone) -> None:
    instance = run(cloud, gzip.compress(b"#!/bin/sh\necho unpacked\n"))

    kit.says(cloud, instance, "unpacked")


def test_user_data_that_was_encoded_twice_runs_nothing_and_the_console_says_so(cloud: Standalone) -> None:
    instance = run(cloud, base64.b64encode(b"#!/bin/sh\necho never\n"))

    console = kit.says(cloud, instance, "does not begin with #!")

    assert "never" not in console


def test_user_data_of_run_instances_is_decoded_once(cloud: Standalone, ec2: Any) -> None:
    made = ec2.run_instances(
        MinCount=1, MaxCount=1, ImageId="ami-1", InstanceType="g5.xlarge", UserData="#!/bin/sh\necho once\n"
    )

    kit.says(cloud, made["Instances"][0]["InstanceId"], "once")


def test_a_machine_goes_on_when_its_user_data_has_ended(cloud: Standalone) -> None:
    instance = run(cloud, "#!/bin/sh\nexit 7\n")

    kit.says(cloud, instance, "ended 7")

    assert kit.state(cloud, instance) == "running"


def test_nothing_survives_termination_however_it_hides(cloud: Standalone, ec2: Any, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    sleep = f"sh -c 'echo $$ >>{pids}; exec sleep 600'"
    hiding = "\n".join(
        [
            "#!/bin/bash",
            f"{sleep} &",
            f"setsid {sleep} &",
            f"(setsid {sleep} &)",
            f"(env -i PATH=$PATH setsid {sleep} &)",
            f"(env -i PATH=$PATH setsid sh -c \"trap '' TERM HUP INT; {sleep} & exec sleep 601\" &)",
            "wait",
        ]
    )
    instance = run(cloud, hiding)
    kit.eventually(lambda: pids.exists() and len(pids.read_text().split()) == 5, "all are hidden")
    hidden = [int(pid) for pid in pids.read_text().split()]
    assert set(hidden) <= set(kit.seen(cloud, instance)["alive_processes"])

    ec2.terminate_instances(InstanceIds=[instance])
    kit.terminated(cloud, instance)

    assert [pid for pid in hidden if alive(pid)] == []
    assert kit.seen(cloud, instance)["alive_processes"] == []


def test_a_stopped_group_is_terminated_like_any_other(cloud: Standalone, ec2: Any) -> None:
    instance = run(cloud, "#!/bin/bash\nsleep 600 &\nsleep 600\n")
    kit.eventually(lambda: len(kit.seen(cloud, instance)["alive_processes"]) == 3, "all are there")
    processes = kit.running(cloud, instance)
    cloud.ec2.stop_group(instance)

    ec2.terminate_instances(InstanceIds=[instance])
    kit.terminated(cloud, instance)

    assert [pid for pid in processes if alive(pid)] == []


def test_a_stopped_group_does_nothing_until_it_is_woken(cloud: Standalone, tmp_path: Path) -> None:
    beats = tmp_path / "beats"
    instance = run(cloud, f"#!/bin/bash\nwhile true; do echo >>{beats}; sleep 0.01; done\n")
    kit.eventually(lambda: beats.exists() and beats.stat().st_size > 3, "it beats")

    cloud.ec2.stop_group(instance)
    size = beats.stat().st_size
    states = {Path(f"/proc/{p}/stat").read_text().rsplit(")", 1)[1].split()[0] for p in kit.running(cloud, instance)}
    assert states == {"T"}
    assert beats.stat().st_size == size
    cloud.ec2.continue_group(instance)

    kit.eventually(lambda: beats.stat().st_size > size, "it beats again")


@pytest.mark.parametrize("command", ["shutdown -h now", "shutdown now", "poweroff", "systemctl poweroff", "init 0"])
def test_a_machine_can_end_itself(cloud: Standalone, command: str) -> None:
    instance = run(cloud, f"#!/bin/bash\n{command}\nsleep 600\n", InstanceInitiatedShutdownBehavior="terminate")

    kit.terminated(cloud, instance)

    told = kit.seen(cloud, instance)
    assert (told["StateReason"], told["alive_processes"]) == ("Client.InstanceInitiatedShutdown", [])


def test_the_switch_works_without_an_environment(cloud: Standalone) -> None:
    instance = run(cloud, '#!/bin/bash\nswitch=$(command -v shutdown)\nenv -i "$switch" -h now\nsleep 600\n')

    kit.terminated(cloud, instance)


def test_processes_may_tidy_up_when_the_machine_shuts_down(cloud: Standalone, tmp_path: Path) -> None:
    left = tmp_path / "left"
    instance = run(cloud, f"#!/bin/bash\ntrap 'echo tidy >{left}; exit' TERM\nshutdown -h now\nsleep 600 & wait\n")

    kit.terminated(cloud, instance)

    assert left.read_text() == "tidy\n"


def test_an_on_demand_machine_that_shuts_down_stops_where_the_template_says_so(cloud: Standalone, ec2: Any) -> None:
    kit.template(cloud, "#!/bin/sh\nshutdown -h now\nsleep 600\n", InstanceInitiatedShutdownBehavior="stop")
    made = ec2.run_instances(MinCount=1, MaxCount=1, LaunchTemplate={"LaunchTemplateId": kit.TEMPLATE})
    instance = made["Instances"][0]["InstanceId"]

    kit.eventually(lambda: kit.state(cloud, instance) == "stopped", "it stops")

    assert kit.seen(cloud, instance)["alive_processes"] == []
    ec2.terminate_instances(InstanceIds=[instance])
    kit.terminated(cloud, instance)


@pytest.mark.parametrize(
    "command", ["shutdown -r now", "reboot", "systemctl reboot", "systemctl restart sshd", "init 6"]
)
def test_what_the_switch_does_not_know_is_refused_and_changes_nothing(cloud: Standalone, command: str) -> None:
    instance = run(cloud, f"#!/bin/bash\n{command} || echo refused\nsleep 600\n")

    kit.says(cloud, instance, "refused")

    assert kit.state(cloud, instance) == "running"


def test_the_hosts_own_switches_are_out_of_reach_by_name(cloud: Standalone, tmp_path: Path) -> None:
    names = "shutdown poweroff halt reboot systemctl init telinit"
    instance = run(cloud, f"#!/bin/bash\nfor name in {names}; do command -v $name; done; echo all\n")

    console = kit.says(cloud, instance, "all")

    found = [line for line in console.splitlines() if line.startswith("/")]
    assert len(found) == len(names.split())
    assert all(line.startswith(str(tmp_path / "instances")) for line in found)


def test_no_process_of_a_machine_can_gain_the_rights_to_switch_off_the_host(cloud: Standalone) -> None:
    instance = run(cloud, "#!/bin/bash\nenv -i setsid cat /proc/self/status\necho all\n")

    console = kit.says(cloud, instance, "all")

    status = dict(line.split(":\t", 1) for line in console.splitlines() if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    assert os.getuid() != 0 or not int(status["CapBnd"], 16) >> 22 & 1


def test_a_machine_whose_supervisor_is_killed_from_within_is_lost_hardware(cloud: Standalone, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    hide = f"(setsid sh -c 'echo $$ >{pid}; exec sleep 600' &)"
    instance = run(cloud, f"#!/bin/bash\n{hide}\nuntil [ -s {pid} ]; do sleep 0.01; done\nkill -9 $PPID\nsleep 600\n")

    kit.terminated(cloud, instance)

    assert kit.seen(cloud, instance)["StateReason"] == "Server.InternalError"
    assert not alive(int(pid.read_text()))


def test_a_machines_disk_ends_with_it_and_its_console_stays(cloud: Standalone, ec2: Any) -> None:
    instance = run(cloud, "#!/bin/sh\necho words; echo data >file\n")
    kit.says(cloud, instance, "words")

    ec2.terminate_instances(InstanceIds=[instance])
    kit.terminated(cloud, instance)

    assert not Path(kit.seen(cloud, instance)["home"], "root").exists()
    assert "words" in cloud.ec2.console(instance)


def test_closing_the_cloud_leaves_no_process(tmp_path: Path) -> None:
    with Standalone(tmp_path / "short", time_scale=0.01) as cloud:
        instances = [run(cloud, "#!/bin/bash\n(setsid env -i sleep 600 &)\nsleep 600\n") for _ in range(3)]
        pids = [pid for instance in instances for pid in kit.running(cloud, instance)]
        cloud.ec2.zombify(instances[0])

    assert [pid for pid in pids if alive(pid)] == []


def test_closing_does_not_wait_for_a_machine_that_shuts_down_slowly(tmp_path: Path) -> None:
    with Standalone(tmp_path / "slow", time_scale=1.0) as cloud:
        instance = run(cloud, "#!/bin/bash\ntrap '' TERM\nshutdown -h now\nwhile true; do sleep 0.05; done\n")
        kit.eventually(lambda: kit.state(cloud, instance) == "shutting-down", "it goes down")
        pids = kit.running(cloud, instance)
        began = time.monotonic()

    assert time.monotonic() - began < 15
    assert [pid for pid in pids if alive(pid)] == []


HOST = """
import sys, time
from pathlib import Path
from spotrelay.localcloud.ec2.standalone import Standalone
from tests.localcloud_ec2 import kit
cloud = Standalone(Path(sys.argv[1]), time_scale=0.01)
kit.template(cloud, "#!/bin/bash\\n(env -i setsid sleep 600 &)\\nsleep 600\\n")
instance = kit.launch(cloud)
kit.eventually(lambda: len(kit.seen(cloud, instance)["alive_processes"]) >= 3, "it runs")
print(*kit.running(cloud, instance), flush=True)
time.sleep(600)
"""


def test_machines_die_with_a_host_that_is_killed(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert host.stdout is not None
    pids = [int(pid) for pid in host.stdout.readline().split()]
    assert len(pids) >= 3

    host.send_signal(signal.SIGKILL)
    host.wait()

    kit.eventually(lambda: not [pid for pid in pids if alive(pid)], "the machines are gone")
