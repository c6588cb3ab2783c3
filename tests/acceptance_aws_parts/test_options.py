"""What the command line accepts, and what it announces."""

from __future__ import annotations

import json

import pytest

from tests.acceptance_aws.command import main
from tests.acceptance_aws.options import Options, parse
from tests.acceptance_aws.plan import agreed, plan


@pytest.mark.parametrize(
    "arguments", [["--teardown", "Spotrelay"], ["--dollars", "0"], ["--dollars", "5000"], ["--steps", "10"], ["--x"]]
)
def test_a_mistake_ends_it_before_anything_was_made(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)

    assert ended.value.code == 2


def test_each_test_has_a_stack_of_its_own() -> None:
    assert parse([]).stack != parse([]).stack


def test_the_ceiling_and_every_deed_are_announced() -> None:
    text = plan(Options("SpotrelayTest-x", dollars=0.7), "123456789012", "eu-west-1", 0.02)

    for word in ("123456789012", "eu-west-1", "SpotrelayTest-x", "0.70 dollars", "FIS", "destroys", "cdk bootstrap"):
        assert word in text


def test_nobody_at_the_terminal_means_no() -> None:
    assert not agreed(Options("SpotrelayTest-x"))
    assert agreed(Options("SpotrelayTest-x", yes=True))


def test_without_credentials_nothing_is_done_and_the_last_line_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")

    code = main(["--region", "eu-west-1"])

    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == 2 and last["verdict"] == "not run"
    assert "no AWS credentials were found" in last["problems"][0]
