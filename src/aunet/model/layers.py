"""The parts of a plain decoder-only Transformer, on packed positions.

Shapes: T positions, D width, H query heads, G key/value heads, K head width, F hidden width of the feed-forward.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aunet.config import StageConfig
from aunet.model.attention import attention
from aunet.model.layout import StageLayout

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""New queries [T, H, K], keys and values [T, G, K] to outputs [T, H, K]; remembers the keys and values."""

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines of the rotary embedding at each position, both [T, 1, K / 2]."""


def rotation(position_T: Tensor, head_dim: int, theta: float) -> Rotation:
    """Angles of the rotary embedding (RoPE) for positions inside their documents."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device=position_T.device) / head_dim
    angle = position_T[:, None, None] * theta**-exponent
    return angle.cos(), angle.sin()


def rotate(x_THK: Tensor, rotate_by: Rotation) -> Tensor:
    """Turn the pairs (i, i + K / 2) of every head by the position's angles."""
    cos, sin = rotate_by
    a, b = x_THK.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).type_as(x_THK)


class Attention(nn.Module):
    """Causal self-attention with rotary positions, grouped key/value heads and an optional sliding window.

    With `qk_norm` every query and key is normalised over the width of its head before it is turned, with a gain for
    queries and one for keys that all heads share (Henry et al. 2020; Dehghani et al. 2023), so that the scores stay
    bounded whatever the weights grow to.
    """

    def __init__(self, config: StageConfig, norm_eps: float) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.window = config.heads, config.kv_heads, config.window
        self.qkv = nn.Linear(config.dim, (self.heads + 2 * self.kv_heads) * config.head_dim, bias=False)
        self.q_norm = nn.RMSNorm(config.head_dim, eps=norm_eps) if config.qk_norm else None
        self.k_norm = nn.RMSNorm(config.head_dim, eps=norm_eps) if config.qk_norm else None
        self.out = nn.Linear(config.dim, config.dim, bias=False)

    def project(self, x_TD: Tensor, rotate_by: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [T, H, K], keys and values [T, G, K], the first two turned to their positions."""
        heads = self.qkv(x_TD).unflatten(-1, (self.heads + 2 * self.kv_heads, -1))
        qk, v_TGK = heads.split((self.heads + self.kv_heads, self.kv_heads), dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            # In the precision of the gains, which under autocast is more than that of the products.
            q_THK, k_TGK = qk.type_as(self.q_norm.weight).split((self.heads, self.kv_heads), dim=1)
            qk = torch.cat((self.q_norm(q_THK), self.k_norm(k_TGK)), dim=1).type_as(heads)
        q_THK, k_TGK = rotate(qk, rotate_by).split((self.heads, self.kv_heads), dim=1)
        return q_THK, k_TGK, v_TGK

    def forward(self, x_TD: Tensor, rotate_by: Rotation, layout: StageLayout) -> Tensor:
        """Mix positions of the same document: [T, D] to [T, D]."""
        q_THK, k_TGK, v_TGK = self.project(x_TD, rotate_by)
        y_THK = attention(q_THK, k_TGK, v_TGK, layout.starts_N, self.window, layout.longest)
        return self.out(y_THK.flatten(1))

    def extend(self, x_TD: Tensor, rotate_by: Rotation, attend: Attend) -> Tensor:
        """The same for new positions of documents whose earlier keys and values `attend` has kept."""
        return self.out(attend(*self.project(x_TD, rotate_by)).flatten(1))


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate x) * up x)."""

    def __init__(self, config: StageConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.dim, 2 * config.ffn_dim, bias=False)
        self.down = nn.Linear(config.ffn_dim, config.dim, bias=False)

    def forward(self, x_TD: Tensor) -> Tensor:
        """[T, D] to [T, D], each position by itself."""
        gate_TF, up_TF = self.gate_up(x_TD).chunk(2, dim=-1)
        return self.down(F.silu(gate_TF) * up_TF)


class Block(nn.Module):
    """Pre-norm block: attention, then feed-forward, each added to its input."""

    def __init__(self, config: StageConfig, norm_eps: float) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.dim, eps=norm_eps)
        self.attention = Attention(config, norm_eps)
        self.ffn_norm = nn.RMSNorm(config.dim, eps=norm_eps)
        self.ffn = FeedForward(config)

    def forward(self, x_TD: Tensor, rotate_by: Rotation, layout: StageLayout) -> Tensor:
        """One layer on packed documents: [T, D] to [T, D]."""
        x_TD = x_TD + self.attention(self.attention_norm(x_TD), rotate_by, layout)
        return x_TD + self.ffn(self.ffn_norm(x_TD))

    def extend(self, x_TD: Tensor, rotate_by: Rotation, attend: Attend) -> Tensor:
        """The same layer on new positions, with a cache."""
        x_TD = x_TD + self.attention.extend(self.attention_norm(x_TD), rotate_by, attend)
        return x_TD + self.ffn(self.ffn_norm(x_TD))
