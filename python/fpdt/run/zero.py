"""What DeepSpeed's ZeRO does to weights and gradients between the ops of a plan: gathered, checked and timed here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from deepspeed.ops.adam import FusedAdam
from deepspeed.runtime.fp16.fused_optimizer import FP16_Optimizer
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
from deepspeed.runtime.zero.partition_parameters import NoGatherCoalescedHandle, NoGatherHandle, ZeroParamStatus
from torch import nn

from fpdt.errors import FpdtError
from fpdt.measure.timing import Recorder

DEFAULT_MAX_LIVE_PARAMETERS = 1e9
DEFAULT_PREFETCH_BUCKET_SIZE = 5e7


class GatheredLayersError(FpdtError):
    """ZeRO-3 holds more gathered weights than its config allows and the memory plan counts."""


class LayerWeights:
    """The weights of decoder layers under ZeRO-3; does nothing in other stages, where weights are always whole."""

    def __init__(self, model: nn.Module, layers: Sequence[nn.Module], config: Mapping[str, Any]) -> None:
        zero: Mapping[str, Any] = config.get("zero_optimization", {})
        self._is_sharded = int(zero.get("stage", 0)) == 3
        self._max_gathered = int(
            zero.get("stage3_max_live_parameters", DEFAULT_MAX_LIVE_PARAMETERS)
            + zero.get("stage3_prefetch_bucket_size", DEFAULT_PREFETCH_BUCKET_SIZE)
        )
        self._model: Any = model
        self._weights: list[list[Any]] = [list(layer.parameters()) for layer in layers]
        self._open: dict[int, list[Any]] = {}
        """By layer the weights that `gather` gathered, or is gathering."""
        self._handles: dict[int, list[Any]] = {}

    def gather(self, layer: int) -> None:
        """Starts to make a layer's weights whole outside its own forward and backward, until `release`.

        Returns at once; `acquire` waits. Does nothing for weights that ZeRO holds gathered, which stay ZeRO's, nor for
        a layer that is gathered already.
        """
        if not self._is_sharded:
            return
        if layer in self._open:
            return
        missing = [weight for weight in self._weights[layer] if weight.ds_status == ZeroParamStatus.NOT_AVAILABLE]
        self._open[layer] = missing
        if missing:
            self._handles[layer] = [part[0].all_gather_coalesced(part) for part in _by_partition(missing)]

    def acquire(self, layer: int) -> None:
        """Waits until the weights of a layer are whole; on a GPU its current stream does.

        What ZeRO is prefetching is waited for too, and is released by ZeRO after the layer's own backward.
        """
        if not self._is_sharded or layer not in self._open:
            return
        for handle in self._handles.pop(layer, []):
            if isinstance(handle, NoGatherHandle | NoGatherCoalescedHandle):
                # Alone, a rank has copied them on the stream that is current; the handle would have the host wait.
                for weight in self._open[layer]:
                    weight.ds_status = ZeroParamStatus.AVAILABLE
            else:
                handle.wait()
        for weight in self._weights[layer]:
            if weight.ds_status == ZeroParamStatus.INFLIGHT:
                self._model.ds_inflight_param_registry.pop(weight).wait()

    def release(self, layer: int) -> None:
        """Drops what `gather` gathered, and nothing else."""
        if not self._is_sharded:
            return
        self.acquire(layer)
        gathered = self._open.pop(layer)
        if gathered:
            gathered[0].partition(param_list=gathered, has_been_updated=False)

    def abandon(self) -> None:
        """Gives back what is gathered, after an error.

        What is still under way stays so, for the next `gather` of its layer: on ranks that have failed nobody answers.
        """
        for layer in [layer for layer in self._open if layer not in self._handles]:
            self.release(layer)

    def check_others(self, layer: int) -> None:
        """Raises GatheredLayersError when more of the other layers is gathered than the config allows.

        With stage3_max_live_parameters and stage3_prefetch_bucket_size at 0 no other layer may be gathered at all.
        """
        if not self._is_sharded:
            return
        gathered = {
            other: count
            for other, weights in enumerate(self._weights)
            if other != layer and (count := sum(map(_num_gathered, weights))) > 0
        }
        if sum(gathered.values()) > self._max_gathered:
            raise GatheredLayersError(
                f"while layer {layer} runs, ZeRO-3 holds {sum(gathered.values())} gathered parameters of layers "
                f"{sorted(gathered)}; the config allows {self._max_gathered}",
                "plan with the stage3_max_live_parameters that DeepSpeed keeps, or report this DeepSpeed version",
            )


@contextmanager
def apart_from_training(engine: Any) -> Iterator[None]:
    """Forwards without a backward, after which ZeRO-3 goes on as if there had been none.

    DeepSpeed takes the modules of a first forward and backward down and fetches ahead by that trace, beyond the last
    forward too, and keeps what it is about to use again (PartitionedParameterCoordinator). Here what is under way or
    kept is given back at the end, and a trace of forwards alone is dropped: the next step makes one.
    """
    offload = getattr(engine.optimizer, "parameter_offload", None)
    if offload is None:
        yield
        return
    coordinator = offload.get_param_coordinator()
    had_trace = not coordinator.is_invalid_trace()
    yield
    if had_trace:
        coordinator.reset_step()
    elif not coordinator.is_invalid_trace():
        coordinator._invalidate_trace()
    kept = [
        weight
        for weight in engine.module.parameters()
        if weight.ds_status == ZeroParamStatus.AVAILABLE and not weight.ds_persist
    ]
    if kept:
        kept[0].partition(param_list=kept, has_been_updated=False)


def _by_partition(weights: Sequence[Any]) -> list[list[Any]]:
    """Those that a second partition holds (hpZ) apart from the others, which DeepSpeed cannot gather together."""
    parts = [[weight for weight in weights if (weight.ds_secondary_tensor is None) is alone] for alone in (False, True)]
    return [part for part in parts if part]


def _num_gathered(weight: Any) -> int:
    is_ours = weight.ds_status != ZeroParamStatus.AVAILABLE or weight.ds_persist
    return 0 if is_ours else int(weight.ds_numel)


def undo_first_step(optimizer: Any) -> None:
    """Undoes the step on zero gradients in which DeepSpeed's optimizers of ZeRO-0 in bf16 and fp16 make their states.

    Left alone, it decays the weights once, decay that is added to gradients stays in the states, and Adam's bias
    correction counts it: the first update is 0.74 of what it should be. Adam's states stay where they are; those of
    others are made again by the first step, which is not the same on a momentum of zeros.
    """
    if isinstance(optimizer, FP16_UnfusedOptimizer):
        for masters, weights in zip(optimizer.fp32_groups, optimizer.fp16_groups, strict=True):
            for master, weight in zip(masters, weights, strict=True):
                master.data.copy_(weight.data)
    elif isinstance(optimizer, FP16_Optimizer):
        for flat_master, flat_weight in zip(optimizer.fp32_groups_flat, optimizer.fp16_groups_flat, strict=True):
            flat_master.data.copy_(flat_weight.data)
    else:
        return
    inner = optimizer.optimizer
    if isinstance(inner, torch.optim.Adagrad):  # Makes its states before any step.
        initial = float(inner.defaults["initial_accumulator_value"])
        for state in inner.state.values():
            state["sum"].fill_(initial)
            state["step"].zero_()
    elif isinstance(inner, (torch.optim.Adam, FusedAdam)):
        for state in inner.state.values():
            for name, value in state.items():
                state[name] = value.zero_() if isinstance(value, torch.Tensor) else 0
    else:
        inner.state.clear()


def time_engine(engine: Any, recorder: Recorder) -> None:
    """Times what DeepSpeed does inside forward and backward, as the op kinds gather, release and reduce."""
    optimizer = engine.optimizer
    _time(engine, "allreduce_gradients", "reduce", recorder)
    for name in ("reduce_ready_partitions_and_remove_grads", "independent_gradient_partition_epilogue"):
        _time(optimizer, name, "reduce", recorder)
    offload = getattr(optimizer, "parameter_offload", None)
    if offload is not None:
        coordinator = offload.get_param_coordinator()
        _time(coordinator, "fetch_sub_module", "gather", recorder)
        _time(coordinator, "release_sub_module", "release", recorder)


def _time(owner: Any, method: str, kind: str, recorder: Recorder) -> None:
    inner: Callable[..., Any] | None = getattr(owner, method, None)
    if inner is None:
        return

    def timed(*args: Any, **keywords: Any) -> Any:
        with recorder.timed(kind):
            return inner(*args, **keywords)

    setattr(owner, method, timed)
