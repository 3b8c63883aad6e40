"""An execution plan as the worker holds it: frozen, only looked things up in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any

import numpy as np

from fpdt.plan.header import Header
from fpdt.plan.model_code import ModelCode
from fpdt.plan.nouns import Buffer, HeadMap, Layout, ParameterTable, ParameterView, Turn
from fpdt.plan.op_kinds import OP_KINDS
from fpdt.plan.sections import Array, Columns, Section

__all__ = ["HeadMap", "ParameterTable", "ParameterView", "Plan"]


@dataclass(frozen=True)
class Plan:
    """`model`, `run`, `deepspeed` and `strategy` are the header's objects, with their camelCase keys."""

    header: Header = field(repr=False)
    digest: str
    prose: bytes = field(repr=False)
    columns: Columns = field(repr=False)
    sections: Mapping[str, Section] = field(repr=False)
    model: Mapping[str, Any] = field(repr=False)
    run: Mapping[str, Any] = field(repr=False)
    deepspeed: Mapping[str, Any] = field(repr=False)
    strategy: Mapping[str, Any] = field(repr=False)

    @property
    def device(self) -> str:
        return self.header.device

    @property
    def ranks_per_node(self) -> int:
        return self.header.ranks_per_node

    @property
    def collective_timeout(self) -> timedelta:
        """Of every process group."""
        return timedelta(seconds=self.header.collective_timeout_seconds)

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return self.header.buffers

    @property
    def streams(self) -> tuple[str, ...]:
        return self.header.streams

    @property
    def parameters(self) -> ParameterTable:
        return self.header.parameters

    @property
    def layout(self) -> Layout:
        return self.header.layout

    @property
    def code(self) -> ModelCode:
        return self.header.model.code

    @property
    def head_map(self) -> HeadMap:
        return self.header.layout.heads

    @property
    def table_names(self) -> tuple[str, ...]:
        return tuple(table.name for table in self.header.tables)

    @property
    def packing(self) -> bool:
        """Whether a batch may have several documents, and weights."""
        return self.header.run.packing

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Of the program that trains."""
        return self.header.programs.train.turns

    @property
    def evaluation_turns(self) -> tuple[Turn, ...]:
        """Of the program that evaluates; empty where the plan has none."""
        evaluate = self.header.programs.evaluate
        return () if evaluate is None else evaluate.turns

    @property
    def kind_names(self) -> tuple[str, ...]:
        return tuple(OP_KINDS)

    @property
    def num_layers(self) -> int:
        return self.header.model.num_layers

    @property
    def sequence_parallel_size(self) -> int:
        return self.header.run.sequence_parallel_size

    @property
    def data_parallel_size(self) -> int:
        return self.header.run.data_parallel_size

    @property
    def world_size(self) -> int:
        return self.header.num_ranks

    @cached_property
    def pool_kinds(self) -> Mapping[str, str]:
        return {pool.name: pool.kind for pool in self.header.pools}

    @cached_property
    def _buffer_ids(self) -> Mapping[str, int]:
        return {buffer.name: buffer.id for buffer in self.buffers}

    def buffer(self, name: str) -> Buffer:
        """Raises KeyError when the plan has no buffer of this name."""
        if name not in self._buffer_ids:
            raise KeyError(f"the plan has no buffer {name}; it has {', '.join(self._buffer_ids)}")
        return self.buffers[self._buffer_ids[name]]

    def extents(self, section: Section) -> Array:
        """Access numbers that the ops of a section use, each once, ascending."""
        columns = self.columns
        first, last = columns.views_at[section.first], columns.views_at[section.first + section.num_ops]
        return np.unique(columns.view[first:last])
