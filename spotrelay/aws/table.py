"""The few DynamoDB calls that we make, with their failures told apart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from spotrelay.aws.error_codes import PRECONDITION, THROTTLES
from spotrelay.aws.failures import FAILURES, Kind, code_of, failed_read, failed_write, kind_of
from spotrelay.aws.layout import Item, key
from spotrelay.core.errors import Contention, InvalidInput, SpotrelayError


class ConditionFailed(Exception):
    """A condition was not met. `found` is the item that stood in the way, or None if there was none."""

    def __init__(self, found: Item | None, action: int = 0) -> None:
        super().__init__(f"condition of action {action} failed")
        self.found = found
        self.action = action  # its place in the transaction


@dataclass(frozen=True)
class Condition:
    """An expression and its values. Attributes are written `#name`: DynamoDB reserves many words."""

    expression: str
    values: Mapping[str, Any] | None = None

    def arguments(self, update: str = "") -> dict[str, Any]:
        """As a request takes it, with the names of an update expression beside it."""
        names = {f"#{name}": name for name in re.findall(r"#(\w+)", f"{self.expression} {update}")}
        return (
            {"ConditionExpression": self.expression, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
            | ({"ExpressionAttributeValues": dict(self.values)} if self.values else {})
            | ({"ExpressionAttributeNames": names} if names else {})
        )


ABSENT = Condition("attribute_not_exists(#pk)")
MANY = 100  # keys that one BatchGetItem takes
BATCH_TRIES = 5  # an answer may leave out what would be too much at once


class Table:
    """One table of our layout."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self.name = name
        self._absent = f"table {name} is not there; run `spotrelay doctor`, and deploy the stack if it says so"

    def get(self, partition: str, sort: str, doing: str) -> Item | None:
        """One item, read consistently."""
        try:
            answer = self._client.get_item(TableName=self.name, Key=key(partition, sort), ConsistentRead=True)
        except FAILURES as error:
            raise failed_read(error, doing, self._absent) from error
        item: Item | None = answer.get("Item")
        return item

    def get_many(self, keys: Sequence[tuple[str, str]], doing: str) -> Iterator[Item]:
        """Those of these items that are there, a hundred in a request; a moment's delay is possible."""
        for start in range(0, len(keys), MANY):
            yield from self._batch([key(*each) for each in keys[start : start + MANY]], doing)

    def _batch(self, keys: list[Item], doing: str) -> Iterator[Item]:
        for _ in range(BATCH_TRIES):
            try:
                answer = self._client.batch_get_item(RequestItems={self.name: {"Keys": keys}})
            except FAILURES as error:
                raise failed_read(error, doing, self._absent) from error
            yield from answer["Responses"].get(self.name, [])
            keys = answer.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", [])
            if not keys:
                return
        raise Contention(f"{doing}: DynamoDB left {len(keys)} items out, {BATCH_TRIES} times in a row")

    def query(self, expression: str, values: Mapping[str, str], doing: str, **options: Any) -> Iterator[Item]:
        """Items by a key condition over texts, page after page; consistently unless an index is named."""
        request = {
            "TableName": self.name,
            "KeyConditionExpression": expression,
            "ExpressionAttributeValues": {name: {"S": value} for name, value in values.items()},
            "ConsistentRead": "IndexName" not in options,
        }
        yield from self.pages(request | options, doing)

    def newest(self, partition: str, prefix: str, limit: int, doing: str) -> list[Item]:
        """Up to `limit` items whose sort key starts with `prefix`, the highest first."""
        values = {":pk": partition, ":prefix": prefix}
        found = self.query("pk = :pk AND begins_with(sk, :prefix)", values, doing, ScanIndexForward=False, Limit=limit)
        return [item for item, _ in zip(found, range(limit), strict=False)]

    def pages(self, request: Mapping[str, Any], doing: str) -> Iterator[Item]:
        """Every item that a query answers with, asking for the next page only when it is wanted."""
        request = dict(request)
        while True:
            try:
                answer = self._client.query(**request)
            except FAILURES as error:
                raise failed_read(error, doing, self._absent) from error
            yield from answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def put(self, item: Item, doing: str, condition: Condition | None = None) -> None:
        """Write an item whole.

        Raises:
            ConditionFailed: the condition was not met; nothing was written.
        """
        conditional = condition.arguments() if condition else {}
        try:
            self._client.put_item(TableName=self.name, Item=item, **conditional)
        except FAILURES as error:
            raise self._failed(error, doing) from error

    def merge(self, item: Item, doing: str) -> Item:
        """Write these attributes of an item and leave its others; the whole item as it is now."""
        fields = {name: value for name, value in item.items() if name not in ("pk", "sk")}
        try:
            answer = self._client.update_item(
                TableName=self.name,
                Key={name: item[name] for name in ("pk", "sk")},
                UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in fields),
                ExpressionAttributeNames={f"#{name}": name for name in fields},
                ExpressionAttributeValues={f":{name}": value for name, value in fields.items()},
                ReturnValues="ALL_NEW",
            )
        except FAILURES as error:
            raise self._failed(error, doing) from error
        whole: Item = answer.get("Attributes", {})
        return whole

    def put_of(self, item: Item, condition: Condition | None = None) -> dict[str, Any]:
        """A put, as one action of a transaction."""
        conditional = condition.arguments() if condition else {}
        return {"Put": {"TableName": self.name, "Item": item} | conditional}

    def check_of(self, partition: str, sort: str, condition: Condition) -> dict[str, Any]:
        """A condition on an item that stays as it is, as one action of a transaction."""
        return {"ConditionCheck": {"TableName": self.name, "Key": key(partition, sort)} | condition.arguments()}

    def update(
        self, partition: str, sort: str, change: str, doing: str, condition: Condition, told: str = "NONE"
    ) -> Item:
        """Change some attributes of an item; the values are those of the condition.

        Args:
            told: which attributes come back, in DynamoDB's words for `ReturnValues`.

        Raises:
            ConditionFailed: the condition was not met; nothing was written.
        """
        request = self.update_of(partition, sort, change, condition)["Update"]
        try:
            answer = self._client.update_item(**request, ReturnValues=told)
        except FAILURES as error:
            raise self._failed(error, doing) from error
        changed: Item = answer.get("Attributes", {})
        return changed

    def delete(self, partition: str, sort: str, doing: str) -> None:
        """Take an item away. Harmless when it is not there."""
        try:
            self._client.delete_item(TableName=self.name, Key=key(partition, sort))
        except FAILURES as error:
            raise self._failed(error, doing) from error

    def delete_of(self, partition: str, sort: str, condition: Condition | None = None) -> dict[str, Any]:
        """Taking an item away, as one action of a transaction."""
        conditional = condition.arguments() if condition else {}
        return {"Delete": {"TableName": self.name, "Key": key(partition, sort)} | conditional}

    def update_of(self, partition: str, sort: str, update: str, condition: Condition) -> dict[str, Any]:
        """An update, as one action of a transaction; its values are those of the condition."""
        request = {"TableName": self.name, "Key": key(partition, sort), "UpdateExpression": update}
        return {"Update": request | condition.arguments(update)}

    def transact(self, actions: Sequence[Mapping[str, Any]], doing: str) -> None:
        """All of these writes, or none.

        Raises:
            ConditionFailed: a condition was not met; the first such action is named.
            Contention: another transaction was faster; nothing was written.
        """
        try:
            self._client.transact_write_items(TransactItems=list(actions))
        except FAILURES as error:
            raise self._cancelled(error, doing) from error

    def _failed(self, error: Exception, doing: str) -> Exception:
        if kind_of(error) is Kind.PRECONDITION and isinstance(error, ClientError):
            answer: dict[str, Any] = dict(error.response)
            return ConditionFailed(answer.get("Item"))
        return failed_write(error, doing, self._absent)

    def _cancelled(self, error: Exception, doing: str) -> Exception:
        if code_of(error) != "TransactionCanceledException" or not isinstance(error, ClientError):
            return failed_write(error, doing, self._absent)
        answer: dict[str, Any] = dict(error.response)
        return _reason(answer.get("CancellationReasons", []), doing)


def _reason(reasons: Sequence[Mapping[str, Any]], doing: str) -> ConditionFailed | SpotrelayError:
    for index, reason in enumerate(reasons):
        if reason.get("Code") in PRECONDITION:
            return ConditionFailed(reason.get("Item"), index)
    codes = sorted({str(reason.get("Code")) for reason in reasons} - {"None"})
    if not codes or set(codes) & THROTTLES:
        return Contention(f"{doing}: another transaction was faster ({', '.join(codes) or 'no reason given'})")
    return InvalidInput(f"{doing}: DynamoDB refused the transaction ({', '.join(codes)})")
