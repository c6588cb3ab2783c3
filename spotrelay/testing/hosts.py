"""The registry of hosts in memory."""

from __future__ import annotations

import threading
from dataclasses import replace

from spotrelay.core.errors import AlreadyExists, Missing
from spotrelay.core.hosts import Host


class MemoryHosts:
    """A `HostStore`."""

    def __init__(self, *hosts: Host) -> None:
        self._lock = threading.Lock()
        self._hosts = {host.name: host for host in hosts}

    def hosts(self) -> tuple[Host, ...]:
        """All of them, by name."""
        with self._lock:
            return tuple(self._hosts[name] for name in sorted(self._hosts))

    def one(self, name: str) -> Host:
        """The host with this name."""
        with self._lock:
            return self._hosts[name]

    def add(self, host: Host) -> None:
        """Register a host."""
        with self._lock:
            if host.name in self._hosts:
                raise AlreadyExists(f"host {host.name} is registered already")
            self._hosts[host.name] = host

    def drain(self, name: str, draining: bool = True) -> Host:
        """Let nothing start there any more, or let it again."""
        with self._lock:
            if name not in self._hosts:
                raise Missing(f"no host {name} is registered")
            self._hosts[name] = replace(self._hosts[name], draining=draining)
            return self._hosts[name]

    def remove(self, name: str) -> None:
        """Forget a host."""
        with self._lock:
            self._hosts.pop(name, None)
