"""Fresh memory whose pages come in one go."""

from __future__ import annotations

import mmap
import resource

import pytest

from trainer_shim.pages import make_present

PAGES = 2000


def faults_while_touching(memory: mmap.mmap) -> int:
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for start in range(0, len(memory), mmap.PAGESIZE):
        memory[start] = 1
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


def fresh() -> mmap.mmap:
    memory = mmap.mmap(-1, PAGES * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


def test_memory_that_was_made_present_is_touched_without_a_fault_for_each_page() -> None:
    plain, present = fresh(), fresh()
    make_present(memoryview(present))
    if faults_while_touching(fresh()) < PAGES / 2:
        pytest.skip("this kernel brings pages in crowds anyway")

    assert faults_while_touching(plain) >= PAGES / 2
    assert faults_while_touching(present) < PAGES / 10


@pytest.mark.parametrize(("begin", "end"), [(0, 0), (1, 2), (100, 9000), (4096, 8192), (1, PAGES * mmap.PAGESIZE - 1)])
def test_what_is_in_memory_already_stays(begin: int, end: int) -> None:
    memory = fresh()
    memory[:] = b"x" * len(memory)

    make_present(memoryview(memory)[begin:end] if end > begin else memoryview(bytearray(b"x" * 10)))

    assert memory[:] == b"x" * len(memory)
