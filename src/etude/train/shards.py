"""Checkpoints of a model that ranks share: every rank writes its parts (`torch.distributed.checkpoint`), beside the file of
the run's own state. They are read back by as many ranks as there are now, or by a process that has the model alone.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from etude.errors import UserError
from etude.models.policy import Policy
from etude.scale.ranks import Held, Ranks
from etude.train.sharded import MOMENTS, ShardedLearner
from etude.train.step import Learner

if TYPE_CHECKING:  # importing it takes a quarter of a second
    from torch.distributed.checkpoint import FileSystemReader

FOLDER = "shards"  # within a checkpoint
COUNTED = "step"  # AdamW's own count, one number a parameter


def brief(part: Any) -> Any:
    """The state of a stage, a policy or a learner, without what its ranks write themselves."""
    if not isinstance(part, ShardedLearner):
        return part.state_dict()
    policy = part.policy
    return {"policy": {"version": policy.version, "meter": policy.meter.state_dict()}, FOLDER: part.name}


def write(ranks: Ranks, folder: Path) -> None:
    """The parts of all learners, below a checkpoint's folder."""
    ranks.everywhere(write_the_shards, str(folder / FOLDER))


def put_back(part: Any, state: Any, folder: Path) -> None:
    """The other way round: into a learner on ranks, or alone, from either kind of checkpoint."""
    if not (isinstance(part, Learner) and isinstance(state, Mapping) and FOLDER in state):
        part.load_state_dict(state)
        return
    place, name = str(folder / FOLDER), state[FOLDER]
    if isinstance(part, ShardedLearner):
        part.ranks.everywhere(read_the_shards, part.name, name, place)
    else:
        read(part, name, place)
    part.policy.backbone.publish()
    part.policy.version = int(state["policy"]["version"])
    part.policy.meter.load_state_dict(state["policy"]["meter"])


def weights(policy: Policy, state: Mapping[str, Any], folder: Path) -> None:
    """A policy's weights alone, from a learner's state of either kind."""
    if FOLDER not in state:
        policy.load_state_dict(state["policy"])
        return
    import torch.distributed.checkpoint as dcp

    held = {label(state[FOLDER], "weights", n): p.detach() for n, p in policy.parameters()}
    with reading(str(folder / FOLDER), held) as reader:
        dcp.load(held, storage_reader=reader, no_dist=True)
    policy.backbone.publish()


def label(learner: str, kind: str, *of: str) -> str:
    """What a tensor is called in the files."""
    return json.dumps([learner, kind, *of])


def write_the_shards(held: Held, place: str) -> None:
    import torch.distributed.checkpoint as dcp

    state: dict[str, torch.Tensor] = {}
    for name, learner in held.learners.items():
        for of, parameter in learner.policy.parameters():
            state[label(name, "weights", of)] = parameter.detach()
            for moments, optimiser in learner._optimisers.items():
                for what, value in optimiser.state.get(parameter, {}).items():
                    state[label(name, "adamw", moments, of, what)] = value
    dcp.save(state, checkpoint_id=place)


def read_the_shards(held: Held, name: str, called: str, place: str) -> None:
    read(held.learners[name], called, place)


def read(learner: Learner, called: str, place: str) -> None:
    """A learner's weights and moments from the shards of the one that was `called` so. On ranks, all of them call this."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.tensor import DTensor

    named = dict(learner.policy.parameters())
    state = {label(called, "weights", n): p.detach() for n, p in named.items()}
    known = dcp.FileSystemReader(place).read_metadata().state_dict_metadata
    kept = [json.loads(key) for key in known]
    found: dict[str, dict[str, dict[str, torch.Tensor]]] = {}
    for of, kind, *rest in kept:
        if of != called or kind != "adamw":
            continue
        moments, parameter, what = rest
        if parameter in named:
            made = torch.zeros_like(named[parameter].detach()) if what in MOMENTS else torch.zeros(())
            found.setdefault(moments, {}).setdefault(parameter, {})[what] = made
            state[label(called, "adamw", moments, parameter, what)] = made
    alone = not isinstance(learner.policy.parameters()[0][1], DTensor)
    with reading(place, state) as reader:
        dcp.load(state, storage_reader=reader, no_dist=alone)
    learner._optimisers.clear()
    for moments, parts in found.items():
        optimiser = learner.optimiser(moments)
        for parameter, values in parts.items():
            optimiser.state[named[parameter]].update(values)
    learner.policy.backbone.publish()


@contextmanager
def reading(place: str, wanted: Mapping[str, torch.Tensor]) -> Iterator[FileSystemReader]:
    from torch.distributed.checkpoint import FileSystemReader

    reader = FileSystemReader(place)
    known = reader.read_metadata().state_dict_metadata
    if missing := sorted(set(wanted) - set(known)):
        lacks = json.loads(missing[0])[-1]
        raise UserError(f"the checkpoint lacks {len(missing)} tensors of the model, among them {lacks}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no group of ranks is meant
        yield reader
