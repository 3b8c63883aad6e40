"""The op kinds this worker knows and the stream of each; twin of the table in src/schedule/op.ts."""

from __future__ import annotations

KIND_STREAMS = {
    "loadBatch": "h2d",
    "embed": "compute",
    "zero": "compute",
    "pre": "compute",
    "preQ": "compute",
    "preKv": "compute",
    "toHeads": "comm",
    "toSequence": "comm",
    "attn": "compute",
    "mergeFirst": "compute",
    "merge": "compute",
    "cast": "compute",
    "post": "compute",
    "postBwd": "compute",
    "attnBwd": "compute",
    "preBwd": "compute",
    "loss": "compute",
    "embedBwd": "compute",
    "emitGrads": "compute",
    "fetch": "h2d",
    "offload": "d2h",
    "gather": "comm",
    "release": "comm",
    "reduce": "comm",
    "optimizerStep": "compute",
}

EXTERNAL_KINDS = frozenset({"loadBatch", "gather", "release", "reduce", "optimizerStep"})
"""Done by ZeRO or the loader: placed and timed by the plan, executed by the engine."""
