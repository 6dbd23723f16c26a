"""Hugging Face: a model directory as a `transformers` model, config and tokenizer of bytes.

Importing this module registers them, so that `AutoModelForCausalLM`, `AutoTokenizer`, `AutoConfig` and
`pipeline("text-generation")` take a model directory, without code from anywhere else and without unpickling.
"""

from aunet.errors import MissingExtra

try:
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
except ImportError:
    raise MissingExtra("transformers", "hf", "aunet.hf") from None

from aunet.hf.cache import AUNetCache
from aunet.hf.config import AUNetConfig
from aunet.hf.model import AUNetForCausalLM
from aunet.hf.tokenizer import AUNetTokenizer

__all__ = ["AUNetCache", "AUNetConfig", "AUNetForCausalLM", "AUNetTokenizer"]

transformers.AutoConfig.register("aunet", AUNetConfig, exist_ok=True)
transformers.AutoModelForCausalLM.register(AUNetConfig, AUNetForCausalLM, exist_ok=True)
transformers.AutoTokenizer.register(AUNetConfig, AUNetTokenizer, exist_ok=True)
# Where `Trainer` looks whether the labels of a smoothed loss are to be shifted; `register` does not put names there.
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[AUNetConfig.model_type] = AUNetForCausalLM.__name__
