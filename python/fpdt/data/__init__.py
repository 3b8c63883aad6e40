"""Where the tokens of a run come from: sources, their preparation, the order of sequences, and the rows of a rank.

`sources` opens a file or a prepared store as a `Corpus`; `sequences` says which of its tokens make up sequence n;
`batches` gives a rank its rows of them. Only `batch` and what reads it import torch: `fpdt.prepare` does without.
"""
