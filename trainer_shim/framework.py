"""What the session needs of a training framework. Each one is in a file of its own in `frameworks`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from spotrelay.core.ports import Body
from trainer_shim.layouts import Box
from trainer_shim.shards import Plan
from trainer_shim.sharing import Place
from trainer_shim.staging import Pin
from trainer_shim.tree import Array, Composite, Leaf


class Feed(Protocol):
    """Batches, epoch after epoch, from a loader whose position can be saved."""

    def next(self) -> Any:
        """The next batch; begins a new epoch where one ends.

        Raises:
            StopIteration: the loader has no batch at all, or only one pass was asked for and is over.
        """
        ...

    def position(self) -> dict[str, Any]:
        """Where in the data the next batch is, as training state."""
        ...

    def close(self) -> None:
        """End the loader's workers."""
        ...


class Framework(Protocol):
    """Everything that is particular to one framework."""

    @property
    def ready(self) -> bool:
        """Whether there is something to put a restored state into; if not, `Session.fit` does it later."""
        ...

    @property
    def state(self) -> Any:
        """What the script makes anew with each step; None where what it attached changes in place."""
        ...

    def renew(self, state: Any) -> None:
        """Take the state that a step has made; None when it handed nothing over.

        Raises:
            InvalidInput: that is not what this framework's scripts do, or a resume could not fill it.
        """
        ...

    @property
    def versions(self) -> dict[str, str]:
        """Of the framework and what it computes with."""
        ...

    @property
    def threads(self) -> int:
        """Within one operation: another number may change the bits of a result."""
        ...

    def capture(self) -> dict[str, Any]:
        """The training state: live arrays, not copies, in a tree that `tree.flatten` accepts."""
        ...

    def describe(self, value: Any, path: str) -> Array | Composite | None:
        """What a value is if it is an array of the framework's, or made up of several.

        Raises:
            InvalidInput: it is one that no checkpoint can hold.
        """
        ...

    @property
    def pin(self) -> Pin | None:
        """Registers host memory with a device, for copies at full speed; None where there is none."""
        ...

    @property
    def rolls_back(self) -> bool:
        """Whether a state may be put back while the training loop is running."""
        ...

    def bad_gradients(self) -> str:
        """What is wrong with the gradients that the newest step has left; empty where none are left."""
        ...

    @property
    def copiers(self) -> int:
        """Threads that `stage` may be called on at the same time, each for another shard, while the training waits."""
        ...

    def stage(self, leaves: Sequence[Leaf], plan: Plan, shard: int, memory: memoryview) -> None:
        """Begin to copy the arrays of one shard to their places in the shard's memory."""
        ...

    def mark(self, leaves: Sequence[Leaf]) -> None:
        """Let copies that another thread begins wait for everything that was asked of the devices until now."""
        ...

    def landed(self) -> None:
        """Return once every copy that was begun has arrived."""
        ...

    def bodies(self, leaves: Sequence[Leaf], plan: Plan) -> list[Body] | None:
        """The shards' bytes where they are, header first; None when they cannot be read in place."""
        ...

    def not_finite(self, leaves: Sequence[Leaf], plan: Plan, shard: int, memory: memoryview | None) -> tuple[str, ...]:
        """Names of a shard's parameters and optimizer arrays that hold an infinity or a NaN.

        Args:
            memory: what it was staged into; None to look at the arrays themselves.
        """
        ...

    def keeps_still(self, group: str) -> bool:
        """Whether only the optimizer's step changes arrays of this group."""
        ...

    def guard(self, settle: Callable[[], None]) -> bool:
        """Have `settle` called before every step of the optimizer; False when that cannot be arranged."""
        ...

    def stamps(self, leaves: Sequence[Leaf]) -> list[int]:
        """A number for each array that changes when somebody writes to it, as far as the framework counts that."""
        ...

    def array(self, data: memoryview, dtype: str, shape: tuple[int, ...]) -> Any:
        """An array over these bytes, which nobody else uses: the training may go on in this very memory.

        Raises:
            InvalidInput: they cannot be one.
        """
        ...

    def stand_in(self, dtype: str, shape: tuple[int, ...]) -> Any:
        """What `misfits` takes for an array that has not been fetched yet; needs no memory.

        Raises:
            InvalidInput: there is no such type, or no such array.
        """
        ...

    def compose(self, kind: str, parts: dict[str, Any]) -> Any:
        """What `describe` said to be made up of these parts, of arrays or of stand-ins.

        Raises:
            InvalidInput: they cannot be one.
        """
        ...

    def copied(self, name: str) -> bool:
        """Whether `apply` copies the array of this name into memory that the script holds already.

        If not, the script gets the memory that was given to `array`.
        """
        ...

    def misfits(self, state: dict[str, Any]) -> list[str]:
        """Every reason why a state cannot be applied to what the script attached; touches nothing."""
        ...

    def apply(self, state: dict[str, Any]) -> None:
        """Put a state that has no misfits into the model, the optimizer and the rest.

        The arrays are taken out of the state on the way, so that each is given back as soon as it was copied.
        """
        ...

    def apply_randomness(self, state: dict[str, Any]) -> None:
        """Put only the random generators of the process where the state has them."""
        ...

    def feed(
        self,
        loader: Any,
        endless: bool,
        tracked: bool,
        position: dict[str, Any] | None,
        settled: Callable[[], None],
    ) -> Feed:
        """Batches from a loader.

        Args:
            endless: begin another epoch whenever one ends.
            tracked: whether the position will be saved; if not, the loader is used as it is.
            position: where to continue; None for the beginning.
            settled: to be called when the position is reached, before the first batch is asked for.
        """
        ...

    def loss(self, value: Any, wait: bool) -> float | None:
        """A loss or a norm as a number; None when it is none.

        Args:
            wait: also when that means to wait for a device; None otherwise.
        """
        ...


class Replicas(Protocol):
    """What a framework knows of state that several ranks hold alike."""

    def place(self, name: str) -> Place:
        """Whose copy of the array with this name is saved."""
        ...

    def own(self, tree: dict[str, Any]) -> dict[str, Any]:
        """The part of a state's tree that every rank has for itself."""
        ...

    def wanted(self, name: str, shape: tuple[int, ...]) -> Box | None:
        """Which part of a saved array that lies in pieces this rank needs; None for all of it."""
        ...

    def witness(self, leaves: Sequence[Leaf], turn: int) -> str:
        """Digest of pieces of some of these arrays, others at each turn: it differs where the ranks do."""
        ...
