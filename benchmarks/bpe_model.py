"""A byte-level BPE, and a Transformer over it that spends given FLOPs, for `bpe.py`."""

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from aunet.config import AUNetConfig
from aunet.errors import AUNetError
from aunet.language_model import LanguageModel

BOS_TOKEN, PADDING = "<bos>", "<pad>"
HEAD_DIM = 64
TOLERANCE = 0.05
"""Largest relative difference of the two models' FLOPs per byte."""
ASPECTS = 32, 128
"""Least and largest width over layers of a sensible shape."""


def learn_tokenizer(texts: Any, vocab: int) -> Tokenizer:
    """Byte-level BPE that opens a text with BOS and pads on the left."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=2,
        special_tokens=[BOS_TOKEN, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    opening = (BOS_TOKEN, tokenizer.token_to_id(BOS_TOKEN))
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS_TOKEN} $A", special_tokens=[opening])
    tokenizer.enable_padding(direction="left", pad_id=tokenizer.token_to_id(PADDING), pad_token=PADDING)
    return tokenizer


def count_tokens(tokenizer: Tokenizer, text: str) -> int:
    """Tokens of a text; AUNetError if they do not give it back."""
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if tokenizer.decode(ids) != text:
        raise AUNetError("the tokenizer does not give the held-out text back, so its rate per byte means nothing")
    return len(ids)


def matching_shape(target: float, tokens: float, tokenizer: Tokenizer, trunk: int) -> LlamaConfig:
    """The shape that spends `target` FLOPs per token, at rows of so many, with the width nearest to the trunk's."""
    for width in sorted(range(HEAD_DIM, 2049, HEAD_DIM), key=lambda width: abs(width - trunk)):
        found = []
        for ffn in range(-(-5 * width // 128) * 64, 3 * width + 1, 64):
            one, two = (flops_per_token(on_meta(shape(tokenizer, width, ffn, n)), tokens) for n in (1, 2))
            layers = 1 + round((target - one) / (two - one))
            difference = abs(one + (layers - 1) * (two - one) - target) / target
            if layers >= 1 and difference <= TOLERANCE and ASPECTS[0] <= width / layers <= ASPECTS[1]:
                found.append((difference, shape(tokenizer, width, ffn, layers)))
        if found:
            return min(found, key=lambda pair: pair[0])[1]
    raise AUNetError(f"--vocab: no sensible shape has {target:.3g} FLOPs per token within {TOLERANCE:.0%}; change it")


def shape(tokenizer: Tokenizer, width: int, ffn: int, layers: int) -> LlamaConfig:
    """A decoder with SwiGLU and as many key/value heads as heads; nothing ends a text."""
    return LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=width,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD_DIM,
        num_key_value_heads=width // HEAD_DIM,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id(BOS_TOKEN),
        pad_token_id=tokenizer.token_to_id(PADDING),
        eos_token_id=None,
    )


def on_meta(config: LlamaConfig) -> LlamaForCausalLM:
    """The model without memory for its weights, to count."""
    with torch.device("meta"):
        return LlamaForCausalLM(config)


def build_llama(config: LlamaConfig) -> LlamaForCausalLM:
    """The model with random fp32 weights."""
    torch.manual_seed(0)
    return LlamaForCausalLM(config).float().eval()


def on_our_kernels(config: LlamaConfig) -> LanguageModel:
    """A model of this library of the same shape, over as many ids."""
    stage = {"dim": config.hidden_size, "layers": config.num_hidden_layers, "head_dim": HEAD_DIM}
    stage["ffn_dim"] = config.intermediate_size
    values = {"vocab_size": config.vocab_size, "stages": [stage], "tied": True}
    return LanguageModel.random(AUNetConfig.model_validate(values))


def flops_per_token(model: LlamaForCausalLM, tokens: float) -> float:
    """Paper FLOPs, forward and backward, at rows of so many tokens."""
    maps = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    return 6.0 * (maps + model.config.num_hidden_layers * model.config.hidden_size * tokens)


def weights(model: nn.Module) -> dict[str, int]:
    """Number and memory of the parameters; tied ones count once."""
    parameters = list(model.parameters())
    return {
        "parameters": sum(p.numel() for p in parameters),
        "weights_bytes": sum(p.numel() * p.element_size() for p in parameters),
    }
