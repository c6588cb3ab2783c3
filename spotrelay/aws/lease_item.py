"""The lease's item: each rule of `spotrelay.core.lease` as one conditional write."""

from __future__ import annotations

from collections.abc import Callable

from spotrelay.aws.layout import LEASE, lease_item, live_key, read_lease
from spotrelay.aws.table import Condition, ConditionFailed, Table
from spotrelay.core.errors import Contention, OutcomeUnknown, UnknownRun
from spotrelay.core.lease import Lease

TRIES = 10  # of one change, each after a fresh look


def load_lease(table: Table, run_id: str) -> Lease:
    """The lease as it stands.

    Raises:
        UnknownRun: there is no such run.
    """
    item = table.get(live_key(run_id), LEASE, f"reading the lease of run {run_id}")
    if item is None:
        raise UnknownRun(f"there is no run {run_id}")
    return read_lease(item)


def change_lease(table: Table, run_id: str, rule: Callable[[Lease], Lease]) -> Lease:
    """Replace the lease by what the rule makes of it, unless somebody changes it in between.

    Every rule gives the same answer when it is applied to its own result, so a lost reply is met
    by looking again.
    """
    doubt: Contention | OutcomeUnknown | None = None
    for _ in range(TRIES):
        before = load_lease(table, run_id)
        after = rule(before)
        if after == before:
            return after
        try:
            table.put(lease_item(after), f"changing the lease of run {run_id}", _unchanged(before))
            return after
        except ConditionFailed:
            continue
        except (Contention, OutcomeUnknown) as error:
            doubt = error
    raise doubt or Contention(f"the lease of run {run_id} changes all the time; try again a little later")


def _unchanged(lease: Lease) -> Condition:
    values = {
        ":generation": {"N": str(lease.generation)},
        ":floor": {"N": str(lease.floor)},
        ":save": {"N": str(lease.save)},
    }
    same = "#generation = :generation AND #floor = :floor AND #save = :save AND "
    holder = "attribute_not_exists(#holder)" if lease.holder is None else "#holder = :holder"
    held = {} if lease.holder is None else {":holder": {"S": lease.holder}}
    return Condition(same + holder, values | held)
