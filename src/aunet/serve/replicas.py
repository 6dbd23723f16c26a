"""Several servers of one model behind Ray Serve, on one machine or many.

    serve run aunet.serve.replicas:application model=MODEL replicas=2

Every replica is the application of `aunet serve` with an engine of its own; Ray starts them, hands each request to one
of them, and replaces one that fails.
"""

import os
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import Field

from aunet.config import Strict
from aunet.errors import AUNetError
from aunet.infer.engine import Engine
from aunet.language_model import LanguageModel, require_bytes
from aunet.model.directory import load_config
from aunet.serve.app import create_app
from aunet.serve.settings import Settings


class Replicas(Strict):
    """What is started. The key that is asked for is AUNET_API_KEY of the environment."""

    model: Path = Field(description="a model directory that every machine can read under this path")
    name: str | None = Field(default=None, description="what clients call it; its directory by default")
    replicas: int = Field(default=1, ge=1)
    cpus: float = Field(default=1, gt=0, description="of a replica; Ray gives it as many threads")
    gpus: float = Field(default=0, ge=0, description="of a replica")
    device: str = "cpu"
    weights: str = "fp32"
    slots: int = Settings.slots
    queue: int = Settings.queue
    prompt_cache_mib: int = Settings.prompt_cache_mib
    max_prompt_bytes: int = Settings.max_prompt_bytes
    max_new_bytes: int = Settings.max_new_bytes
    max_scored_bytes: int = Settings.max_scored_bytes
    max_seconds: float = Settings.max_seconds
    drain_seconds: float = Settings.drain_seconds

    @property
    def settings(self) -> Settings:
        """The limits of each replica."""
        return Settings(
            self.slots,
            self.queue,
            self.prompt_cache_mib,
            self.max_prompt_bytes,
            self.max_new_bytes,
            self.max_scored_bytes,
            self.max_seconds,
            self.drain_seconds,
            os.environ.get("AUNET_API_KEY") or None,
        )


def application(options: Replicas) -> Any:
    """A Ray Serve application; AUNetError for a model or limits that cannot be used, before anything is started."""
    try:
        from ray import serve
    except ImportError:
        raise AUNetError("replicas need the package 'ray': pip install 'ray[serve]'") from None

    settings, model = options.settings, options.model.resolve()
    name = options.name or model.name
    device, weights = options.device, options.weights
    require_bytes(load_config(model), "serve")

    def build() -> FastAPI:
        loaded = LanguageModel.load(model, device, weights)
        return create_app(Engine(loaded.session(), settings.slots, settings.prompt_cache), name, settings)

    deploy = serve.deployment(
        name="aunet",
        num_replicas=options.replicas,
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus},
        # Above what a replica's own queue takes, so that it is the replica that refuses, in OpenAI's words.
        max_ongoing_requests=2 * (settings.slots + settings.queue),
        graceful_shutdown_timeout_s=settings.drain_seconds,
    )
    return deploy(serve.ingress(build)(_Replica)).bind()


class _Replica:
    """What Ray asks beside requests."""

    app: FastAPI
    """Set by Ray."""

    def check_health(self) -> None:
        """Raises where the engine has failed; Ray starts another replica then."""
        if self.app.state.worker.status == "failed":
            raise AUNetError("the engine has failed")
