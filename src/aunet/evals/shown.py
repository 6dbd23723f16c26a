"""A progress bar for whoever waits for answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from aunet.evals.answers import Answers, Continuation, Likelihood, Writing
from aunet.infer.scoring import Progress


class ShownAnswers:
    """Shows on a console how many requests have been answered."""

    def __init__(self, answers: Answers, console: Console) -> None:
        self._answers, self._console = answers, console

    def likelihoods(self, asked: Sequence[Continuation], progress: Progress | None = None) -> list[Likelihood]:
        """In the order asked."""
        with self._bar("texts scored", len(asked), progress) as told:
            return self._answers.likelihoods(asked, told)

    def writings(self, asked: Sequence[Writing], progress: Progress | None = None) -> list[bytes]:
        """In the order asked."""
        with self._bar("texts written", len(asked), progress) as told:
            return self._answers.writings(asked, told)

    @contextmanager
    def _bar(self, what: str, count: int, progress: Progress | None) -> Iterator[Progress]:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        # In a file every bar would leave an empty line.
        hidden = not self._console.is_terminal
        with Bar(*columns, console=self._console, transient=True, disable=hidden) as bar:
            task = bar.add_task(what, total=count)

            def told(more: int) -> None:
                bar.advance(task, more)
                if progress:
                    progress(more)

            yield told
