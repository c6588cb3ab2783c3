"""The account's experience in DynamoDB: one item for each region and type, beside the runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from spotrelay.aws.layout import Item, key
from spotrelay.aws.table import ABSENT, Condition, ConditionFailed, Table
from spotrelay.core.errors import Contention
from spotrelay.core.experience import Experience
from spotrelay.core.lessons import Lesson, learnt
from spotrelay.core.outlook import Outlook
from spotrelay.core.row import SCHEMA, check_schema, decode_value, encode_value

PARTITION = "EXPERIENCE"
OUTLOOK = "outlook#"  # sort key of what EC2 says; no region is called so
TRIES = 3  # against others who learn at the same moment


class DynamoExperience:
    """An `ExperienceStore` over the table of our layout."""

    def __init__(self, client: Any, table: str) -> None:
        self._table = Table(client, table)

    def recall(self) -> Experience:
        """Everything learnt so far; a moment's delay does no harm, so the read is the cheap one."""
        doing = "reading what is known of pools"
        found = self._table.query("pk = :pk", {":pk": PARTITION}, doing, ConsistentRead=False)
        known = [_read(item) for item in found]
        records = tuple(record for each in known for record in each.records)
        return Experience(records, tuple(outlook for each in known for outlook in each.outlooks))

    def learn(self, lessons: Iterable[Lesson], scale: float = 1.0) -> None:
        """Add these lessons, each in the item of its region and type."""
        places: dict[str, list[Lesson]] = defaultdict(list)
        for lesson in lessons:
            places[f"{lesson.pool.region}#{lesson.pool.instance_type}"].append(lesson)
        for place, each in places.items():
            self._learn_at(place, each, scale)

    def keep(self, outlook: Outlook) -> None:
        """Keep what EC2 was asked or is to be asked; who writes last is right, for it is only a hint."""
        item = _item(f"{OUTLOOK}{outlook.slot:02d}", Experience(outlooks=(outlook,)), 1)
        self._table.put(item, "keeping what EC2 says of zones")

    def _learn_at(self, place: str, lessons: list[Lesson], scale: float) -> None:
        doing = f"learning about pools of {place}"
        for _ in range(TRIES):
            item = self._table.get(PARTITION, place, doing)
            known = _read(item) if item else Experience()
            after = learnt(known, lessons, scale)
            if after == known:
                return
            version = int(item["version"]["N"]) if item else 0
            try:
                self._table.put(_item(place, after, version + 1), doing, _still(version))
                return
            except ConditionFailed:
                continue
        raise Contention(f"{doing}: others were faster {TRIES} times in a row")


def _still(version: int) -> Condition:
    return Condition("#version = :version", {":version": {"N": str(version)}}) if version else ABSENT


def _item(place: str, experience: Experience, version: int) -> Item:
    body = {"S": encode_value(experience)}
    return key(PARTITION, place) | {"body": body, "schema": {"N": str(SCHEMA)}, "version": {"N": str(version)}}


def _read(item: Item) -> Experience:
    what = f"what is known of pools of {item['sk']['S']}"
    check_schema(int(item["schema"]["N"]), what)
    return decode_value(Experience, item["body"]["S"], what)
