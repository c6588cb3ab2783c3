"""What every `HostStore` must do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spotrelay.core.errors import AlreadyExists, Contention, Missing
from spotrelay.core.hosts import Host
from spotrelay.core.ports import HostStore
from spotrelay.testing.contracts.race import RACERS, race

LAB1 = Host("lab1", "train", "lab1.example.org", "ssm:/spotrelay-hosts/lab1", "ssh-ed25519 " + "A" * 68, kind="a100")
LAB2 = replace(LAB1, name="lab2", port=2222, slots=2, python="/opt/python", price=0.35)


class HostStoreContract:
    """Inherit, and give it `hosts`: an empty one."""

    @pytest.fixture
    def hosts(self) -> HostStore:
        """The implementation under test."""
        raise NotImplementedError("give the suite its registry")

    def test_hosts_come_back_as_they_were_registered_by_name(self, hosts: HostStore) -> None:
        hosts.add(LAB2)
        hosts.add(LAB1)

        assert hosts.hosts() == (LAB1, LAB2)

    def test_a_name_is_given_once(self, hosts: HostStore) -> None:
        hosts.add(LAB1)

        with pytest.raises(AlreadyExists, match="lab1"):
            hosts.add(replace(LAB2, name="lab1"))

        assert hosts.hosts() == (LAB1,)

    def test_a_drained_host_is_marked_until_it_is_opened_again(self, hosts: HostStore) -> None:
        hosts.add(LAB1)

        marked = hosts.drain("lab1")
        opened = hosts.drain("lab1", draining=False)

        assert marked == replace(LAB1, draining=True)
        assert opened == LAB1 == hosts.hosts()[0]

    def test_what_is_not_there_cannot_be_drained_and_may_be_removed(self, hosts: HostStore) -> None:
        hosts.remove("lab1")

        with pytest.raises(Missing):
            hosts.drain("lab1")

        assert hosts.hosts() == ()

    def test_a_removed_name_is_free_again(self, hosts: HostStore) -> None:
        hosts.add(LAB1)
        hosts.remove("lab1")

        hosts.add(replace(LAB2, name="lab1"))

        assert hosts.hosts() == (replace(LAB2, name="lab1"),)

    def test_of_many_who_register_one_name_one_does(self, hosts: HostStore) -> None:
        def add(port: int) -> int:
            try:
                hosts.add(replace(LAB1, port=port))
            except (AlreadyExists, Contention):
                return 0
            return port

        ports = [port for port in race([lambda p=p: add(p) for p in range(1, RACERS + 1)]) if port]  # type: ignore[misc]

        assert len(ports) == 1
        assert [host.port for host in hosts.hosts()] == ports
