"""Answers are remembered, also those of a process that was killed."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from aunet.errors import AUNetError
from aunet.evals import cache
from aunet.evals.answers import Continuation, Likelihood, Writing
from aunet.evals.cache import CachedAnswers, model_digest
from aunet.infer.scoring import Progress
from aunet.language_model import LanguageModel
from tests.model.packs import small_config, small_model
from tests.runs import environment


class Counted:
    """Answers by the length of the text, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Continuation | Writing] = []

    def likelihoods(self, asked: Sequence[Continuation], progress: Progress | None = None) -> list[Likelihood]:
        self.asked += asked
        if progress:
            progress(len(asked))
        return [Likelihood(len(one.text) / 3, len(one.text) % 2 == 0) for one in asked]

    def writings(self, asked: Sequence[Writing], progress: Progress | None = None) -> list[bytes]:
        self.asked += asked
        if progress:
            progress(len(asked))
        return [one.prompt[::-1] for one in asked]


def continuations(count: int) -> list[Continuation]:
    return [Continuation(b"%d" % (i % 7), b"x" * i) for i in range(count)]


def test_answers_are_given_again_without_the_model(tmp_path: Path) -> None:
    asked, written = continuations(10), [Writing(b"ab", 3), Writing(b"ab", 4), Writing(b"ab", 3, (b"\x80",))]
    first, second = Counted(), Counted()
    answers = CachedAnswers(first, tmp_path / "cache", "model")
    told: list[int] = []
    expected = answers.likelihoods(asked * 2, told.append), answers.writings(written, told.append)
    assert sum(told) == 23
    assert sorted(map(repr, first.asked)) == sorted(map(repr, [*asked, *written]))
    again = CachedAnswers(second, tmp_path / "cache", "model")
    assert (again.likelihoods(asked * 2, told.append), again.writings(written, told.append)) == expected
    assert expected[0][:10] == Counted().likelihoods(asked)
    assert sum(told) == 46
    assert not second.asked


def test_requests_and_models_are_told_apart(tmp_path: Path) -> None:
    one = Counted()
    answers = CachedAnswers(one, tmp_path / "cache", "model")
    answers.likelihoods([Continuation(b"ab", b"c"), Continuation(b"a", b"bc"), Continuation(b"abc", b"")])
    answers.writings([Writing(b"ab", 3, (b"c", b"d")), Writing(b"ab", 3, (b"cd",)), Writing(b"ab", 3)])
    CachedAnswers(one, tmp_path / "cache", "another").likelihoods([Continuation(b"ab", b"c")])
    assert len(one.asked) == 7


def test_a_block_is_written_before_the_next_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "BLOCK", 4)

    class Fails(Counted):
        def likelihoods(self, asked: Sequence[Continuation], progress: Progress | None = None) -> list[Likelihood]:
            if len(self.asked) >= 8:
                raise KeyboardInterrupt
            return super().likelihoods(asked, progress)

    with pytest.raises(KeyboardInterrupt):
        CachedAnswers(Fails(), tmp_path / "cache", "model").likelihoods(continuations(20))
    later = Counted()
    CachedAnswers(later, tmp_path / "cache", "model").likelihoods(continuations(20))
    assert len(later.asked) == 12


PROGRAM = """
import json, sys, time
from pathlib import Path
from aunet.evals import cache
from aunet.evals.answers import Continuation, Likelihood
cache.BLOCK = 5
class Slow:
    def likelihoods(self, asked, progress=None):
        print(json.dumps([len(one.text) for one in asked]), flush=True)
        time.sleep(0.05)
        return [Likelihood(len(one.text) / 3, len(one.text) % 2 == 0) for one in asked]
asked = [Continuation(b"%d" % (i % 7), b"x" * i) for i in range(5000)]
cache.CachedAnswers(Slow(), Path(sys.argv[1]), "model").likelihoods(asked)
"""


def test_processes_that_are_killed_leave_their_answers(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    workers = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, path], stdout=subprocess.PIPE, text=True, env=environment())
        for _ in range(2)
    ]
    begun: list[list[list[int]]] = []
    for worker in workers:
        assert worker.stdout
        begun.append([json.loads(worker.stdout.readline()) for _ in range(6)])
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
        assert worker.wait() == -signal.SIGKILL
        assert worker.stdout
        worker.stdout.close()
    # What was begun last may be lost; what was begun before it was written.
    written = {size for blocks in begun for block in blocks[:-1] for size in block}
    assert len(written) >= 25
    later = Counted()
    found = CachedAnswers(later, path, "model").likelihoods(continuations(5000))
    assert found == Counted().likelihoods(continuations(5000))
    assert not written & {len(one.text) for one in later.asked if isinstance(one, Continuation)}
    with sqlite3.connect(path) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_digest_is_of_what_the_model_is(tmp_path: Path) -> None:
    found = set()
    for seed in (0, 1):
        LanguageModel(small_model(small_config(2), seed)).save(tmp_path / str(seed))
        found |= {model_digest(tmp_path / str(seed)), model_digest(tmp_path / str(seed), "bf16")}
    LanguageModel(small_model(small_config(2), 0)).save(tmp_path / "copy")
    assert len(found) == 4
    assert model_digest(tmp_path / "copy") == model_digest(tmp_path / "0")


@pytest.mark.parametrize("content", [b"not a database, but some text", None])
def test_a_file_that_is_no_cache_is_refused_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "cache" if content else tmp_path / "nowhere" / "cache"
    if content:
        path.write_bytes(content * 50)
    with pytest.raises(AUNetError, match="cannot be used as a cache of answers") as error:
        CachedAnswers(Counted(), path, "model")
    assert len(str(error.value).splitlines()) == 1
    assert str(path) in str(error.value)


def test_an_answer_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    path, asked = tmp_path / "cache", continuations(1)
    cached = CachedAnswers(Counted(), path, "model")
    cached.likelihoods(asked)
    cached.close()
    with sqlite3.connect(path) as file:
        file.execute("UPDATE answers SET answer = 'sixteen letters!'")
    with pytest.raises(AUNetError, match="cannot be used as a cache of answers"):
        CachedAnswers(Counted(), path, "model").likelihoods(asked)
