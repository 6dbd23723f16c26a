"""The model: `AUNet` behind the interface of `transformers`.

Shapes: B rows of S columns, T real positions of all rows end to end, V vocabulary.
"""

import copy
import sys
import tempfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils.deprecation import deprecate_kwarg
from transformers.utils.generic import can_return_tuple
from transformers.utils.hub import convert_file_size_to_int

from aunet.bytes import VOCAB_SIZE
from aunet.errors import AUNetError
from aunet.hf.cache import AUNetCache
from aunet.hf.config import AUNetConfig
from aunet.hf.generation import ByteGeneration, byte_generation
from aunet.hf.hub import complete, push
from aunet.hf.rows import columns_of, packed, rows_of, targets_of
from aunet.infer.reading import Reader
from aunet.model.aunet import AUNet
from aunet.model.directory import WEIGHTS
from aunet.splitting import splitter

UPLOAD = ("repo_id", "private", "token", "commit_message", "commit_description", "revision", "create_pr")


class AUNetForCausalLM(ByteGeneration, PreTrainedModel, GenerationMixin):
    """Next-byte logits, loss and generation.

    Its tensors have the names of a model directory, so each side loads what the other saved.
    """

    config_class = AUNetConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    accepts_loss_kwargs = True
    _input_embed_layer = "embedding"
    _supports_sdpa = True  # in a form for packed documents

    def __init__(self, config: AUNetConfig) -> None:
        super().__init__(config)
        network = AUNet(config.architecture)
        # The children are the model's own: their names have no prefix, and who replaces one, as adapters and replicas
        # do, finds it replaced in `network` too.
        self._modules, network._modules = network._modules, {}
        self.__dict__["_childless"] = network
        self.splitter, self.reader = splitter(config.architecture.splitter), Reader()
        self.generation_config = byte_generation()
        self.post_init()

    @property
    def network(self) -> AUNet:
        """The `AUNet` on the children of this model."""
        network = copy.copy(self._childless)
        network._modules = self._modules
        return network

    def init_weights(self) -> None:
        """The initialisation of `AUNet`, with a seed from torch's generator."""
        if not self.embedding.weight.is_meta:
            self.network.initialise(int(torch.randint(2**31, ())))

    def _init_weights(self, module: Any) -> None:
        """Nothing: weights that a directory lacks are an error."""

    @deprecate_kwarg("past_key_values", "6.0.0", new_name="cache")
    @can_return_tuple
    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        labels: Any = None,
        cache: AUNetCache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        num_items_in_batch: int | Tensor | None = None,
        inputs_embeds: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> Any:
        """Logits [B, S, V] of `input_ids` [B, S]: one document per row, without its padding, wherever that is.

        At padding stand the logits of the row's last byte before it. Padding is what `attention_mask` hides, and the
        padding id.
        `labels`: ids to predict, -100 to ignore; they are shifted here, so they are usually `input_ids` again. What
        stands at padding is ignored. The loss is the mean, or the sum over `num_items_in_batch`.
        `use_cache`: also return what the rows have read (`cache`), with which their next ids are read alone. Logits
        from a cache have no gradient.
        `logits_to_keep`: only the last columns, or these.
        """
        if inputs_embeds is not None or input_ids is None:
            raise AUNetError("input_ids: the model reads bytes; give their ids, not vectors (inputs_embeds)")
        if output_attentions or output_hidden_states:
            raise AUNetError(
                "output_attentions, output_hidden_states: not available; aunet.load(...).encode(text) gives the "
                "vectors of every stage"
            )
        rows = rows_of(input_ids, attention_mask, cache.columns if cache else 0)
        columns = columns_of(logits_to_keep)
        if cache is not None or use_cache:
            if labels is not None:
                raise AUNetError("labels: a cache is for generation and has no gradient; leave out use_cache and cache")
            cache = cache or AUNetCache.empty(self.reader.session(self.network, self.splitter), len(rows.ids))
            return CausalLMOutputWithPast(logits=cache.read(rows, columns), cache=cache)
        device = self.embedding.weight.device
        logits_TV = self.network(*packed(rows.ids, self.splitter, device))
        nothing_BV = logits_TV.new_zeros((len(rows.ids), VOCAB_SIZE))
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=rows.gather(logits_TV, nothing_BV, slice(None)),
                labels=targets_of(labels, rows).to(device),
                vocab_size=VOCAB_SIZE,
                num_items_in_batch=num_items_in_batch,
            )
        return CausalLMOutputWithPast(loss=loss, logits=rows.gather(logits_TV, nothing_BV, columns))

    def get_output_embeddings(self) -> Any:
        """The head; None where it is tied to the embedding."""
        return self.network.head

    def resize_token_embeddings(self, *_: Any, **__: Any) -> Any:
        """AUNetError: the vocabulary is the bytes."""
        raise AUNetError("resize_token_embeddings: the vocabulary is the 256 bytes and two marks; there is no other")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike[str] | None,
        *arguments: Any,
        output_loading_info: bool = False,
        **options: Any,
    ) -> Any:
        """A model directory, from either side; AUNetError if its tensors are not those of its configuration."""
        if options.setdefault("use_safetensors", True) is not True:
            raise AUNetError("use_safetensors: weights are read from safetensors only, nothing is unpickled")
        path = pretrained_model_name_or_path
        options["ignore_mismatched_sizes"] = True  # they are reported below, as missing and unknown tensors are
        model, found = super().from_pretrained(path, *arguments, output_loading_info=True, **options)
        mismatched = {name for name, *_ in found["mismatched_keys"]}
        if wrong := sorted({*found["missing_keys"], *found["unexpected_keys"], *mismatched}):
            raise AUNetError(
                f"{path}/{WEIGHTS}: does not fit config.json: {len(wrong)} tensors differ, the first is {wrong[0]}"
            )
        if len(set(getattr(model, "hf_device_map", {}).values())) > 1:
            raise AUNetError("device_map: the model runs on one device; name one, such as device_map='cuda:0'")
        if model.generation_config.eos_token_id is None:  # a directory without a generation_config.json
            model.generation_config = byte_generation()
        return (model, found) if output_loading_info else model

    def save_pretrained(
        self,
        save_directory: str | PathLike[str],
        *,
        facts: Mapping[str, Any] | None = None,
        push_to_hub: bool = False,
        max_shard_size: int | str | None = None,
        **options: Any,
    ) -> None:
        """Write a complete model directory, which `aunet.load` and the command line read too.

        The tokenizer and the model card are written where there is none yet. `facts`: what the card states beside the
        architecture, such as the data, the compute and bits per byte; a card that is there is then replaced.
        """
        directory = Path(save_directory)
        if directory.is_file():
            raise AUNetError(f"{directory}: a file is there; name a directory")
        if max_shard_size is not None and convert_file_size_to_int(max_shard_size) < self.get_memory_footprint():
            raise AUNetError(f"max_shard_size: a model directory has one {WEIGHTS}; leave it out")
        upload = {name: options.pop(name) for name in UPLOAD if name in options} if push_to_hub else {}
        super().save_pretrained(directory, max_shard_size=sys.maxsize, **options)
        if options.get("is_main_process", True):
            complete(directory, self.config.architecture, facts)
            if push_to_hub:
                push(directory, upload.pop("repo_id", directory.name), **upload)

    def push_to_hub(self, repo_id: str, *, facts: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Upload a complete model directory; a model card that is there is kept, unless `facts` are given."""
        with tempfile.TemporaryDirectory() as directory:
            self.save_pretrained(directory, facts=facts)
            return push(Path(directory), repo_id, keep_card=facts is None, **options)
