"""However the cloud ends, nothing of it is left: no process, no port, no file outside its folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from spotrelay.localcloud import processes
from spotrelay.localcloud.client import CloudFailed, LocalCloud
from tests.localcloud.kit import allow, called, eventually, function, launch, prepare_ground, role

pytestmark = pytest.mark.loop

SLEEPER = """
import os, subprocess, sys
def handler(event, context):
    # a process that a careless function leaves behind, in a session of its own
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    return os.getpid()
"""
CLIENT = """
import json, sys, time
from pathlib import Path
from spotrelay.localcloud.client import LocalCloud
cloud = LocalCloud(Path(sys.argv[1]))
cloud.start()
print(json.dumps({"pid": cloud.pid, "endpoint": cloud.endpoint}), flush=True)
time.sleep(600)
"""


def answers(endpoint: str) -> bool:
    place = urlsplit(endpoint)
    with socket.socket() as probe:
        return probe.connect_ex((place.hostname, place.port)) == 0


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists() and processes.send_signal(pid, 0)]


def busy(cloud: LocalCloud, name: str) -> list[int]:
    """Every process of a cloud in which a function runs and has left one behind."""
    arn = role(cloud, name, "lambda.amazonaws.com", allow("logs:*"))
    function(cloud, name, SLEEPER, arn)
    worker, error = called(cloud, name, {})
    assert error is None
    below = processes.descendants(cloud.pid)
    assert worker in below
    assert len(below) >= 3
    return [cloud.pid, *below]


def test_a_stopped_cloud_leaves_no_process_no_port_and_no_file_elsewhere(tmp_path: Path, name: str) -> None:
    elsewhere = set(Path("/tmp").iterdir())
    with LocalCloud(tmp_path / "home") as cloud:
        everything, endpoint = busy(cloud, name), cloud.endpoint

    assert alive(everything) == []
    assert not answers(endpoint)
    ours = [path for path in set(Path("/tmp").iterdir()) - elsewhere if "ministack" in path.name]
    assert ours == []
    assert not (tmp_path / "home" / "tmp").exists()


def test_a_client_that_is_killed_takes_its_cloud_with_it(tmp_path: Path) -> None:
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    client = subprocess.Popen([sys.executable, "-c", CLIENT, str(tmp_path)], stdout=subprocess.PIPE, env=path)
    assert client.stdout is not None
    told = json.loads(client.stdout.readline())
    everything = [told["pid"], *processes.descendants(told["pid"])]
    assert answers(told["endpoint"])

    client.send_signal(signal.SIGKILL)
    client.wait()
    client.stdout.close()

    eventually(lambda: alive(everything) == [], "the cloud of a killed client is gone")
    assert not answers(told["endpoint"])


def test_a_cloud_whose_inner_process_dies_leaves_nothing(tmp_path: Path, name: str) -> None:
    with LocalCloud(tmp_path) as cloud:
        everything = busy(cloud, name)
        inner = next(pid for pid in everything[1:] if "localcloud.host" in Path(f"/proc/{pid}/cmdline").read_text())

        processes.send_signal(inner, signal.SIGKILL)

        eventually(lambda: alive(everything[1:]) == [], "everything below is gone")
        with pytest.raises(CloudFailed, match="does not answer"):
            cloud.instances()


def test_a_cloud_whose_outer_process_is_killed_ends_too(tmp_path: Path) -> None:
    cloud = LocalCloud(tmp_path)
    cloud.start()
    everything = [cloud.pid, *processes.descendants(cloud.pid)]
    endpoint = cloud.endpoint

    processes.send_signal(cloud.pid, signal.SIGKILL)

    eventually(lambda: not answers(endpoint), "the port is free")
    cloud.close()
    eventually(lambda: alive(everything) == [], "everything is gone")


@pytest.mark.parametrize("end", ["close", "kill the outer process", "kill the inner process"])
def test_machines_end_with_their_cloud_even_those_that_were_stopped(tmp_path: Path, name: str, end: str) -> None:
    cloud = LocalCloud(tmp_path, time_scale=0.1)
    cloud.start()
    ground = prepare_ground(cloud, name)
    first, second = launch(cloud, ground), launch(cloud, ground)
    eventually(lambda: all(i["alive_processes"] for i in cloud.instances()), "both machines run")
    cloud.stop_group(first)
    cloud.zombify(second)
    inside = [pid for i in cloud.instances() for pid in i["alive_processes"]]
    assert inside

    if end == "close":
        cloud.close()
    else:
        place = "localcloud.server" if "outer" in end else "localcloud.host"
        whole = [cloud.pid, *processes.descendants(cloud.pid)]
        victim = next(pid for pid in whole if place in Path(f"/proc/{pid}/cmdline").read_text())
        processes.send_signal(victim, signal.SIGKILL)
    try:
        eventually(lambda: alive(inside) == [], "no process of a machine is left")
    finally:
        cloud.close()


def test_it_listens_on_loopback_only(cloud: LocalCloud) -> None:
    pids = {cloud.pid, *processes.descendants(cloud.pid)}
    inodes = {
        str(descriptor.readlink()).removeprefix("socket:[").rstrip("]")
        for pid in pids
        for descriptor in Path(f"/proc/{pid}/fd").iterdir()
        if descriptor.is_symlink() and str(descriptor.readlink()).startswith("socket:")
    }
    sockets = [line.split() for file in ("tcp", "tcp6") for line in Path(f"/proc/net/{file}").read_text().splitlines()]
    listening = [fields[1] for fields in sockets if len(fields) > 9 and fields[3] == "0A" and fields[9] in inodes]

    assert listening
    assert all(address.startswith("0100007F:") for address in listening)


def test_a_cloud_that_cannot_start_says_why(tmp_path: Path) -> None:
    blocked = tmp_path / "home"
    blocked.mkdir()
    (blocked / "requests.jsonl").mkdir()

    with pytest.raises(CloudFailed, match=r"requests\.jsonl"):
        LocalCloud(blocked).start()


def test_a_cloud_that_is_not_running_says_so(tmp_path: Path) -> None:
    with pytest.raises(CloudFailed, match="not running"):
        LocalCloud(tmp_path).client("s3")
