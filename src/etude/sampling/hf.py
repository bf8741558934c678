"""Sampling any architecture through transformers: left-padded batches with its own key/value cache. The same
keyed numbers and the same distribution as the native sampler; rows join only when the batch before is done."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from etude.errors import UserError
from etude.models import packed
from etude.models.distribution import draw
from etude.models.hf import TransformersBackbone
from etude.models.policy import Policy
from etude.sampling.scheduler import Scheduler
from etude.types import SamplingParams


class TransformersSampler(Scheduler):
    """`live[i]` is row i of the cache; finished rows are cut out of it."""

    def __init__(self, policy: Policy, max_rows: int = 32) -> None:
        super().__init__(policy, max_rows)
        assert isinstance(policy.backbone, TransformersBackbone)
        self.backbone = policy.backbone
        self._reset()

    def _reset(self) -> None:
        self.cache: Any = None
        self.seen = torch.zeros(0, 0, dtype=torch.int64)  # int64[rows, T] attention mask
        self._gone: set[int] = set()

    def _choose(self, state: Tensor, params: SamplingParams, uniform: Tensor) -> tuple[Tensor, Tensor]:
        if self.backbone.obstacle:
            return draw(state, params, uniform)
        return self.backbone.projection.draw(state, params, uniform)

    def _logits(self, state: Tensor) -> Tensor:
        return state if self.backbone.obstacle else self.backbone.projection.logits(state)

    def _drop(self, number: int) -> None:
        self._gone.add(number)

    @torch.no_grad()
    def _step(self) -> None:
        with self.backbone.active():
            if not self.live:
                self._begin()
            else:
                self._forward(torch.tensor([[r.tokens[-1]] for r in self.live]))
        self._compact()

    def _begin(self) -> None:
        """A new batch of waiting requests; their prompts are padded on the left."""
        self._reset()
        self.live = [self.waiting.popleft() for _ in range(min(len(self.waiting), self.max_rows))]
        longest = max(len(r.prompt) for r in self.live)
        tokens = torch.zeros(len(self.live), longest, dtype=torch.int64)
        self.seen = torch.zeros_like(tokens)
        for i, request in enumerate(self.live):
            request.version = self.policy.version
            tokens[i, longest - len(request.prompt) :] = torch.from_numpy(request.prompt.astype("int64"))
            self.seen[i, longest - len(request.prompt) :] = 1
            self.policy.meter.prefilled += len(request.prompt)
        self._forward(tokens)

    def _forward(self, tokens: Tensor) -> None:
        """Feeds int64[rows, n] and draws one token for every row."""
        if self.cache is not None:
            self.seen = torch.cat([self.seen, torch.ones(len(self.live), 1, dtype=torch.int64)], dim=1)
        positions = (self.seen.cumsum(dim=1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        self._draw(self.live, self._read(tokens, positions))
        for i, request in enumerate(self.live):
            if self._finished(request):
                self._gone.add(i)

    def _read(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Feeds int64[rows, n] to the model: what `_draw` is given, at the last token of each row."""
        device, padded = self.backbone.device, bool(self.backbone.obstacle)
        # where sequences are packed, the distribution is what the trainer reads off hidden states
        run = self.backbone.module if padded else packed.body(self.backbone.module)
        out = run(
            tokens.to(device),
            attention_mask=self.seen.to(device),
            position_ids=positions.to(device),
            past_key_values=self.cache,
            use_cache=True,
        )
        self.cache = getattr(out, "past_key_values", None)
        if not hasattr(self.cache, "batch_select_indices"):
            kind = self.backbone.config.model_type
            raise UserError(
                f"the model ('{kind}') keeps no key/value cache, so it cannot be sampled from in batches"
            )
        found: Tensor = (out.logits if padded else out.last_hidden_state)[:, -1].float()
        return found

    def _compact(self) -> None:
        """Removes rows that are finished or abandoned from the cache."""
        if not self._gone:
            return
        keep = [i for i in range(len(self.live)) if i not in self._gone]
        self.live = [self.live[i] for i in keep]
        self._gone = set()
        if not keep:
            self._reset()
            return
        index = torch.tensor(keep)
        self.seen = self.seen[index]
        self.cache.batch_select_indices(index.to(self.backbone.device))
