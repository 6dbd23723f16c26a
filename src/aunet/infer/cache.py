"""Keys and values of the positions that were read, one cache per block.

Shapes: B sequences, S slots, H query heads, G key/value heads, K head width; T new positions of all sequences end to
end, m of them in one sequence; R query heads share a key/value head.

    stage with a window w            stage without
    [k8 k9 | k2 k3 ... k7]           [k0 k1 ... k9 | free ........ ]
    a ring: slot = position mod w    grows: slot = position, capacity doubles

Keys are turned to their positions before they are stored, so their order in the cache does not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from aunet.model.attention import attention

QUERIES = 128
"""Queries that read a long cache together; bounds the mask at QUERIES times the keys."""


@dataclass(frozen=True)
class Reading:
    """New positions of a stage, and what all its blocks need to know of them: worked out once."""

    members: list[int]
    """The sequences that have new positions, ascending."""
    new: list[int]
    """How many each."""
    seen: list[int]
    """How many each had before."""
    everyone: bool
    """Whether these are all sequences of the batch."""
    window: int | None
    device: torch.device

    @cached_property
    def one(self) -> bool:
        """Whether there is one new position of each."""
        return max(self.new) == 1

    @cached_property
    def ends(self) -> list[int]:
        """Positions read afterwards."""
        return [a + b for a, b in zip(self.seen, self.new, strict=True)]

    @cached_property
    def slots(self) -> list[int]:
        """Where each first new position is kept."""
        return [position % self.window for position in self.seen] if self.window else self.seen

    @cached_property
    def used(self) -> list[int]:
        """Slots in use afterwards."""
        return [min(end, self.window) for end in self.ends] if self.window else self.ends

    @cached_property
    def places(self) -> tuple[Tensor, Tensor]:
        """Members and slots, to write to all of them at once."""
        members, slots = torch.tensor([self.members, self.slots], device=self.device)
        return members, slots

    @cached_property
    def mask(self) -> Tensor | None:
        """[B, 1, 1, S]: the slots that each of a whole batch uses, of those that any of them uses."""
        if min(self.used) == max(self.used):
            return None
        used_B1 = torch.tensor(self.used, device=self.device)[:, None]
        return (torch.arange(max(self.used), device=self.device) < used_B1)[:, None, None, :]


class KeyValueCache:
    """The cache of one block for B sequences that may be at different positions."""

    def __init__(self, batch: int, kv_heads: int, head_dim: int, window: int | None, like: Tensor) -> None:
        self.window = window
        # Zeros, because a slot that a mask hides is still multiplied by 0, and whatever memory held may be NaN.
        # [B, G, S, K]: one query reads whole heads one after the other, in half the time of [B, S, G, K].
        self.keys = like.new_zeros((batch, kv_heads, min(window or 64, 64), head_dim))
        self.values = torch.zeros_like(self.keys)

    def copy(self, members: Sequence[int]) -> "KeyValueCache":
        """An independent cache of these sequences, in this order."""
        other = object.__new__(KeyValueCache)
        other.window = self.window
        index = torch.tensor(members, device=self.keys.device)
        other.keys, other.values = self.keys[index], self.values[index]
        return other

    def attend(self, q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, reading: Reading) -> Tensor:
        """Attend from new positions to the kept ones and themselves, then keep theirs; [T, H, K]."""
        self.reserve(max(reading.ends))
        if reading.one:
            return self._attend_one(q_THK, k_TGK, v_TGK, reading)
        new = reading.new
        if not any(reading.seen):
            starts_N = torch.tensor([0, *new]).cumsum(0).to(q_THK.device)
            out_THK = attention(q_THK, k_TGK, v_TGK, starts_N, self.window, max(new))
            for b, k, v in zip(reading.members, k_TGK.split(new), v_TGK.split(new), strict=True):
                self._keep(b, 0, k, v)
            return out_THK
        outs = []
        parts = (x.split(new) for x in (q_THK, k_TGK, v_TGK))
        for b, before, q, k, v in zip(reading.members, reading.seen, *parts, strict=True):
            outs.append(self._attend_many(b, before, q, k, v))
            self._keep(b, before, k, v)
        return torch.cat(outs)

    def _attend_one(self, q_BHK: Tensor, k_BGK: Tensor, v_BGK: Tensor, reading: Reading) -> Tensor:
        """One new position of each member: write its slot, read all slots in use."""
        if reading.everyone and len(reading.members) > 1:
            members, slots = reading.places
            self.keys[members, :, slots], self.values[members, :, slots] = k_BGK, v_BGK
            used = max(reading.used)
            return _attend_slots(q_BHK, self.keys[:, :, :used], self.values[:, :, :used], reading.mask)
        outs = []
        for i, (b, slot, used) in enumerate(zip(reading.members, reading.slots, reading.used, strict=True)):
            self.keys[b, :, slot], self.values[b, :, slot] = k_BGK[i], v_BGK[i]
            kept = self.keys[b : b + 1, :, :used], self.values[b : b + 1, :, :used]
            outs.append(_attend_slots(q_BHK[i : i + 1], *kept, None))
        return outs[0] if len(outs) == 1 else torch.cat(outs)

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
        keys_SGK, values_SGK = self._of(b)
        if self.window is None:
            kept = (keys_SGK[:seen], values_SGK[:seen])
        else:
            positions = range(max(0, seen - self.window + 1), seen)
            slots = torch.tensor([position % self.window for position in positions], dtype=torch.int64).to(k_mGK.device)
            kept = (keys_SGK[slots], values_SGK[slots])
        return torch.cat([kept[0], k_mGK]), torch.cat([kept[1], v_mGK])

    def _keep(self, b: int, seen: int, k_mGK: Tensor, v_mGK: Tensor) -> None:
        """Store new positions of one sequence; a ring keeps the last `window` of them."""
        m, (keys_SGK, values_SGK) = k_mGK.shape[0], self._of(b)
        if self.window is None:
            keys_SGK[seen : seen + m], values_SGK[seen : seen + m] = k_mGK, v_mGK
            return
        first = max(0, m - self.window)
        slots = torch.arange(seen + first, seen + m, device=k_mGK.device) % self.window
        keys_SGK[slots], values_SGK[slots] = k_mGK[first:], v_mGK[first:]

    def _of(self, b: int) -> tuple[Tensor, Tensor]:
        """Views of the keys and values of one sequence, [S, G, K]."""
        return self.keys[b].transpose(0, 1), self.values[b].transpose(0, 1)

    def reserve(self, positions: int) -> None:
        """Make room; a ring never holds more than its window, and until it is full slots are positions."""
        needed = positions if self.window is None else min(positions, self.window)
        capacity = self.keys.shape[2]
        if needed <= capacity:
            return
        grown = max(needed, 2 * capacity) if self.window is None else min(max(needed, 2 * capacity), self.window)
        room = (*self.keys.shape[:2], grown - capacity, self.keys.shape[3])
        self.keys = torch.cat([self.keys, self.keys.new_zeros(room)], dim=2)
        self.values = torch.cat([self.values, self.values.new_zeros(room)], dim=2)


def _attend_slots(q_BHK: Tensor, keys_BGSK: Tensor, values_BGSK: Tensor, mask: Tensor | None) -> Tensor:
    """One query of each sequence. Heads that share keys count as queries of one head: nothing is repeated."""
    q_BGRK = q_BHK.unflatten(1, (keys_BGSK.shape[1], -1))
    return F.scaled_dot_product_attention(q_BGRK, keys_BGSK, values_BGSK, mask).flatten(1, 2)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    groups = q.shape[1] // k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=groups > 1)
