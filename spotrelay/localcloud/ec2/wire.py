"""EC2's Query protocol, both ways, as botocore's own service model describes it.

Parameters arrive flattened (`TagSpecification.1.Tag.2.Key`) and become the dictionaries that boto3 takes; answers
are the dictionaries that boto3 gives, written as XML. No shape is known here: all come from `service-2.json`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from xml.sax.saxutils import escape

from botocore.loaders import Loader
from botocore.model import ListShape, OperationModel, ServiceModel, Shape, StructureShape
from botocore.utils import parse_timestamp

from spotrelay.localcloud.ec2.errors import Ec2Error

_UNREAD = {"Action", "Version", "AWSAccessKeyId", "Signature", "SignatureVersion", "SignatureMethod", "Timestamp"}
_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
Tree = dict[str, Any]


@lru_cache(maxsize=1)
def service_model() -> ServiceModel:
    """botocore's model of EC2, without a user's own models and without the SDK's customisations."""
    loader = Loader(include_default_search_paths=False)
    loader.search_paths.append(Loader.BUILTIN_DATA_PATH)
    return ServiceModel(loader.load_service_model("ec2", "service-2"), "ec2")


@lru_cache(maxsize=64)
def operation(action: str) -> OperationModel:
    """The model of one action."""
    return service_model().operation_model(action)


def parse(action: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """A request's parameters in the shape that boto3 takes them.

    Raises:
        Ec2Error: UnknownParameter, MissingParameter, or InvalidParameterValue for a wrong type or word.
    """
    tree: Tree = {}
    for name, value in parameters.items():
        if name not in _UNREAD:
            _plant(tree, name, value)
    shape = operation(action).input_shape
    if shape is None:
        raise Ec2Error("InvalidAction", f"The action {action} takes no parameters")
    parsed: dict[str, Any] = _read(shape, tree, "")
    return parsed


def _plant(tree: Tree, name: str, value: str) -> None:
    *branches, leaf = name.split(".")
    for branch in branches:
        tree = tree.setdefault(branch, {})
        if not isinstance(tree, dict):
            raise Ec2Error("UnknownParameter", f"The parameter {name} is not recognized")
    if leaf in tree:
        raise Ec2Error("UnknownParameter", f"The parameter {name} is not recognized")
    tree[leaf] = value


def _read(shape: Shape, node: Any, path: str) -> Any:
    if isinstance(shape, StructureShape):
        return _read_structure(shape, node, path)
    if isinstance(shape, ListShape):
        return _read_list(shape, node, path)
    if isinstance(node, dict):
        raise Ec2Error("UnknownParameter", f"The parameter {path}.{next(iter(node))} is not recognized")
    return _read_scalar(shape, str(node), path)


def _read_structure(shape: StructureShape, node: Any, path: str) -> dict[str, Any]:
    if not isinstance(node, dict):
        raise Ec2Error("InvalidParameterValue", f"Invalid value '{node}' for {path}. It is a structure.")
    names = {_wire_name(name, member): (name, member) for name, member in shape.members.items()}
    unknown = sorted(set(node) - set(names))
    if unknown:
        raise Ec2Error("UnknownParameter", f"The parameter {_below(path, unknown[0])} is not recognized")
    for name in shape.required_members:
        wire = _wire_name(name, shape.members[name])
        if wire not in node:
            raise Ec2Error("MissingParameter", f"The request must contain the parameter {_below(path, wire)}")
    return {names[wire][0]: _read(names[wire][1], value, _below(path, wire)) for wire, value in node.items()}


def _read_list(shape: ListShape, node: Any, path: str) -> list[Any]:
    if not isinstance(node, dict):
        raise Ec2Error("UnknownParameter", f"The parameter {path} is not recognized; its values are numbered")
    if not all(key.isascii() and key.isdigit() for key in node):
        raise Ec2Error("UnknownParameter", f"The parameter {path}.{min(node)} is not recognized")
    return [_read(shape.member, node[key], f"{path}.{key}") for key in sorted(node, key=int)]


def _read_scalar(shape: Shape, text: str, path: str) -> Any:
    choices = getattr(shape, "enum", None)
    try:
        match shape.type_name:
            case "boolean":
                return {"true": True, "false": False}[text.lower()]
            case "integer" | "long":
                return int(text)
            case "float" | "double":
                return float(text)
            case "timestamp":
                return parse_timestamp(text).astimezone(UTC)
    except (ValueError, KeyError, TypeError) as why:
        raise Ec2Error("InvalidParameterValue", f"Invalid value '{text}' for {path}: no {shape.type_name}") from why
    if choices and text not in choices:
        raise Ec2Error("InvalidParameterValue", f"Invalid value '{text}' for {path}.")
    return text


def _wire_name(name: str, member: Shape) -> str:
    """Name of a parameter on the wire: the model's queryName, else its location name with a capital."""
    given = member.serialization.get("queryName")
    if given:
        return str(given)
    located = str(member.serialization.get("name", name))
    return located[:1].upper() + located[1:]


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def answer(action: str, values: Mapping[str, Any]) -> bytes:
    """The XML of an action's answer.

    Raises:
        TypeError: the values do not have the model's shape: a mistake in this package.
    """
    model = operation(action)
    inner = f"<requestId>{uuid.uuid4()}</requestId>"
    if model.output_shape is not None:
        inner += _members(model.output_shape, values, action)
    else:
        inner += "<return>true</return>"
    namespace = service_model().metadata["xmlNamespace"]
    return f'{_DECLARATION}<{action}Response xmlns="{namespace}">{inner}</{action}Response>'.encode()


def error_answer(error: Ec2Error) -> bytes:
    """The XML of a refusal."""
    told = f"<Error><Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message></Error>"
    return f"{_DECLARATION}<Response><Errors>{told}</Errors><RequestID>{uuid.uuid4()}</RequestID></Response>".encode()


def _members(shape: Shape, values: Any, path: str) -> str:
    if not isinstance(shape, StructureShape) or not isinstance(values, Mapping):
        raise TypeError(f"{path} is a structure in the model")
    unknown = set(values) - set(shape.members)
    if unknown:
        raise TypeError(f"{path} has no {', '.join(sorted(unknown))} in the model")
    return "".join(
        _element(str(member.serialization.get("name", name)), member, values[name], f"{path}.{name}")
        for name, member in shape.members.items()
        if values.get(name) is not None
    )


def _element(tag: str, shape: Shape, value: Any, path: str) -> str:
    if isinstance(shape, StructureShape):
        inner = _members(shape, value, path)
    elif isinstance(shape, ListShape):
        name = str(shape.member.serialization.get("name", "item"))
        inner = "".join(_element(name, shape.member, item, f"{path}[]") for item in value)
    else:
        inner = escape(_scalar(shape, value, path))
    return f"<{tag}>{inner}</{tag}>"


_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (float, int),
    "double": (float, int),
    "timestamp": (),
}


def _scalar(shape: Shape, value: Any, path: str) -> str:
    if isinstance(value, datetime | float) and shape.type_name == "timestamp":
        return instant(value)
    if not isinstance(value, _PYTHON_TYPES[shape.type_name]):
        raise TypeError(f"{path} is {shape.type_name} in the model, not {value!r}")
    if isinstance(value, bool):
        return "true" if value else "false"
    choices = getattr(shape, "enum", None)
    if choices and value not in choices:
        raise TypeError(f"{path} cannot be {value!r} in the model")
    return str(value)


def instant(value: datetime | float) -> str:
    """A time as EC2 writes it; a number is in seconds since 1970."""
    moment = value if isinstance(value, datetime) else datetime.fromtimestamp(value, UTC)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
