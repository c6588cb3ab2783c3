"""Requests are named in the log as their API calls them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from spotrelay.localcloud import calls, conditions


def keys(table: str, index: str = "") -> list[str]:
    return ["due_shard", "due_at"] if index else ["pk", "sk"]


def body(**asked: Any) -> bytes:
    return json.dumps(asked).encode()


@pytest.mark.parametrize(
    ("method", "path", "query", "action"),
    [
        ("PUT", "/b/k", {}, "PutObject"),
        ("PUT", "/b/k", {"partNumber": ["1"], "uploadId": ["u"]}, "UploadPart"),
        ("POST", "/b/k", {"uploads": [""]}, "CreateMultipartUpload"),
        ("POST", "/b/k", {"uploadId": ["u"]}, "CompleteMultipartUpload"),
        ("GET", "/b/k", {"versionId": ["v"]}, "GetObject"),
        ("HEAD", "/b/k", {}, "HeadObject"),
        ("GET", "/b", {"versions": [""]}, "ListObjectVersions"),
        ("GET", "/b", {"list-type": ["2"]}, "ListObjectsV2"),
        ("POST", "/b", {"delete": [""]}, "DeleteObjects"),
        ("GET", "/", {}, "ListBuckets"),
    ],
)
def test_s3_calls_are_told_from_method_path_and_query(
    method: str, path: str, query: dict[str, list[str]], action: str
) -> None:
    assert calls.s3_action(method, path, query) == action


def test_a_transaction_names_every_item_by_its_key() -> None:
    asked = body(
        TransactItems=[
            {"Update": {"TableName": "runs", "Key": {"sk": {"S": "LEASE"}, "pk": {"S": "LIVE#r"}}}},
            {"Put": {"TableName": "runs", "Item": {"a": {"N": "1"}, "sk": {"S": "COMMIT"}, "pk": {"S": "LIVE#r"}}}},
        ]
    )

    assert calls.dynamodb_target(asked, keys) == "Update runs LIVE#r LEASE, Put runs LIVE#r COMMIT"


def test_a_query_names_table_index_and_values() -> None:
    asked = body(TableName="runs", IndexName="due", ExpressionAttributeValues={":s": {"S": "3"}})

    assert calls.dynamodb_target(asked, keys) == "runs/due 3"


def test_published_events_are_named_by_source_and_type() -> None:
    asked = body(Entries=[{"Source": "spotrelay", "DetailType": "Run Submitted"}])

    assert calls.generic_target("events", "PutEvents", asked, {}) == "spotrelay/Run Submitted"


def test_error_codes_are_read_from_json_header_and_xml() -> None:
    assert calls.error_code(b'{"__type":"com.amazonaws#ThrottlingException"}', {}) == "ThrottlingException"
    assert calls.error_code(b"", {"x-amzn-errortype": "AccessDenied:http://x"}) == "AccessDenied"
    assert calls.error_code(b"<Error><Code>NoSuchKey</Code></Error>", {}) == "NoSuchKey"


def test_garbage_is_named_by_nothing_and_raises_nothing() -> None:
    assert calls.dynamodb_target(b"\xff{", keys) == ""
    assert calls.form_of(b"\xff") == {}
    assert calls.error_code(b"oops", {}) == ""


def test_leading_keys_of_items_queries_and_indexes() -> None:
    item = body(TableName="runs", Key={"pk": {"S": "RUN#r"}, "sk": {"S": "ROW"}})
    query = body(
        TableName="runs",
        KeyConditionExpression="#p = :p AND begins_with(sk, :s)",
        ExpressionAttributeNames={"#p": "pk"},
        ExpressionAttributeValues={":p": {"S": "LIVE#r"}, ":s": {"S": "BEAT#"}},
    )
    index = body(
        TableName="runs",
        IndexName="due",
        KeyConditionExpression="due_at < :t AND due_shard = :d",
        ExpressionAttributeValues={":t": {"N": "9"}, ":d": {"S": "3"}},
    )

    assert conditions.leading_keys(item, keys) == ["RUN#r"]
    assert conditions.leading_keys(query, keys) == ["LIVE#r"]
    assert conditions.leading_keys(index, keys) == ["3"]


def test_leading_keys_that_cannot_be_read_are_not_invented() -> None:
    assert conditions.leading_keys(body(TableName="runs"), keys) is None
    assert conditions.leading_keys(body(TableName="runs", Key={"sk": {"S": "x"}}), keys) is None
    assert conditions.leading_keys(b"[]", keys) is None


def test_one_unreadable_item_hides_the_keys_of_the_whole_transaction() -> None:
    readable = {"Put": {"TableName": "runs", "Item": {"pk": {"S": "LIVE#r"}, "sk": {"S": "x"}}}}

    assert conditions.leading_keys(body(TransactItems=[readable, {"Put": {"TableName": "runs"}}]), keys) is None


def test_entries_of_several_sources_have_no_single_source() -> None:
    one = body(Entries=[{"Source": "spotrelay", "DetailType": "a"}, {"Source": "spotrelay", "DetailType": "b"}])
    two = body(Entries=[{"Source": "spotrelay", "DetailType": "a"}, {"Source": "other", "DetailType": "a"}])

    assert conditions.event_context(one)["events:source"] == "spotrelay"
    assert conditions.event_context(two)["events:source"] == ["other", "spotrelay"]
