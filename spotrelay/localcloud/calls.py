"""What a request asks for, in the words of the log and of the triggers: service, action, target."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

KeyNames = Callable[[str], list[str]]

_OBJECT_CALLS = {
    "GET": (("uploadId", "ListParts"), ("attributes", "GetObjectAttributes"), ("tagging", "GetObjectTagging")),
    "PUT": (("partNumber", "UploadPart"), ("tagging", "PutObjectTagging")),
    "POST": (("uploads", "CreateMultipartUpload"), ("uploadId", "CompleteMultipartUpload")),
    "DELETE": (("uploadId", "AbortMultipartUpload"), ("tagging", "DeleteObjectTagging")),
    "HEAD": (),
}
_OBJECT_DEFAULT = {
    "GET": "GetObject",
    "PUT": "PutObject",
    "POST": "PostObject",
    "DELETE": "DeleteObject",
    "HEAD": "HeadObject",
}
_BUCKET_CALLS = {
    "GET": (("versions", "ListObjectVersions"), ("list-type", "ListObjectsV2"), ("uploads", "ListMultipartUploads")),
    "POST": (("delete", "DeleteObjects"),),
}
_BUCKET_DEFAULT = {"GET": "ListObjects", "PUT": "CreateBucket", "DELETE": "DeleteBucket", "HEAD": "HeadBucket"}


def form_of(body: bytes) -> dict[str, str]:
    """Parameters of a Query-protocol request."""
    try:
        pairs = parse_qs(body.decode("utf-8"), keep_blank_values=True)
    except UnicodeDecodeError:
        return {}
    return {name: values[-1] for name, values in pairs.items()}


def s3_action(method: str, path: str, query: dict[str, list[str]]) -> str:
    """Name of the S3 call behind a path-style request."""
    bucket, _, key = path.lstrip("/").partition("/")
    if not bucket:
        return "ListBuckets"
    table, default = (_OBJECT_CALLS, _OBJECT_DEFAULT) if key else (_BUCKET_CALLS, _BUCKET_DEFAULT)
    for parameter, action in table.get(method, ()):
        if parameter in query:
            return action
    if not key and query and method in ("GET", "PUT"):
        subresource = next(iter(query))
        if subresource in ("prefix", "marker", "max-keys", "delimiter", "encoding-type"):
            return "ListObjects"
        return f"{method.capitalize()}Bucket{subresource.capitalize()}"
    return default.get(method, method)


def json_action(target: str) -> str:
    """Name of the call in an X-Amz-Target header."""
    return target.rsplit(".", 1)[-1]


def dynamodb_target(body: bytes, key_names: KeyNames) -> str:
    """Tables and keys that a DynamoDB request names: `table pk sk, table pk sk`; of a transaction, with its verbs."""
    asked = _json(body)
    names: list[str] = []
    if "TransactItems" in asked:
        for item in asked["TransactItems"]:
            names.extend(f"{verb} {_one_item(operation, key_names)}" for verb, operation in item.items())
    elif "RequestItems" in asked:
        for table, wanted in asked["RequestItems"].items():
            names.extend(_batch(table, wanted, key_names))
    elif "TableName" in asked:
        names.append(_one_item(asked, key_names))
    return ", ".join(names)


def generic_target(service: str, action: str, body: bytes, form: dict[str, str]) -> str:
    """The resource that a request of another service names, where it is plain to see."""
    asked: dict[str, Any] = _json(body) if not form else dict(form)
    if service == "events" and action == "PutEvents":
        return ", ".join(f"{e.get('Source', '')}/{e.get('DetailType', '')}" for e in asked.get("Entries", []))
    for name in ("QueueUrl", "Name", "StackName", "ParameterName", "RoleArn", "ScheduleName", "FunctionName"):
        if asked.get(name):
            return str(asked[name])
    return ""


def error_code(body: bytes, headers: dict[str, str]) -> str:
    """The error code in a refused request's answer; empty where there is none."""
    named = headers.get("x-amzn-errortype", "")
    if named:
        return named.split(":")[0]
    if body[:1] == b"{":
        kind = str(_json(body).get("__type", ""))
        return kind.rsplit("#", 1)[-1]
    start = body.find(b"<Code>")
    end = body.find(b"</Code>", start)
    return body[start + 6 : end].decode("utf-8", "replace") if start >= 0 and end > start else ""


def _one_item(operation: dict[str, Any], key_names: KeyNames) -> str:
    table = str(operation.get("TableName", ""))
    if "Key" in operation:
        return _named(table, operation["Key"], list(operation["Key"]), key_names)
    if "Item" in operation:
        return _named(table, operation["Item"], key_names(table), key_names)
    values = (operation.get("ExpressionAttributeValues") or {}).values()
    index = operation.get("IndexName")
    place = f"{table}/{index}" if index else table
    return " ".join([place, *(_plain(value) for value in values)])


def _batch(table: str, wanted: Any, key_names: KeyNames) -> list[str]:
    if isinstance(wanted, dict):
        return [_named(table, key, list(key), key_names) for key in wanted.get("Keys", [])]
    named = []
    for write in wanted:
        request = write.get("PutRequest") or write.get("DeleteRequest") or {}
        item = request.get("Item") or request.get("Key") or {}
        named.append(_named(table, item, key_names(table), key_names))
    return named


def _named(table: str, item: dict[str, Any], names: list[str], key_names: KeyNames) -> str:
    ordered = [name for name in key_names(table) if name in names] or sorted(names)
    return " ".join([table, *(_plain(item[name]) for name in ordered if name in item)])


def _plain(value: Any) -> str:
    return str(next(iter(value.values()))) if isinstance(value, dict) and value else str(value)


def _json(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body or b"{}")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
