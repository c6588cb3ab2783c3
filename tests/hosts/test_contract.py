"""Hosts reached by SSH pass the suite of every provider, over a real sshd."""

from __future__ import annotations

import pytest

from spotrelay.core.placement import Market, Pool, Rung
from spotrelay.testing.contracts.machines import Ec2UnderTest, MachinesContract
from spotrelay.testing.contracts.samples import NOON, new_id
from tests.hosts.lab import Lab


class TestSshMachines(MachinesContract):
    @pytest.fixture
    def ec2(self, lab: Lab) -> Ec2UnderTest:
        here, elsewhere = (host.pool for host in lab.hosts.hosts())

        def refuse(pool: Pool, code: str) -> None:
            taken = lab.machines.prepare(new_id(), 1, 1, Rung((pool,), "somebody else's"))
            assert lab.machines.launch(taken, NOON).instance_id is not None

        return Ec2UnderTest(
            lab.machines, (here,), refuse, elsewhere, lambda region: lab.servers[region.partition(":")[2]].stop(),
            run_short=lambda pool, most: pytest.fail("a launch on a host is for one machine"),
            full="HostBusy", unknown="h-0abcdef0123456789",
            changed=(Pool(here.region, here.zone, "another-kind", Market.OWN.value),),
        )  # fmt: skip

    @pytest.fixture
    def rounds(self) -> int:
        return 1
