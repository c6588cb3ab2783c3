"""Reads a synthesised template as a person would: by type, with references filled in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ACCOUNT = "111122223333"
REGION = "us-east-1"
PSEUDO = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Region": REGION,
    "AWS::Partition": "aws",
    "AWS::URLSuffix": "amazonaws.com",
}
ARNS = {
    "AWS::DynamoDB::Table": f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{{}}",
    "AWS::S3::Bucket": "arn:aws:s3:::{}",
    "AWS::SQS::Queue": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{{}}",
    "AWS::Events::EventBus": f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/{{}}",
    "AWS::Events::Rule": f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{{}}",
    "AWS::Lambda::Function": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{{}}",
    "AWS::Logs::LogGroup": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{{}}:*",
    "AWS::IAM::Role": f"arn:aws:iam::{ACCOUNT}:role/{{}}",
}


@dataclass(frozen=True)
class Template:
    """One stack's template."""

    body: dict[str, Any]

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        """Properties of every resource of a type, by logical id, references filled in."""
        found = {name: r.get("Properties", {}) for name, r in self.resources.items() if r["Type"] == kind}
        return {name: self.fill(properties) for name, properties in found.items()}

    def one(self, kind: str, name: str = "") -> dict[str, Any]:
        """Properties of the only resource of a type whose logical id begins so."""
        found = [p for key, p in self.of(kind).items() if key.startswith(name)]
        assert len(found) == 1, f"{len(found)} resources {kind} {name}"
        return found[0]

    @property
    def resources(self) -> dict[str, dict[str, Any]]:
        resources = self.body["Resources"]
        assert isinstance(resources, dict)
        return resources

    @property
    def outputs(self) -> dict[str, Any]:
        """Values of the outputs, references filled in."""
        return {name: self.fill(output["Value"]) for name, output in self.body["Outputs"].items()}

    def policies(self, role: str) -> list[dict[str, Any]]:
        """Identity policies of the only role whose logical id begins so."""
        roles = [name for name in self.of("AWS::IAM::Role") if name.startswith(role)]
        assert len(roles) == 1, f"{len(roles)} roles {role}"
        every = [*self.of("AWS::IAM::Policy").values(), *self.of("AWS::IAM::ManagedPolicy").values()]
        attached = [p for p in every if roles[0] in p["Roles"]]
        inline = self.of("AWS::IAM::Role")[roles[0]].get("Policies", [])
        return [p["PolicyDocument"] for p in (*attached, *inline)]

    def name(self, kind: str, begins: str) -> str:
        """Logical id of the only resource of a type that begins so; stands for its physical id here."""
        found = [name for name in self.of(kind) if name.startswith(begins)]
        assert len(found) == 1, f"{found}"
        return found[0]

    def arn(self, kind: str, begins: str) -> str:
        """ARN of the only resource of a type that begins so."""
        return ARNS[kind].format(self.name(kind, begins))

    def fill(self, value: Any) -> Any:
        """The value with intrinsic functions replaced by what they would stand for."""
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((function, argument),) = value.items()
            if function == "Ref" or function.startswith("Fn::"):
                return self._call(function, argument)
        return {key: self.fill(item) for key, item in value.items()}

    def _call(self, function: str, argument: Any) -> Any:
        if function == "Ref":
            return self._reference(argument)
        if function == "Fn::GetAtt":
            return self._attribute(*argument)
        if function == "Fn::Join":
            return argument[0].join(self.fill(argument[1]))
        if function == "Fn::Base64":
            return self.fill(argument)
        if function == "Fn::GetAZs":
            return [f"{REGION}{letter}" for letter in "abcdef"]
        if function == "Fn::Select":
            return self.fill(argument[1])[int(argument[0])]
        if function == "Fn::Sub" and isinstance(argument, str):
            for name, text in PSEUDO.items():
                argument = argument.replace(f"${{{name}}}", text)
            return argument
        raise AssertionError(f"{function} is not read by these tests yet")

    def _reference(self, name: str) -> str:
        if name in PSEUDO:
            return PSEUDO[name]
        resource = self.resources.get(name)
        if resource is None:
            return f"<{name}>"
        properties = resource.get("Properties", {})
        named = properties.get("Name") or properties.get("InstanceProfileName")
        return str(self.fill(named)) if named else name

    def _attribute(self, name: str, attribute: str) -> str:
        kind = self.resources[name]["Type"]
        if attribute == "Arn":
            return ARNS[kind].format(self._reference(name))
        if attribute == "LatestVersionNumber":
            return "1"
        return name


def statements(policies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every statement of some policies, with actions and resources as lists."""
    return [
        {**s, "Action": _listed(s["Action"]), "Resource": _listed(s.get("Resource", []))}
        for policy in policies
        for s in policy["Statement"]
    ]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
