"""The systems that are compared."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from benchmarks.checkpoint.systems.system import Place, System


@dataclass(frozen=True)
class Entry:
    """Where a system is, and what it needs."""

    label: str
    module: str
    name: str
    needs: tuple[str, ...] = ()
    options: tuple[tuple[str, bool], ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    reads: str = ""  # the system that restores what this one has saved; itself when empty

    @property
    def missing(self) -> str:
        """The package that is not installed, if one is not."""
        return next((name for name in self.needs if find_spec(name) is None), "")

    def make(self, place: Place) -> System:
        """The system at work."""
        system: System = getattr(import_module(f"{__name__}.{self.module}"), self.name)(place, **dict(self.options))
        return system


SYSTEMS = {
    "floor": Entry("floor", "floor", "Floor"),
    "ours": Entry("trainer_shim", "ours", "Ours"),
    "ours-lazy": Entry("trainer_shim, lazy", "ours", "Ours", options=(("lazy", True),)),
    "dcp-async": Entry(
        "DCP async, one kept DefaultStager + s3torchconnector", "dcp", "DcpAsync", ("s3torchconnector",), reads="dcp"
    ),
    "dcp-async-staged": Entry(
        "the same, staging in its thread",
        "dcp",
        "DcpAsync",
        ("s3torchconnector",),
        (("staged", True),),
        reads="dcp",
    ),
    "dcp": Entry("DCP save + s3torchconnector", "dcp", "Dcp", ("s3torchconnector",)),
    "torch": Entry("torch.save + boto3", "torch_save", "TorchSave"),
    "safetensors": Entry("safetensors + CRT", "safe", "Safetensors", ("safetensors", "awscrt")),
    "torchsnapshot": Entry(
        "torchsnapshot async",
        "snapshot",
        "Torchsnapshot",
        ("torchsnapshot", "aiobotocore"),
        environment=(("BOTO_DISABLE_CRT", "true"),),  # the signer in C does not take its streams
    ),
    "orbax": Entry("Orbax async (local disk)", "orbax", "Orbax", ("orbax", "jax")),
}
