"""Building the kernels: once, by whoever is first, or one line that says why not."""

import subprocess
from pathlib import Path

import pytest

from aunet.errors import ConfigError
from aunet.infer.native.build import available, library, place
from aunet.language_model import LanguageModel
from tests.forks import begin
from tests.model.packs import small_config, small_model
from tests.runs import aunet, environment

compiler = pytest.mark.skipif(not available(), reason="the compiled kernels need a C++ compiler")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    LanguageModel(small_model(small_config(2)), native=False).save(tmp_path / "model")
    return tmp_path / "model"


def generate(model: Path, cache: Path, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    asked = ("generate", model, "--prompt", "One ", "--max-bytes", "20", *flags)
    return aunet(*asked, AUNET_CACHE=str(cache), **variables)


@compiler
def test_processes_that_build_at_the_same_time(model: Path, tmp_path: Path) -> None:
    asked = ("generate", model, "--prompt", "One ", "--max-bytes", "20", "--native")
    variables = {**environment(), "AUNET_CACHE": str(tmp_path / "cache")}
    results = [process.communicate() for process in [begin("aunet", *asked, env=variables) for _ in range(2)]]
    assert len(set(results)) == 1
    assert results[0][0].startswith("One ")
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert generate(model, tmp_path / "cache", "--native", PATH=str(tmp_path)).stdout == results[0][0]


def test_without_a_compiler_one_line_names_the_flag(model: Path, tmp_path: Path) -> None:
    result = generate(model, tmp_path / "none", "--native", PATH=str(tmp_path))
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "native: compiled kernels need a C++ compiler" in result.stderr
    assert generate(model, tmp_path / "none", PATH=str(tmp_path)).returncode == 0


def test_a_damaged_library_is_named(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUNET_CACHE", str(tmp_path / "cache"))
    place().parent.mkdir()
    place().write_bytes(b"nonsense")
    result = generate(model, tmp_path / "cache", "--native")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert str(place()) in result.stderr
    assert generate(model, tmp_path / "cache").returncode == 0


@compiler
def test_a_cache_that_cannot_be_written_is_named(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = generate(model, tmp_path / "file" / "cache", "--native")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "AUNET_CACHE" in result.stderr
    assert generate(model, tmp_path / "file" / "cache").returncode == 0


def test_without_a_home_directory_there_are_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a user whom the machine does not know."""
    for name in ("AUNET_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    with pytest.raises(ConfigError, match=r"^native: no home directory; name one in AUNET_CACHE$"):
        library.__wrapped__()
    monkeypatch.setattr("aunet.infer.native.build.library", library.__wrapped__)
    assert not available.__wrapped__()


def test_a_home_that_systems_share_has_a_library_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As containers of two distributions on one machine, of which the older cannot load what the newer built."""
    monkeypatch.setenv("AUNET_CACHE", str(tmp_path))
    here = place()
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.17"))
    assert place() != here


@pytest.mark.parametrize(("flags", "word"), [(("--weights", "fp8"), "fp32, bf16, int8"), (("--device", "meta"), "")])
def test_bad_flags_are_one_line(model: Path, tmp_path: Path, flags: tuple[str, ...], word: str) -> None:
    result = generate(model, tmp_path / "none", *flags)
    assert result.returncode != 0
    assert result.stderr.count("\n") == 1
    assert word in result.stderr
