"""Keys and values of the positions that were read, one cache per block.

Shapes: B sequences, S slots, H query heads, G key/value heads, K head width; T new positions of all sequences end to
end, m of them in one sequence.

    stage with a window w            stage without
    [k8 k9 | k2 k3 ... k7]           [k0 k1 ... k9 | free ........ ]
    a ring: slot = position mod w    grows: slot = position, capacity doubles

Keys are turned to their positions before they are stored, so their order in the cache does not matter.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from aunet.model.attention import attention

QUERIES = 128
"""Queries that read a long cache together; bounds the mask at QUERIES times the keys."""


class KeyValueCache:
    """The cache of one block for B sequences that may be at different positions."""

    def __init__(self, batch: int, kv_heads: int, head_dim: int, window: int | None, like: Tensor) -> None:
        self.window = window
        # Zeros, because a slot that a mask hides is still multiplied by 0, and whatever memory held may be NaN.
        self.keys = like.new_zeros((batch, min(window or 64, 64), kv_heads, head_dim))
        self.values = torch.zeros_like(self.keys)

    def copy(self, members: Sequence[int]) -> "KeyValueCache":
        """An independent cache of these sequences, in this order."""
        other = object.__new__(KeyValueCache)
        other.window = self.window
        index = torch.tensor(members, device=self.keys.device)
        other.keys, other.values = self.keys[index], self.values[index]
        return other

    def attend(
        self,
        q_THK: Tensor,
        k_TGK: Tensor,
        v_TGK: Tensor,
        members: Sequence[int],
        new: Sequence[int],
        seen: Sequence[int],
    ) -> Tensor:
        """Attend from new positions to the kept ones and themselves, then keep theirs; [T, H, K].

        `members`: the sequences that have new positions, `new`: how many each, `seen`: how many each had before.
        """
        self._reserve(max(a + b for a, b in zip(seen, new, strict=True)))
        if max(new) == 1:
            return self._attend_one(q_THK, k_TGK, v_TGK, members, seen)
        if not any(seen):
            starts_N = torch.tensor([0, *new]).cumsum(0).to(q_THK.device)
            out_THK = attention(q_THK, k_TGK, v_TGK, starts_N, self.window, max(new))
            for b, k, v in zip(members, k_TGK.split(list(new)), v_TGK.split(list(new)), strict=True):
                self._keep(b, 0, k, v)
            return out_THK
        parts = [x.split(list(new)) for x in (q_THK, k_TGK, v_TGK)]
        outs = []
        for b, before, q, k, v in zip(members, seen, *parts, strict=True):
            outs.append(self._attend_many(b, before, q, k, v))
            self._keep(b, before, k, v)
        return torch.cat(outs)

    def _attend_one(
        self, q_BHK: Tensor, k_BGK: Tensor, v_BGK: Tensor, members: Sequence[int], seen: Sequence[int]
    ) -> Tensor:
        """One new position of each member: write its slot, read all slots in use."""
        slots = [position % self.window if self.window else position for position in seen]
        used = max(seen) + 1 if self.window is None else min(max(seen) + 1, self.window)
        everyone = len(members) == self.keys.shape[0]
        if len(members) == 1:
            b = members[0]
            self.keys[b, slots[0]], self.values[b, slots[0]] = k_BGK[0], v_BGK[0]
            keys, values = self.keys[b : b + 1, :used], self.values[b : b + 1, :used]
        else:
            index_B = torch.tensor(members, device=q_BHK.device)
            slot_B = torch.tensor(slots, device=q_BHK.device)
            self.keys[index_B, slot_B], self.values[index_B, slot_B] = k_BGK, v_BGK
            keys, values = self.keys[:, :used], self.values[:, :used]
            if not everyone or list(members) != list(range(len(members))):
                keys, values = keys[index_B], values[index_B]
        mask = None
        if min(seen) + 1 < used:
            filled_B1 = torch.tensor([position + 1 for position in seen], device=q_BHK.device)[:, None]
            mask = (torch.arange(used, device=q_BHK.device) < filled_B1)[:, None, None, :]
        return _attention(q_BHK[:, :, None], keys.transpose(1, 2), values.transpose(1, 2), mask)[:, :, 0]

    def _attend_many(self, b: int, seen: int, q_mHK: Tensor, k_mGK: Tensor, v_mGK: Tensor) -> Tensor:
        """m new positions of one sequence that has read `seen`."""
        keys, values = self._recent(b, seen, k_mGK, v_mGK)
        before = keys.shape[0] - q_mHK.shape[0]
        if self.window is not None:
            # The kept keys are at most a window: as positions without queries of the packed operator they cost little.
            padded = torch.cat([q_mHK.new_zeros((before, *q_mHK.shape[1:])), q_mHK])
            starts_N = torch.tensor([0, keys.shape[0]], device=q_mHK.device)
            return attention(padded, keys, values, starts_N, self.window, keys.shape[0])[before:]
        outs = []
        for first in range(0, q_mHK.shape[0], QUERIES):
            q = q_mHK[first : first + QUERIES].transpose(0, 1)[None]
            reach = before + first + q.shape[2]
            sees = torch.ones(q.shape[2], reach, dtype=torch.bool, device=q.device).tril(reach - q.shape[2])
            k, v = (x[:reach].transpose(0, 1)[None] for x in (keys, values))
            outs.append(_attention(q, k, v, sees)[0].transpose(0, 1))
        return torch.cat(outs)

    def _recent(self, b: int, seen: int, k_mGK: Tensor, v_mGK: Tensor) -> tuple[Tensor, Tensor]:
        """Kept keys and values that the first new position can see, in order, and the new ones behind them."""
        if self.window is None:
            kept = (self.keys[b, :seen], self.values[b, :seen])
        else:
            positions = range(max(0, seen - self.window + 1), seen)
            slots = torch.tensor([position % self.window for position in positions], dtype=torch.int64).to(k_mGK.device)
            kept = (self.keys[b, slots], self.values[b, slots])
        return torch.cat([kept[0], k_mGK]), torch.cat([kept[1], v_mGK])

    def _keep(self, b: int, seen: int, k_mGK: Tensor, v_mGK: Tensor) -> None:
        """Store new positions of one sequence; a ring keeps the last `window` of them."""
        m = k_mGK.shape[0]
        if self.window is None:
            self.keys[b, seen : seen + m], self.values[b, seen : seen + m] = k_mGK, v_mGK
            return
        first = max(0, m - self.window)
        slots = torch.arange(seen + first, seen + m, device=k_mGK.device) % self.window
        self.keys[b, slots], self.values[b, slots] = k_mGK[first:], v_mGK[first:]

    def _reserve(self, positions: int) -> None:
        """Make room; a ring never holds more than its window, and until it is full slots are positions."""
        needed = positions if self.window is None else min(positions, self.window)
        capacity = self.keys.shape[1]
        if needed <= capacity:
            return
        grown = max(needed, 2 * capacity) if self.window is None else min(max(needed, 2 * capacity), self.window)
        room = (self.keys.shape[0], grown - capacity, *self.keys.shape[2:])
        self.keys = torch.cat([self.keys, self.keys.new_zeros(room)], dim=1)
        self.values = torch.cat([self.values, self.values.new_zeros(room)], dim=1)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    groups = q.shape[1] // k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=groups > 1)
