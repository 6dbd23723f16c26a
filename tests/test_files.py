"""Writing files: what is left of a try."""

from pathlib import Path

import pytest

from aunet.errors import AUNetError
from aunet.files import make_directory


def test_processes_of_one_number_do_not_take_each_others_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ranks in containers are; here the second tries while the first does."""
    unlink, names = Path.unlink, []

    def between(path: Path) -> None:
        names.append(path.name)
        if len(names) == 1:
            make_directory(tmp_path, "train.out")
        unlink(path)

    monkeypatch.setattr(Path, "unlink", between)
    make_directory(tmp_path, "train.out")
    assert len(set(names)) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AUNetError, match=r"--out: .*below cannot be written to \(Not a directory\); name another"):
        make_directory(tmp_path / "file" / "below", "--out")
