"""In-memory ports, fault wrappers, contract suites and strategies. For our tests and for yours."""

from spotrelay.testing.budget import MemoryCells
from spotrelay.testing.clock import ManualClock
from spotrelay.testing.experience import MemoryExperience
from spotrelay.testing.faults import Crash, Fault, Script, faulty
from spotrelay.testing.line import Ends, MemoryLine
from spotrelay.testing.machines import MemoryMachines, RequestRate
from spotrelay.testing.objects import MemoryObjects
from spotrelay.testing.signals import MemoryPublisher, MemorySwitch
from spotrelay.testing.store import MemoryStore

__all__ = [
    "Crash",
    "Ends",
    "Fault",
    "ManualClock",
    "MemoryCells",
    "MemoryExperience",
    "MemoryLine",
    "MemoryMachines",
    "MemoryObjects",
    "MemoryPublisher",
    "MemoryStore",
    "MemorySwitch",
    "RequestRate",
    "Script",
    "faulty",
]
