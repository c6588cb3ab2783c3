"""The policy evaluator: every rule of it on a table, and fail closed on whatever it does not know."""

from __future__ import annotations

from typing import Any

import pytest

from spotrelay.localcloud.policy import evaluate

ARN = "arn:aws:ec2:us-east-1:000000000000:instance/i-1"
FROM_OURS = "arn:aws:ec2:a:b:launch-template/lt-1"
MINE = "arn:aws:s3:::b/${aws:PrincipalTag/run}/*"


def allows(condition: dict[str, Any] | None = None, context: dict[str, Any] | None = None, **changes: Any) -> bool:
    """Whether one Allow statement lets ec2:TerminateInstances happen to the instance."""
    statement: dict[str, Any] = {"Effect": "Allow", "Action": "ec2:TerminateInstances", "Resource": ARN, **changes}
    if condition is not None:
        statement["Condition"] = condition
    policy = {"Version": "2012-10-17", "Statement": [{k: v for k, v in statement.items() if v is not None}]}
    return evaluate([policy], "ec2:TerminateInstances", ARN, context).allowed


def denies(condition: dict[str, Any], context: dict[str, Any] | None = None) -> bool:
    """Whether one Deny statement beside an Allow of everything forbids it."""
    statements = [
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition},
    ]
    policy = {"Version": "2012-10-17", "Statement": statements}
    return not evaluate([policy], "ec2:TerminateInstances", ARN, context).allowed


def test_nothing_is_allowed_without_a_policy() -> None:
    decision = evaluate([], "ec2:TerminateInstances", ARN)

    assert not decision.allowed
    assert decision.why == "no identity-based policy allows the ec2:TerminateInstances action"


def test_a_deny_beats_every_allow_in_whatever_order() -> None:
    allow = {"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}
    deny = {"Statement": {"Sid": "Never", "Effect": "Deny", "Action": "ec2:Term*", "Resource": "*"}}

    for policies in ([allow, deny], [deny, allow]):
        decision = evaluate(policies, "ec2:TerminateInstances", ARN)
        assert (decision.allowed, decision.why) == (False, "an explicit deny in Never")
    assert evaluate([allow, deny], "ec2:RunInstances", ARN).allowed


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({"Action": "ec2:terminateinstances"}, True),
        ({"Action": "ec2:Terminate*"}, True),
        ({"Action": "ec2:TerminateInstance?"}, True),
        ({"Action": ["s3:*", "ec2:*"]}, True),
        ({"Action": "ec2:RunInstances"}, False),
        ({"Action": None, "NotAction": "ec2:RunInstances"}, True),
        ({"Action": None, "NotAction": "ec2:*"}, False),
        ({"Resource": "*"}, True),
        ({"Resource": "arn:aws:ec2:*:*:instance/*"}, True),
        ({"Resource": "arn:aws:ec2:us-west-2:*:instance/*"}, False),
        ({"Resource": "arn:aws:ec2:us-east-1:000000000000:INSTANCE/i-1"}, False),
        ({"Resource": None, "NotResource": "arn:aws:ec2:*:*:volume/*"}, True),
        ({"Resource": None, "NotResource": "arn:aws:ec2:*:*:instance/*"}, False),
        ({"Resource": "arn:aws:ec2:us-east-1:000000000000:instance/[i]-1"}, False),
        ({"Resource": None}, False),
        ({"Effect": "Permit"}, False),
        ({"Principal": "*"}, False),
    ],
)
def test_actions_and_resources_match_by_pattern(changes: dict[str, Any], allowed: bool) -> None:
    assert allows(**changes) is allowed


