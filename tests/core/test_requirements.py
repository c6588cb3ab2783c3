"""Instance types by what they have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spotrelay.core.errors import InvalidInput
from spotrelay.core.requirements import MOST_TYPES, InstanceKind, Requirements, matching
from spotrelay.core.spec import Spec, parse_spec, pools_of

G4 = InstanceKind("g4dn.xlarge", 4, 16, gpus=1, gpu_memory_gib=16, gpu="NVIDIA T4")
G5 = InstanceKind("g5.xlarge", 4, 16, gpus=1, gpu_memory_gib=24, gpu="NVIDIA A10G")
G5_BIG = InstanceKind("g5.12xlarge", 48, 192, gpus=4, gpu_memory_gib=24, gpu="NVIDIA A10G")
G6E = InstanceKind("g6e.xlarge", 4, 32, gpus=1, gpu_memory_gib=48, gpu="NVIDIA L40S")
ARM = InstanceKind("g5g.xlarge", 4, 8, ("arm64",), gpus=1, gpu_memory_gib=16, gpu="NVIDIA T4G")
PLAIN = InstanceKind("m5.xlarge", 4, 16)
ALL = (PLAIN, G6E, ARM, G5_BIG, G5, G4)
HERE, THERE = "eu-west-1", "us-east-1"
ONE_GPU = Requirements(gpus=1, gpu_memory_gib=24)


def test_what_fits_comes_smallest_first() -> None:
    assert matching(ONE_GPU, {HERE: ALL}) == {HERE: ("g5.xlarge", "g6e.xlarge")}


def test_more_gpus_than_wanted_do_not_fit_and_more_of_everything_else_does() -> None:
    roomy = Requirements(gpus=1, memory_gib=20)

    assert matching(roomy, {HERE: ALL}) == {HERE: ("g6e.xlarge",)}


def test_without_a_word_about_gpus_a_machine_has_none() -> None:
    assert matching(Requirements(vcpus=4), {HERE: ALL}) == {HERE: ("m5.xlarge",)}


def test_the_architecture_is_that_of_the_image() -> None:
    assert matching(Requirements(gpus=1, architecture="arm64"), {HERE: ALL}) == {HERE: ("g5g.xlarge",)}


def test_a_region_counts_only_with_what_it_offers() -> None:
    assert matching(ONE_GPU, {HERE: (G5,), THERE: (G6E,), "eu-north-1": (PLAIN,)}) == {
        HERE: ("g5.xlarge",),
        THERE: ("g6e.xlarge",),
    }


def test_a_price_ceiling_leaves_out_what_costs_more_and_what_has_no_price() -> None:
    wanted = replace(ONE_GPU, max_price=0.5)

    assert matching(wanted, {HERE: ALL}, {(HERE, "g5.xlarge"): 0.4, (HERE, "g6e.xlarge"): 0.9}) == {
        HERE: ("g5.xlarge",)
    }
    with pytest.raises(InvalidInput, match="has no Spot price"):
        matching(wanted, {HERE: (G5,)})


def test_when_nothing_fits_the_nearest_are_named_with_what_they_lack() -> None:
    with pytest.raises(InvalidInput) as caught:
        matching(Requirements(gpus=1, gpu_memory_gib=60), {HERE: ALL})

    said = str(caught.value)
    assert "g6e.xlarge (1 × NVIDIA L40S with 48 GiB, 4 vCPUs, 32 GiB) has 48 GiB a GPU" in said
    assert said.index("g6e.xlarge") < said.index("g5.xlarge")
    assert HERE in said


def test_of_many_types_that_fit_the_smallest_are_kept() -> None:
    many = tuple(replace(G5, name=f"g5.{n}xlarge", vcpus=n) for n in range(1, 40))

    (kept,) = matching(ONE_GPU, {HERE: many}).values()

    assert kept == tuple(f"g5.{n}xlarge" for n in range(1, MOST_TYPES + 1))


def test_a_spec_names_types_or_requirements_and_not_both() -> None:
    spec = parse_spec({"command": ["a"], "instance_requirements": {"gpus": 1, "gpu_memory_gib": 24}})

    assert spec.instance_requirements == ONE_GPU
    with pytest.raises(InvalidInput, match="exclude each other"):
        parse_spec({"command": ["a"], "instance_types": ["g5.xlarge"], "instance_requirements": {"gpus": 1}})
    with pytest.raises(InvalidInput, match="instance_types is empty"):
        parse_spec({"command": ["a"]})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"gpus": -1}, "gpus must be zero or more"),
        ({"memory_gib": 0}, "memory_gib must be above zero"),
        ({"vcpus": 1, "architecture": "sparc"}, "'sparc' is none of x86_64, arm64"),
        ({"gpus": 0, "gpu_memory_gib": 8}, "without any GPU"),
        ({"gpu": 1}, "did you mean instance_requirements.gpus"),
    ],
)
def test_a_requirement_that_cannot_be_meant_is_named(given: dict[str, object], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        parse_spec({"command": ["a"], "instance_requirements": given})


def test_the_ladder_has_only_pools_that_the_answer_named() -> None:
    zones = ((HERE, "eu-west-1a"), (THERE, "us-east-1a"))
    offered = {HERE: ("g5.xlarge",), THERE: ("g5.xlarge", "g6e.xlarge")}
    spec = Spec(command=("a",), instance_types=("g5.xlarge", "g6e.xlarge"), offered=offered)

    assert [(p.region, p.instance_type) for p in pools_of(spec, zones)] == [
        (HERE, "g5.xlarge"),
        (THERE, "g5.xlarge"),
        (THERE, "g6e.xlarge"),
    ]
