"""A text as the model reads it: levels, bits and alternatives of every byte.

Shapes: n bytes of the text, T of a piece, V vocabulary.
"""

import asyncio
import math
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from starlette.responses import Response

from aunet.bytes import BOS, EOS, to_bytes
from aunet.infer.session import Session
from aunet.serve.errors import invalid
from aunet.serve.patience import Patience
from aunet.serve.schemas import Inspection, InspectRequest
from aunet.serve.settings import Settings
from aunet.serve.worker import Worker
from aunet.splitting import Splitter, splitter

PIECE = 512
"""Bytes read at a time, so that running sequences go on in between."""


@dataclass(frozen=True)
class Scores:
    """Of each byte and, last, of the end of the document."""

    bits: list[float]
    alternatives: list[list[list[int | float]]]
    """Likeliest ids with their probabilities."""


def score(session: Session, data: bytes, alternatives: int) -> Generator[None, None, Scores]:
    """Read a whole document piece by piece; yields between pieces."""
    found = Scores([], [])
    state = session.start(1)
    ids = np.concatenate([[BOS], np.frombuffer(data, dtype=np.uint8), [EOS]]).astype(np.int64)
    levels = np.concatenate([[session.splitter.depth], session.splitter.levels(data)])
    for first in range(0, len(data) + 1, PIECE):
        end = min(first + PIECE, len(data) + 1)
        (logits_TV,) = session.extend(state, [ids[first:end]], [levels[first:end]])
        logprobs_TV = logits_TV.float().log_softmax(-1)
        targets_T = torch.from_numpy(ids[first + 1 : end + 1]).to(logprobs_TV.device)
        nats_T = -logprobs_TV.gather(1, targets_T[:, None])[:, 0]
        found.bits.extend((nats_T.double() / math.log(2)).tolist())
        logprobs_TV[:, BOS] = -math.inf  # it opens a document and never comes inside one
        best = logprobs_TV.exp().topk(alternatives)
        found.alternatives.extend(
            [[i, weight] for i, weight in zip(row, weights, strict=True)]
            for row, weights in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        )
        yield
    return found


async def inspect(body: InspectRequest, worker: Worker, patience: Patience, settings: Settings) -> Response:
    """The answer of /v1/inspect, an `Inspection`."""
    data = to_bytes(body.text) if isinstance(body.text, str) else bytes(body.text)
    if len(data) > settings.max_scored_bytes:
        raise invalid(f"text: {len(data)} bytes; at most {settings.max_scored_bytes} are possible", "text", "too_long")
    rule = worker.session.splitter if body.splitter is None else splitter(body.splitter)
    scores = None
    if body.score:
        scores = await patience.wait_for(worker.run(lambda session: score(session, data, body.alternatives)))
    # Megabytes of JSON take a second, in which the streams of others would stand still.
    return await asyncio.to_thread(_answer, data, rule, scores)


def _answer(data: bytes, rule: Splitter, scores: Scores | None) -> Response:
    found = Inspection(
        splitter=rule.rule,
        stages=rule.depth + 1,
        bytes=list(data),
        levels=rule.levels(data).tolist(),
        bits=scores.bits if scores else None,
        alternatives=scores.alternatives if scores else None,
    )
    return Response(found.model_dump_json(), media_type="application/json")
