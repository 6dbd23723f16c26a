"""Writing text, here and for clients, and how fast."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from aunet.cli.options import DeviceOption, JsonOption, ModelArgument, NativeOption, WeightsOption, given_bytes
from aunet.cli.output import show
from aunet.errors import ConfigError

bench = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True)


def generate(
    model: ModelArgument,
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "",
    max_bytes: Annotated[int, typer.Option(help="New bytes at most.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest byte.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Sample among the k likeliest bytes.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample among the likeliest bytes of this total.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be given again.")] = None,
    device: DeviceOption = "cpu",
    weights: WeightsOption = "fp32",
    native: NativeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Continue a prompt, as valid UTF-8 that streams as it comes."""
    import aunet

    data, stops = given_bytes(prompt), [given_bytes(one) for one in stop or ()]
    shown = data.decode(errors="replace")
    loaded = aunet.load(model, device, weights, native)
    events = loaded.stream(
        data, max_bytes=max_bytes, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, stop=stops
    )
    if as_json:
        from aunet.infer.generate import collect

        (result,) = collect(events)
        print(json.dumps({"prompt": shown, **result.to_json(), "seed": seed}, ensure_ascii=False))
        return
    sys.stdout.write(shown)
    for event in events:
        sys.stdout.write(event.text)
        sys.stdout.flush()
    sys.stdout.write("\n")


def serve(
    model: ModelArgument,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0: every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free port.")] = 8000,
    name: Annotated[str | None, typer.Option(help="What clients call the model; its directory by default.")] = None,
    device: DeviceOption = "cpu",
    weights: WeightsOption = "fp32",
    native: NativeOption = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="AUNET_API_KEY", help="Asked for by everything under /v1.")
    ] = None,
    slots: Annotated[int, typer.Option(help="Texts written at the same time.")] = 64,
    queue: Annotated[int, typer.Option(help="Texts that may wait; the next is refused (429).")] = 256,
    prompt_cache_mib: Annotated[int, typer.Option(help="Memory for prompts that requests begin with alike.")] = 256,
    max_prompt_bytes: Annotated[int, typer.Option(help="Of all prompts of a request.")] = 65_536,
    max_new_bytes: Annotated[int, typer.Option(help="Of a text.")] = 4_096,
    max_scored_bytes: Annotated[int, typer.Option(help="Of a request with log-probabilities.")] = 16_384,
    max_seconds: Annotated[float, typer.Option(help="Of a request.")] = 120.0,
    drain_seconds: Annotated[float, typer.Option(help="For running requests after SIGTERM or SIGINT.")] = 10.0,
) -> None:
    """Serve a model: OpenAI's interface, a page to try it, metrics."""
    import aunet
    from aunet.serve.run import run_server
    from aunet.serve.settings import Settings

    settings = Settings(
        slots,
        queue,
        prompt_cache_mib,
        max_prompt_bytes,
        max_new_bytes,
        max_scored_bytes,
        max_seconds,
        drain_seconds,
        api_key,
    )
    run_server(aunet.load(model, device, weights, native), name or model.resolve().name, host, port, settings)


@bench.command()
def decode(
    model: Annotated[Path | None, typer.Argument(metavar="MODEL", help="aunet2-23m of random weights if none.")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Sequences at a time; may be given again. [1 and 8]")] = None,
    prompt_bytes: Annotated[int, typer.Option(min=1)] = 200,
    new_bytes: Annotated[int, typer.Option(min=2)] = 256,
    repetitions: Annotated[int, typer.Option(min=1)] = 5,
    text: Annotated[list[str] | None, typer.Option(help="Files to write along; this machine's documentation.")] = None,
    guesses: Annotated[int, typer.Option(min=0, help="Guess so many bytes at a time, from other parts of it.")] = 0,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    device: DeviceOption = "cpu",
    weights: WeightsOption = "fp32",
    native: NativeOption = None,
    as_json: JsonOption = False,
) -> None:
    """First byte and bytes per second, alone and in a batch, along real text."""
    import torch

    from aunet.bench import decode as bench
    from aunet.language_model import LanguageModel
    from aunet.presets import load_run

    torch.set_num_threads(threads)
    if model is None:
        loaded = LanguageModel.random(load_run("aunet2-23m", []).model, device=device, weights=weights, native=native)
    else:
        loaded = LanguageModel.load(model, device, weights, native)
    batches = batch or [1, 8]
    if min(batches) < 1:
        raise ConfigError(f"--batch: {min(batches)} is not at least 1")
    data = bench.text_of(text or [], Console(stderr=True))
    found, peaks = bench.measure(loaded, data, batches, prompt_bytes, new_bytes, repetitions, guesses)
    values = bench.to_json(found, peaks, loaded, prompt_bytes, new_bytes)
    if as_json:
        print(json.dumps(values))
    else:
        show(bench.table(values, batches))
