"""Files that lie in memory: what was written is read, and memory behind the reader goes back."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from shardfit_lightgbm.memory_file import HEAD_BYTES, memory_file

MIB = 2**20
SECONDS = 60.0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory goes back on Linux alone: run it there")
def test_memory_behind_the_reader_goes_back_but_that_of_the_head() -> None:
    with memory_file(8 * MIB) as file:
        file.content[:] = 7
        with file.given_back_as_it_is_read(), Path(file.path).open("rb", buffering=0) as reader:
            assert reader.read(4 * MIB) == b"\7" * (4 * MIB)
            deadline = time.monotonic() + SECONDS
            while file.content[HEAD_BYTES : 4 * MIB].any() and time.monotonic() < deadline:
                time.sleep(0.001)
            assert not file.content[HEAD_BYTES : 4 * MIB].any()
            assert (file.content[:HEAD_BYTES] == 7).all()
            assert reader.read() == b"\7" * (4 * MIB)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory goes back on Linux alone: run it there")
def test_who_keeps_the_content_keeps_no_memory() -> None:
    with memory_file(3 * MIB) as file:
        file.content[:] = 7
    # As an error does that is kept, with all that it came through.
    assert not file.content.any()


def test_a_file_on_a_disk_is_read_as_one_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with memory_file(3 * MIB) as file:
        file.content[:] = 7
        with file.given_back_as_it_is_read():
            assert Path(file.path).read_bytes() == b"\7" * (3 * MIB)
    assert not Path(file.path).exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory goes back on Linux alone: run it there")
def test_nothing_goes_back_where_the_kernel_does_not_say_how_far_a_file_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = Path.read_text
    # What gVisor's kernel says of a descriptor: no more than its flags.
    told = "flags:\t02100002\n"
    monkeypatch.setattr(Path, "read_text", lambda path: told if "fdinfo" in str(path) else plain(path))
    with memory_file(4 * MIB) as file:
        file.content[:] = 7
        with file.given_back_as_it_is_read():
            time.sleep(0.05)
        assert (file.content == 7).all()
