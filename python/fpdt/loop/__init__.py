"""Plans in training loops that are not fpdt's own: `stream` for the model, `data_loader` for what it trains on.

Nothing here makes a process group for all ranks, an engine, an optimizer or a tracker, or ends a process.
"""
