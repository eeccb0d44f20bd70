"""Files appear whole or not at all, and what a killed writer left goes with the next one."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ingle.convert.errors import DiskFull, StorageError
from ingle.convert.files import PARTIAL_SUFFIX, appearing, continuing, require_space, scratch, sweep

HOLD = """
import sys, time
from pathlib import Path
from ingle.convert.files import appearing, continuing
key = sys.argv[2]
with continuing(Path(sys.argv[1]), key) if key else appearing(Path(sys.argv[1])) as partial:
    partial.write_text("half")
    print(partial, flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def holder(target: Path, key: str = "") -> tuple[subprocess.Popen[str], Path]:
    """A process that is writing ``target``, and its partial file."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(target), key],
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_file_appears_with_its_name_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "x.gguf"
    with appearing(target) as partial:
        partial.write_text("whole")
        assert not target.exists()
        assert partial.parent == target.parent
    assert target.read_text() == "whole"
    assert names(target.parent) == ["x.gguf"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x")])
def test_after_an_error_the_old_file_is_still_there(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "x.gguf"
    target.write_text("old")
    with pytest.raises(type(error)), appearing(target) as partial:
        partial.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert names(tmp_path) == ["x.gguf"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_said_so(tmp_path: Path, number: int) -> None:
    with pytest.raises(DiskFull, match="no space left"), appearing(tmp_path / "x"):
        raise OSError(number, "full")
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"), appearing(tmp_path / "file" / "x"):
        pytest.fail("the block must not run")


def test_what_a_killed_writer_left_goes_with_the_next(tmp_path: Path) -> None:
    target = tmp_path / "x[1].gguf"
    process, partial = holder(target)
    process.kill()
    process.communicate()
    assert names(tmp_path) == [partial.name]
    with appearing(target) as mine:
        mine.write_text("whole")
        assert not partial.exists()
    assert names(tmp_path) == [target.name]


def test_a_living_writer_keeps_its_partial_file(tmp_path: Path) -> None:
    target = tmp_path / "x.gguf"
    process, partial = holder(target)
    sweep(target)
    with appearing(target) as mine:
        mine.write_text("mine")
    assert partial.read_text() == "half"
    process.communicate("")
    assert target.read_text() == "half", "the last to finish wins, whole"
    assert names(tmp_path) == ["x.gguf"]


def test_what_a_killed_writer_left_is_continued_under_the_same_key(tmp_path: Path) -> None:
    target = tmp_path / "x.gguf"
    process, partial = holder(target, "ab" * 16)
    process.kill()
    process.communicate()
    with continuing(target, "ab" * 16) as mine:
        assert mine == partial
        assert mine.read_text() == "half"
        mine.write_text("whole")
    assert target.read_text() == "whole"
    assert names(tmp_path) == ["x.gguf"]


def test_under_another_key_it_goes(tmp_path: Path) -> None:
    target = tmp_path / "x.gguf"
    process, partial = holder(target, "ab" * 16)
    process.kill()
    process.communicate()
    with continuing(target, "cd" * 16) as mine:
        assert not partial.exists()
        assert mine.read_text() == ""
        mine.write_text("whole")
    assert names(tmp_path) == ["x.gguf"]


def test_what_a_living_writer_is_at_is_not_continued(tmp_path: Path) -> None:
    target = tmp_path / "x.gguf"
    process, partial = holder(target, "ab" * 16)
    with continuing(target, "ab" * 16) as mine:
        assert mine != partial
        mine.write_text("mine")
    assert partial.read_text() == "half"
    process.communicate("")
    assert target.read_text() == "half"
    assert names(tmp_path) == ["x.gguf"]


def test_a_scratch_file_is_there_while_its_block_runs(tmp_path: Path) -> None:
    with scratch(tmp_path / "x.gguf") as path:
        path.write_text("some")
    assert names(tmp_path) == []


def test_partial_files_of_others_stay(tmp_path: Path) -> None:
    other = tmp_path / f".y.gguf.abc{PARTIAL_SUFFIX}"
    other.write_text("")
    sweep(tmp_path / "x.gguf")
    assert other.exists()


def test_space_is_counted_on_the_disk_of_a_folder_to_be_made(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "there", 1)
    with pytest.raises(DiskFull, match=r"needs 1,000,000,000,000,000,000,000 bytes, but its disk has [\d,]+ free"):
        require_space(tmp_path / "not" / "there", 10**21)
