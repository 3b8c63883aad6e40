"""What must hold between the parts of a header: names that exist, buffers inside their pools, tables, features."""

from __future__ import annotations

from collections.abc import Iterable

from fpdt.plan.columns import require
from fpdt.plan.header import Header
from fpdt.plan.nouns import DTYPE_BYTES, FILE_ALIGNMENT_BYTES, Buffer, Pool
from fpdt.plan.op_kinds import SAME_VERSION, check_kinds

KNOWN_FEATURES = frozenset(
    {
        "rebuild",
        "layer-classes",
        "file-pool",
        "causal-rectangle",
        "window",
        "tiles",
        "kv-tiles",
        "kv-copies",
        "padded-heads",
        "tied-region",
        "frozen",
        "lora",
        "evaluate",
        "hidden-gradient-offload",
        "packing",
        "loss-inplace",
        "merge-lerp",
        "norm-vectornorm",
        "rope-addcmul",
        "elementwise-inplace",
        "weight-gradient-blocks",
        "weight-gradient-addmm",
        "head-groups",
    }
)
MAX_STREAMS = 32


def check_header(header: Header) -> None:
    """Raises PlanError for a feature or op kind this worker does not know, and for what contradicts itself."""
    unknown = [name for name in header.features if name not in KNOWN_FEATURES]
    require(not unknown, f"this worker does not know the features {', '.join(map(repr, unknown))}", SAME_VERSION)
    check_kinds([row.kind() for row in header.op_kinds])
    _check_streams(header)
    _check_layout(header)
    pools = {pool.name: pool for pool in header.pools}
    _check_unique("buffer", (buffer.name for buffer in header.buffers))
    for number, buffer in enumerate(header.buffers):
        require(buffer.id == number, f"buffer {buffer.name} has id {buffer.id} at place {number}")
        require(buffer.pool in pools, f"buffer {buffer.name} is in the unknown pool {buffer.pool}")
        _check_place(buffer, pools[buffer.pool])
    _check_tables(header)
    code, num_layers = header.model.code, header.model.num_layers
    require(
        len(code.class_of) == num_layers, f"model.code is of {len(code.class_of)} layers, the model has {num_layers}"
    )
    require(max(code.class_of, default=0) < len(code.classes), "a layer is of a class that model.code lacks")
    tables = len(header.parameters.layers)
    require(
        tables == len(code.classes), f"parameters are of {tables} classes of layers, model.code has {len(code.classes)}"
    )
    _check_unique("section", (section.name for section in header.sections))
    for attribute in header.attributes:
        mask = attribute.mask
        fits = mask is None or (mask.kind == "window") == (mask.window is not None)
        require(fits, f"a mask of kind {mask and mask.kind} has window {mask and mask.window}")
        heads = attribute.heads
        require(heads is None or (heads.group or 0) < heads.groups, f"an op is of {heads}, which there is not")


def _check_streams(header: Header) -> None:
    _check_unique("pool", (pool.name for pool in header.pools))
    _check_unique("stream", header.streams)
    require(header.streams[:2] == ("compute", "comm"), f"streams begin with {header.streams[:2]}, not compute, comm")
    require(len(header.streams) <= MAX_STREAMS, f"the plan has {len(header.streams)} streams, at most {MAX_STREAMS}")
    names = {pool.name for pool in header.pools}
    for link in header.links:
        for pool in (link.from_, link.to):
            require(pool in names, f"a link joins the unknown pool {pool}")
        require(link.stream in header.streams[2:], f"the link {link.from_} to {link.to} is on stream {link.stream}")


def _check_layout(header: Header) -> None:
    groups = header.layout.sequence_groups
    ranks = sorted(rank for group in groups for rank in group)
    require(ranks == list(range(header.num_ranks)), f"the sequence groups {groups} are not {header.num_ranks} ranks")
    run = header.run
    sizes = {len(group) for group in groups}
    require(
        sizes == {run.sequence_parallel_size} and len(groups) == run.data_parallel_size,
        f"the sequence groups {groups} are not {run.data_parallel_size} of {run.sequence_parallel_size} ranks",
    )
    for name, lists in (("query", header.layout.heads.query), ("keyValue", header.layout.heads.key_value)):
        counts = [len(heads) for heads in lists]
        require(
            len(counts) == run.sequence_parallel_size and len(set(counts)) == 1 and counts[0] > 0,
            f"layout.heads.{name} gives the {run.sequence_parallel_size} ranks {counts} heads, not all equally many",
        )


def _check_place(buffer: Buffer, pool: Pool) -> None:
    size = DTYPE_BYTES[buffer.dtype]
    place = f"buffer {buffer.name} at {buffer.offset} of {pool.name}"
    require(len(buffer.strides) == len(buffer.shape), f"{place} has {len(buffer.strides)} strides")
    if buffer.block_rows is not None:
        fits = len(buffer.shape) == 2 and buffer.strides == (1, buffer.block_rows)
        require(fits, f"{place} has strides {buffer.strides}, expected those of blocks of {buffer.block_rows} rows")
        whole = buffer.rows % buffer.block_rows == 0
        require(whole, f"{place} has {buffer.rows} rows in blocks of {buffer.block_rows}")
    require(buffer.span_bytes <= buffer.instance_bytes, f"{place}: an instance takes {buffer.span_bytes} bytes")
    end = buffer.offset + buffer.instances * buffer.instance_bytes
    require(end <= pool.bytes, f"{place} ends at {end}, the pool has {pool.bytes} bytes")
    unit = FILE_ALIGNMENT_BYTES if pool.kind == "file" else size
    aligned = buffer.offset % unit == 0 and buffer.instance_bytes % unit == 0
    require(aligned, f"{place} is not aligned to {unit} bytes")


def _check_tables(header: Header) -> None:
    _check_unique("table", (table.name for table in header.tables))
    for table in header.tables:
        require(table.buffer < len(header.buffers), f"table {table.name} names buffer {table.buffer}")
        buffer = header.buffers[table.buffer]
        fits = buffer.dtype == table.dtype and buffer.shape == (table.capacity,)
        require(fits, f"table {table.name} of {table.capacity} rows fills {buffer.name}, {buffer.dtype} {buffer.shape}")


def _check_unique(what: str, names: Iterable[str]) -> None:
    listed = list(names)
    require(len(set(listed)) == len(listed), f"the plan names a {what} twice: {', '.join(listed)}")
