"""Mutants of the CUDA runtime that change nothing, and why. One that is no longer made, or dies, is an error."""

from __future__ import annotations

from collections.abc import Mapping

_CURRENT = "the op's stream is current there"
_SELF = "a stream that waits for itself waits for nothing"

EQUIVALENT: Mapping[tuple[str, str], str] = {
    ("CudaRuntime.__init__", "`self._turn = 0` with 1 for 0"): "turns have events in turn, whichever is first",
    (
        "CudaRuntime.end_turn",
        "`self._turn_ends[self._turn % TURNS_AHEAD].record(self._compute)` with torch.cuda.current_stream()",
    ): "the caller's stream is current again",
    (
        "CudaRuntime.run_call",
        "`for event in waits:` before `if stream is not current:`",
    ): "a wait names its stream, whichever is current",
    (
        "CudaRuntime.run_call",
        "`if own is not None:` before `if pair is not None:`",
    ): "who waits for an op need not wait for the record of its time",
    (
        "CudaRuntime.run_call",
        "`context is not None` as True",
    ): "only ops raise here, and they have a context",
    (
        "CudaRuntime.run_call",
        "`stream.wait_event(event)` with torch.cuda.current_stream() waiting",
    ): _CURRENT,
    ("CudaRuntime.run_call", "`own.record(stream)` with torch.cuda.current_stream()"): _CURRENT,
    ("CudaRuntime.remark", "`event.record(stream)` with torch.cuda.current_stream()"): "it is the current one, or none",
    (
        "CudaRuntime.join",
        "without `self._tickets.clear()`",
    ): "a transfer that was waited for is done, and nobody waits for it again",
    (
        "CudaRuntime._join_streams",
        "`caller.wait_stream(stream)` with torch.cuda.current_stream() waiting",
    ): "that is the caller",
    (
        "CudaRuntime._enter",
        "`mask >> other & 1 and before is not None and (other != place)` without `other != place`",
    ): _SELF,
    (
        "_Reached.__init__",
        "without `super().__init__()`",
    ): "nothing of threading.Event's own is used",
    (
        "PageLocks._lock",
        "`code = int(_cudart().cudaHostRegister(address, num_bytes, 0))` with 1 for 0",
    ): "cudaHostRegisterPortable: page-locked for other contexts too, of which the process has none",
    (
        "_places",
        "`ends = np.maximum.accumulate(np.concatenate([[0], ordered[:, 1]]))` with 1 for 0",
    ): "no piece ends at 0",
}
