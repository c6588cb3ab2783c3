from __future__ import annotations

from pathlib import Path

from spotrelay import __version__
from spotrelay.instance.container import docker_command
from spotrelay.instance.environment import program_environment
from tests.instance.attempts import a_spec, an_identity

ME = an_identity(Path("/work"), time_scale=0.05)
IMAGE = "registry.example.com/team/train@sha256:" + "a" * 64


def test_the_program_finds_who_it_is_beside_the_specs_own_variables_and_secrets() -> None:
    machine = {"PATH": "/bin", "LANG": "C", "SPOTRELAY_WORK": "/work", "SPOTRELAY_RUN": "stale"}

    environment = program_environment(machine, ME, {"LANG": "de", "EPOCHS": "3"}, {"KEY": "secret"})

    assert environment == {
        "PATH": "/bin",
        "LANG": "de",
        "EPOCHS": "3",
        "KEY": "secret",
        "PYTHONUNBUFFERED": "1",
        "SPOTRELAY_RUN": "run-1",
        "SPOTRELAY_GENERATION": "1",
        "SPOTRELAY_INSTANCE": "i-0123456789abcdef0",
        "SPOTRELAY_TABLE": "table",
        "SPOTRELAY_BUCKET": "bucket",
        "SPOTRELAY_BUS": "bus",
        "SPOTRELAY_HOME_REGION": "eu-west-1",
        "SPOTRELAY_TIME_SCALE": "0.05",
        "SPOTRELAY_CACHE": "/work/cache",
        "SPOTRELAY_STATE": "/work/state",
        "SPOTRELAY_VERSION": __version__,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def test_a_container_gets_every_variable_by_name_and_no_value_among_the_arguments() -> None:
    spec = a_spec("python", "train.py", "it's $(here)", image=IMAGE, env={"LR": "the-value"}, secrets={"KEY": "ssm:/k"})

    command = docker_command(spec, ME, {"AWS_ENDPOINT_URL": "http://x"}, gpus=True)

    passed = [command[i + 1] for i, word in enumerate(command) if word == "--env"]
    assert {"LR", "KEY", "SPOTRELAY_RUN", "SPOTRELAY_STATE", "AWS_ENDPOINT_URL"} <= set(passed)
    assert not any("=" in name for name in passed)
    assert "the-value" not in command
    assert command[-4:] == [IMAGE, "python", "train.py", "it's $(here)"]
    assert command[command.index("--network") + 1] == "host"
    assert command[command.index("--gpus") + 1] == "all"
    assert "/work/cache:/work/cache" in command and "/work/state:/work/state" in command


def test_a_machine_without_gpus_asks_docker_for_none() -> None:
    assert "--gpus" not in docker_command(a_spec("true", image=IMAGE), ME, {}, gpus=False)
