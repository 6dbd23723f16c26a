"""The command line of lm-evaluation-harness, with the models of aunet among its own.

    python -m aunet.lm_eval --model aunet --model_args pretrained=DIR --tasks hellaswag

The harness has no entry point through which an installed package could register a model, so its own command `lm_eval`
knows nothing of ours. This one is the same command. It knows the classes of `aunet.hf` too: with `--model hf` the
harness scores the same directory through transformers.
"""

from contextlib import suppress

from aunet.errors import MissingExtra
from aunet.process import run


def main() -> None:
    """Register, and hand over to the harness."""
    import aunet.evals.harness

    with suppress(MissingExtra):  # without transformers there is no --model hf
        import aunet.hf  # noqa: F401
    # The harness's own models are registered when they are imported, and ours may not be the only ones.
    import lm_eval.models  # noqa: F401
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    run(main)
