"""Generation with `transformers`: its own loops, on our cache.

Greedy, sampled and beam search with everything that processes logits. What needs to take bytes back (assisted
generation) or loads code (contrastive search and others that left the library) is refused in one line.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin, StoppingCriteria, StoppingCriteriaList
from transformers.generation import GenerationMode

from aunet.bytes import BOS, EOS
from aunet.errors import AUNetError
from aunet.hf.config import PAD
from aunet.hf.tokenizer import text_bytes

MODES = (
    GenerationMode.GREEDY_SEARCH,
    GenerationMode.SAMPLE,
    GenerationMode.BEAM_SEARCH,
    GenerationMode.BEAM_SAMPLE,
)


def byte_generation() -> GenerationConfig:
    """What every generation needs: the marks, and that BOS, which opens a document, is never drawn."""
    return GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, suppress_tokens=[BOS])


class EndsWith(StoppingCriteria):
    """Stops a row whose last bytes are one of these strings."""

    def __init__(self, stops: Sequence[str | bytes]) -> None:
        self.stops = [torch.tensor(list(text_bytes(stop))) for stop in stops]
        if not all(map(len, self.stops)):
            raise AUNetError("stop_strings: an empty stop string would end every text at once; leave it out")

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Whether each row ends, [B]."""
        ended_B = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        for stop in self.stops:
            if len(stop) <= input_ids.shape[1]:
                ended_B |= (input_ids[:, -len(stop) :] == stop.to(input_ids.device)).all(1)
        return ended_B


class ByteGeneration(GenerationMixin):
    """What is particular to generation with a model of bytes."""

    _is_stateful = True
    """There is no way back in a cache."""

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # the forward pass makes the cache

    def prepare_inputs_for_generation(
        self, input_ids: Any, next_sequence_length: int | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """What the forward pass is given for these ids; AUNetError where the cache leaves none of them to read."""
        if next_sequence_length is not None and next_sequence_length < 1:  # the library would read ids a second time
            raise AUNetError(
                f"cache: it has read {kwargs['cache'].columns} columns already, and input_ids has "
                f"{input_ids.shape[1]}; give at least one more, or leave the cache out"
            )
        kwargs.pop("tokenizer", None)  # came with stop strings, and the library hands on whatever it was given
        return super().prepare_inputs_for_generation(input_ids, next_sequence_length, **kwargs)

    def compute_transition_scores(self, sequences: Tensor, *arguments: Any, **options: Any) -> Tensor:
        """Scores of the chosen ids, 0 at the padding of rows that ended before others: padding has no score."""
        padding_BS = sequences == PAD
        scores_BS: Tensor = super().compute_transition_scores(
            sequences.masked_fill(padding_BS, EOS), *arguments, **options
        )
        return scores_BS.masked_fill(padding_BS[:, -scores_BS.shape[1] :], 0.0)

    def init_continuous_batching(self, *_: Any, **__: Any) -> Any:
        """AUNetError: the library's own would need its own caches."""
        raise AUNetError("generate_batch: continuous batching is not supported here; `aunet serve` does it")

    def _get_deprecated_gen_repo(self, generation_mode: Any, *_: Any, **__: Any) -> None:
        """Where the library would load the code of a mode from that it no longer has."""
        if generation_mode not in MODES:
            name = str(generation_mode.value).replace("_", " ")
            raise AUNetError(f"generate: {name} is not supported; there is greedy search, sampling and beam search")

    def _get_logits_processor(self, generation_config: Any, *, encoder_input_ids: Tensor, **options: Any) -> Any:
        # Processors of prompts look up the score of every id in them, and padding has none; BOS is never drawn.
        prompts = encoder_input_ids.masked_fill(encoder_input_ids == PAD, BOS)
        return super()._get_logits_processor(generation_config, encoder_input_ids=prompts, **options)

    def _get_stopping_criteria(
        self, generation_config: Any, stopping_criteria: Any, tokenizer: Any = None
    ) -> StoppingCriteriaList:
        stops, generation_config.stop_strings = generation_config.stop_strings, None
        criteria = super()._get_stopping_criteria(generation_config, stopping_criteria, tokenizer)
        if stops is not None:
            # The library compares characters where a tokenizer of ours has bytes.
            criteria.append(EndsWith([stops] if isinstance(stops, str | bytes) else stops))
        return criteria
