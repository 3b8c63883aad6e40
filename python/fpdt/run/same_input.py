"""Files that every host has a copy of: one that is not the others' would train the ranks apart without an error."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from fpdt.models.weights import weights_fingerprint
from fpdt.run.evaluation import HeldOut
from fpdt.run.planned_batches import ResumableSource
from fpdt.run.ranks import Ranks, check_same


def check_same_input(ranks: Ranks, batches: ResumableSource, held_out: HeldOut | None, weights: Path | None) -> None:
    """A collective. Raises RankError on every rank where one reads other data, or another folder of weights.

    Of large files content is sampled, see fingerprint.py.
    """
    read: dict[str, object] = {"training data": batches.position(0)}
    if held_out is not None:
        read["held-out data"] = held_out.fingerprint.to_json()
    if weights is not None:
        read["weights"] = weights_fingerprint(weights).to_json()
    for what, content in read.items():
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        hint = f"copy the {what} to every host as they are on the first, or keep them where all hosts see them"
        check_same(what, digest, ranks, hint)