@pytest.mark.parametrize(
    ("condition", "context", "allowed"),
    [
        ({"StringEquals": {"aws:RequestTag/run": "x"}}, {"aws:RequestTag/run": "x"}, True),
        ({"StringEquals": {"AWS:requesttag/RUN": "x"}}, {"aws:RequestTag/run": "x"}, True),
        ({"StringEquals": {"aws:RequestTag/run": ["y", "x"]}}, {"aws:RequestTag/run": "x"}, True),
        ({"StringEquals": {"aws:RequestTag/run": "X"}}, {"aws:RequestTag/run": "x"}, False),
        ({"StringEquals": {"aws:RequestTag/run": "*"}}, {"aws:RequestTag/run": "x"}, False),
        ({"StringEquals": {"aws:RequestTag/run": "x"}}, {}, False),
        ({"StringEqualsIfExists": {"aws:RequestTag/run": "x"}}, {}, True),
        ({"StringEqualsIfExists": {"aws:RequestTag/run": "x"}}, {"aws:RequestTag/run": "y"}, False),
        ({"StringEqualsIgnoreCase": {"k": "X"}}, {"k": "x"}, True),
        ({"StringNotEquals": {"k": "x"}}, {"k": "y"}, True),
        ({"StringNotEquals": {"k": ["x", "y"]}}, {"k": "y"}, False),
        ({"StringNotEquals": {"k": "x"}}, {}, True),
        ({"StringLike": {"k": "spot-*-??"}}, {"k": "spot-relay-01"}, True),
        ({"StringLike": {"k": "spot-*-??"}}, {"k": "spot-relay-1"}, False),
        ({"StringNotLike": {"k": "spot-*"}}, {"k": "spot-relay"}, False),
        ({"ArnLike": {"k": "arn:aws:ec2:*:*:launch-template/lt-1"}}, {"k": FROM_OURS}, True),
        ({"ArnEquals": {"k": "arn:aws:ec2:*:launch-template/lt-1"}}, {"k": FROM_OURS}, False),
        ({"ArnEquals": {"k": "arn:aws:ec2:*:*:launch-template/lt-2"}}, {"k": FROM_OURS}, False),
        ({"Bool": {"k": True}}, {"k": "true"}, True),
        ({"Bool": {"k": "true"}}, {"k": "false"}, False),
        ({"Bool": {"k": "true"}}, {}, False),
        ({"NumericEquals": {"k": "3"}}, {"k": "3.0"}, True),
        ({"NumericLessThanEquals": {"k": 10}}, {"k": "11"}, False),
        ({"NumericGreaterThan": {"k": 10}}, {"k": "11"}, True),
        ({"NumericEquals": {"k": "three"}}, {"k": "3"}, False),
        ({"Null": {"k": "true"}}, {}, True),
        ({"Null": {"k": "true"}}, {"k": "x"}, False),
        ({"Null": {"k": False}}, {"k": "x"}, True),
        ({"ForAllValues:StringEquals": {"k": ["a", "b"]}}, {"k": ["a"]}, True),
        ({"ForAllValues:StringEquals": {"k": ["a", "b"]}}, {"k": ["a", "c"]}, False),
        ({"ForAllValues:StringEquals": {"k": ["a", "b"]}}, {}, True),
        ({"ForAllValues:StringEquals": {"k": ["a"]}, "Null": {"k": "false"}}, {}, False),
        ({"ForAnyValue:StringLike": {"k": ["a*"]}}, {"k": ["b", "ax"]}, True),
        ({"ForAnyValue:StringLike": {"k": ["a*"]}}, {"k": ["b"]}, False),
        ({"ForAnyValue:StringLike": {"k": ["a*"]}}, {}, False),
        ({"StringEquals": {"k": "a"}}, {"k": ["a", "b"]}, False),
        ({"StringEquals": {"k": "x"}, "Bool": {"l": "true"}}, {"k": "x", "l": "false"}, False),
        ({"StringEquals": {"k": "x", "l": "y"}}, {"k": "x"}, False),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {"aws:SourceIp": "10.0.0.1"}, False),
        ({"ForSomeValues:StringEquals": {"k": "a"}}, {"k": "a"}, False),
        ({"StringEquals": {"k": "${aws:PrincipalTag/run}"}}, {"k": "x", "aws:PrincipalTag/run": "x"}, True),
        ({"StringEquals": {"k": "${aws:PrincipalTag/run}"}}, {"k": "${aws:PrincipalTag/run}"}, False),
        ({"StringLike": {"k": "${aws:PrincipalTag/run}"}}, {"k": "anything", "aws:PrincipalTag/run": "*"}, False),
        ({"StringLike": {"k": "a${*}b"}}, {"k": "a*b"}, True),
        ({"StringLike": {"k": "a${*}b"}}, {"k": "axb"}, False),
        ({"StringEquals": {"k": "${aws:PrincipalTag/run, 'none'}"}}, {"k": "none"}, True),
    ],
)  # fmt: skip
def test_conditions_hold_as_iam_says(condition: dict[str, Any], context: dict[str, Any], allowed: bool) -> None:
    assert allows(condition, context) is allowed


@pytest.mark.parametrize(
    ("condition", "context", "denied"),
    [
        ({"StringEquals": {"k": "x"}}, {"k": "x"}, True),
        ({"StringEquals": {"k": "x"}}, {"k": "y"}, False),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {}, True),
        ({"StringEquals": {"k": "a"}}, {"k": ["a", "b"]}, True),
    ],
)
def test_a_deny_that_is_not_understood_denies(condition: dict[str, Any], context: dict[str, Any], denied: bool) -> None:
    assert denies(condition, context) is denied


def test_variables_stand_in_resources_too() -> None:
    policy = {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": MINE,
        },
    }

    def may(key: str, tag: str) -> bool:
        return evaluate([policy], "s3:GetObject", f"arn:aws:s3:::b/{key}", {"aws:PrincipalTag/run": tag}).allowed

    assert may("mine/x", "mine")
    assert not may("yours/x", "mine")
    assert not may("yours/x", "*")
