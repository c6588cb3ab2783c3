"""What the context may say, and what is answered when it cannot work."""

from __future__ import annotations

from typing import Any

import pytest

from infra.config import BadConfig, Config, cdk_context, read_config
from infra.host import ROOT, host_architecture, host_python


def test_the_committed_context_works() -> None:
    config = read_config(cdk_context())

    assert (config.stack, config.architecture, config.python) == ("Spotrelay", "arm64", "3.13")


def test_host_means_this_machine() -> None:
    config = read_config({"spotrelay": {"architecture": "host", "python": "host"}})

    assert (config.lambda_architecture, config.lambda_python) == (host_architecture(), host_python())


def test_a_single_value_of_the_command_line_goes_over_the_file() -> None:
    context = {"spotrelay": {"python": "3.13", "zones": 2}, "spotrelay:python": "3.12", "spotrelay:zones": "4"}

    config = read_config(context)

    assert (config.python, config.zones) == ("3.12", 4)


def test_the_command_line_can_say_false() -> None:
    assert read_config({"spotrelay:protected": "false"}).protected is False


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"architecture": "mips"}, "spotrelay.architecture"),
        ({"python": "2.7"}, "3.13"),
        ({"zone": 3}, "spotrelay.zone:"),
        ({"zones": 0}, "spotrelay.zones"),
        ({"zones": "three"}, "spotrelay.zones"),
        ({"cidr": "10.0.0.0/28"}, "between /16 and /22"),
        ({"vpc": {"id": "vpc-0a"}}, "spotrelay.vpc.subnets"),
        ({"vpc": {"id": "vpc-0a", "subnets": {"us-east-1": "subnet-0"}}}, "spotrelay.vpc.subnets.us-east-1"),
        ({"image": "my favourite"}, "spotrelay.image"),
        ({"image": "ami-0a"}, "set root_device to /dev/sda1 or /dev/xvda"),
        ({"image": "ami-0a", "root_device": "/dev/nvme0n1"}, "spotrelay.root_device"),
        ({"home_region": "us-east-1", "regions": {"eu-west-1": {"image": "ami-0b"}}}, "spotrelay.regions.eu-west-1"),
        ({"instance_python": "/opt/a b"}, "spotrelay.instance_python"),
        ({"instance_python": "/opt/'x"}, "spotrelay.instance_python"),
        ({"stack": "1st; rm -rf /"}, "spotrelay.stack"),
        ({"regions": {"eu-west-1": {}}}, "home_region must be named"),
        ({"home_region": "eu-west-1", "regions": {"eu-west-1": {}}}, "cannot be a further one"),
        ({"alarm_email": "a@b", "alarm_topic": "arn:aws:sns:x"}, "exclude each other"),
        ({"tags": {"spotrelay:run": "x"}}, "are taken"),
        ({"budget_dollars_per_day": -1}, "spotrelay.budget_dollars_per_day"),
        ({"spend_dollars_per_hour": "much"}, "spotrelay.spend_dollars_per_hour"),
        ({"secrets": {"ssm": ["*"]}}, "spotrelay.secrets.ssm.0"),
    ],
)
def test_what_cannot_work_is_named_with_its_key(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(BadConfig, match="cannot work") as caught:
        read_config({"spotrelay": wrong})

    assert said in str(caught.value)


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(BadConfig) as caught:
        read_config({"spotrelay": {"zones": 0, "volume_gib": 1, "unknown": True}})

    assert all(key in str(caught.value) for key in ("zones", "volume_gib", "unknown", "Known keys"))


def test_a_place_abroad_needs_the_names_of_home() -> None:
    place = {"launch_template": "lt-0f", "version": "1", "subnets": {"eu-west-1a": "subnet-0e"}}

    with pytest.raises(BadConfig, match="under home first"):
        read_config({"spotrelay": {"home_region": "us-east-1", "regions": {"eu-west-1": {"place": place}}}})


def test_every_key_is_documented() -> None:
    text = (ROOT / "infra" / "README.md").read_text()

    rows = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")}
    assert rows == set(Config.model_fields)
