"""Requests and answers have the shapes of botocore's service model, member by member."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.model import ListShape, Shape, StructureShape
from botocore.parsers import ResponseParserFactory
from botocore.serialize import create_serializer

from spotrelay.localcloud.ec2 import wire
from spotrelay.localcloud.ec2.errors import Ec2Error
from spotrelay.localcloud.ec2.service import Ec2

ACTIONS = sorted(Ec2.ACTIONS)
AT = datetime(2026, 11, 23, 14, 25, 48, 250000, tzinfo=UTC)


def filled(shape: Shape, depth: int = 7) -> Any:
    """A value of this shape in which every member is there."""
    if isinstance(shape, StructureShape):
        return {name: filled(member, depth - 1) for name, member in shape.members.items()} if depth else {}
    if isinstance(shape, ListShape):
        return [filled(shape.member, depth - 1), filled(shape.member, depth - 1)] if depth else []
    samples: dict[str, Any] = {"boolean": True, "integer": 70, "long": 70, "float": 2.5, "double": 2.5, "timestamp": AT}
    if shape.type_name == "blob":
        return b"x"
    return samples.get(shape.type_name) or next(iter(getattr(shape, "enum", None) or ["a<&>é 'text'"]))


def without_empty(value: Any) -> Any:
    """Without what the Query protocol cannot write down: empty structures and lists."""
    if isinstance(value, dict):
        return {k: v for k, v in ((k, without_empty(v)) for k, v in value.items()) if v not in ({}, [])}
    if isinstance(value, list):
        return [v for v in map(without_empty, value) if v not in ({}, [])]
    return value


@pytest.mark.parametrize("action", ACTIONS)
def test_a_request_as_botocore_writes_it_is_read_back_whole(action: str) -> None:
    model = wire.operation(action)
    assert model.input_shape is not None
    request = without_empty(filled(model.input_shape))

    body = create_serializer("ec2").serialize_to_request(request, model)["body"]

    assert wire.parse(action, body) == request


@pytest.mark.parametrize("action", [a for a in ACTIONS if wire.operation(a).output_shape is not None])
def test_an_answer_is_read_by_botocores_parser_as_it_was_meant(action: str) -> None:
    shape = wire.operation(action).output_shape
    assert shape is not None
    answer = without_empty(filled(shape))

    parser = ResponseParserFactory().create_parser("ec2")
    told = parser.parse({"body": wire.answer(action, answer), "headers": {}, "status_code": 200}, shape)
    del told["ResponseMetadata"]

    assert without_empty(told) == answer


@pytest.mark.parametrize(
    ("parameters", "code", "named"),
    [
        ({"MinCount": "1"}, "MissingParameter", "MaxCount"),
        ({"MinCount": "1", "MaxCount": "1", "Colour": "red"}, "UnknownParameter", "Colour"),
        ({"MinCount": "1", "MaxCount": "1", "Placement.Colour": "red"}, "UnknownParameter", "Placement.Colour"),
        ({"MinCount": "1", "MaxCount": "1", "ImageId.1": "ami"}, "UnknownParameter", "ImageId.1"),
        ({"MinCount": "1", "MaxCount": "1", "SecurityGroupId": "sg"}, "UnknownParameter", "SecurityGroupId"),
        ({"MinCount": "one", "MaxCount": "1"}, "InvalidParameterValue", "MinCount"),
        ({"MinCount": "1", "MaxCount": "1", "EbsOptimized": "maybe"}, "InvalidParameterValue", "EbsOptimized"),
        ({"MinCount": "1", "MaxCount": "1", "InstanceType": "g5.tiny"}, "InvalidParameterValue", "g5.tiny"),
        ({"MinCount": "1", "MaxCount": "1", "Placement": "here"}, "InvalidParameterValue", "Placement"),
    ],
)
def test_parameters_that_the_model_does_not_know_are_refused(parameters: dict[str, str], code: str, named: str) -> None:
    with pytest.raises(Ec2Error) as refused:
        wire.parse("RunInstances", parameters)

    assert refused.value.code == code
    assert named in refused.value.message


def test_an_answer_with_a_member_that_the_model_lacks_is_our_mistake_and_fails() -> None:
    with pytest.raises(TypeError, match="Colour"):
        wire.answer("DescribeInstances", {"Reservations": [{"Colour": "red"}]})


def test_an_answer_with_a_word_that_the_model_lacks_is_our_mistake_and_fails() -> None:
    with pytest.raises(TypeError, match="asleep"):
        wire.answer("DescribeInstances", {"Reservations": [{"Instances": [{"State": {"Name": "asleep"}}]}]})


def test_list_items_are_read_in_the_order_of_their_numbers() -> None:
    names = {f"InstanceId.{number}": f"i-{number:08x}" for number in range(12, 0, -1)}

    assert wire.parse("TerminateInstances", names)["InstanceIds"] == [f"i-{n:08x}" for n in range(1, 13)]
