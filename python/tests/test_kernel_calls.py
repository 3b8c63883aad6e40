"""Calls of the kernels of GPUs: their schemas, their arguments, and where they may run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fpdt.attention import FULL, AttentionError, backend_named, installed_kernels
from tests.attention_cases import CASES, CONFIG, WHOLE, Case, case_id, on_cpu, tensors, window
from tests.fake_cudnn import cudnn_on_cpu
from tests.fake_flash import Named, flash_on_cpu

CUDA = torch.device("cuda", 0)
GPU_KERNELS = ("flash2", "cudnn", "flash3", "flash4")


def doable(name: str) -> list[Case]:
    return [case for case in CASES if case.name in backend_named(name).masks]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("name", "case"), [(name, case) for name in GPU_KERNELS for case in doable(name)], ids=case_id)
def test_calls_fit_the_installed_schemas_and_give_rows_first(name: str, case: Case, dtype: torch.dtype) -> None:
    """On meta tensors, which have torch's own checks of arguments, and its shapes and strides of results."""
    q, k, v, do = (x.to("meta") for x in tensors(case, 4, 2, dtype))
    backend, start = backend_named(name), (case.queries[0], case.keys[0])
    place = torch.empty_like(q)
    o, lse = backend.forward(q, k, v, CONFIG, case.mask, *start, out=place)
    assert (o is place) == (name != "cudnn")
    assert (o.shape, lse.shape, lse.dtype) == (q.shape, q.shape[:2], torch.float32)
    assert o.is_contiguous() and lse.t().is_contiguous(), "lse as the plan's buffers have it"
    grads = backend.backward(do, q, k, v, o, lse, CONFIG, case.mask, *start)
    assert [grad.shape for grad in grads] == [q.shape, k.shape, v.shape]


@pytest.mark.parametrize("name", GPU_KERNELS)
def test_calls_bind_on_fake_tensors_of_a_gpu(name: str) -> None:
    backend = backend_named(name)
    with FakeTensorMode(allow_non_fake_inputs=True):
        q, do = (torch.empty(256, 8, 64, dtype=torch.bfloat16, device=CUDA) for _ in range(2))
        k, v = (torch.empty(512, 2, 64, dtype=torch.bfloat16, device=CUDA) for _ in range(2))
        o, lse = backend.forward(q, k, v, CONFIG, FULL, 512, 0, out=torch.empty_like(q))
        grads = backend.backward(do, q, k, v, o, lse, CONFIG, FULL, 512, 0)
    assert all(x.device.type == "cuda" for x in (o, lse, *grads))
    assert [x.shape for x in (o, lse, *grads)] == [q.shape, (256, 8), q.shape, k.shape, v.shape]


def test_arguments_of_flash2(flash2_calls: list[Named]) -> None:
    """The window's sizes in the kernel's words; a negative size would mean no limit."""
    asked: list[tuple[int, bool, int | None, int | None]] = []
    for case in (WHOLE[0], WHOLE[1], window(5, (14, 23), (0, 23)), window(7, (14, 23), (3, 14))):
        q, k, v, do = tensors(case, 4, 2, torch.bfloat16)
        start = (case.queries[0], case.keys[0])
        backend = backend_named("flash2")
        o, lse = backend.forward(q, k, v, CONFIG, case.mask, *start)
        backend.backward(do, q, k, v, o, lse, CONFIG, case.mask, *start)
        forward, backward = flash2_calls[-2:]
        asked.append(mask_arguments(forward))
        assert mask_arguments(backward) == asked[-1]
        assert forward["return_debug_mask"] is False and forward["scale"] == backward["scale"] == CONFIG.scale
    assert asked == [(9, False, None, None), (9, True, None, None), (9, False, 4, 0), (6, False, 0, 6)]


def mask_arguments(call: Named) -> tuple[int, bool, int | None, int | None]:
    return call["max_q"], call["is_causal"], call["window_size_left"], call["window_size_right"]


@pytest.mark.parametrize("lse_column", [True, False])
def test_cudnn_gets_the_lse_that_its_torch_makes(lse_column: bool) -> None:
    """The stand-in asserts the shape; a torch has one of two."""
    from fpdt.attention import cudnn

    cudnn._lse_has_column.cache_clear()
    try:
        with cudnn_on_cpu(lse_column=lse_column) as calls:
            q, k, v, do = tensors(WHOLE[0], 4, 2, torch.bfloat16)
            backend = backend_named("cudnn")
            o, lse = backend.forward(q, k, v, CONFIG, FULL, 40, 0)
            backend.backward(do, q, k, v, o, lse, CONFIG, FULL, 40, 0)
        assert calls[-1]["scale"] == CONFIG.scale and calls[-1]["is_causal"] is False
    finally:
        cudnn._lse_has_column.cache_clear()


def test_lse_of_the_plan_reaches_the_kernels_without_a_copy() -> None:
    case = WHOLE[1]
    q, k, v, do = tensors(case, 4, 2, torch.bfloat16)
    laid_out = torch.zeros(4, 9).t()
    with flash_on_cpu() as calls:
        backend_named("flash2").backward(do, q, k, v, q, laid_out, CONFIG, case.mask, 40, 0)
    assert calls[-1]["logsumexp"].data_ptr() == laid_out.data_ptr()
    with cudnn_on_cpu() as calls:
        backend_named("cudnn").backward(do, q, k, v, q, laid_out, CONFIG, FULL, 49, 0)
    assert calls[-1]["logsumexp"].data_ptr() == laid_out.data_ptr()


@pytest.mark.parametrize(("num_keys", "exact"), [(64, False), (128, True), (192, False), (96, True), (256, True)])
def test_cudnn_refuses_keys_that_leave_half_a_tile(num_keys: int, exact: bool) -> None:
    q = torch.zeros(128, 2, 64, dtype=torch.bfloat16)
    k = torch.zeros(num_keys, 2, 64, dtype=torch.bfloat16)
    lse = torch.zeros(128, 2)
    with on_cpu("cudnn"):
        backend = backend_named("cudnn")
        backend.forward(q, k, k, CONFIG, FULL, num_keys, 0)
        if exact:
            backend.backward(q, q, k, k, q, lse, CONFIG, FULL, num_keys, 0)
            return
        with pytest.raises(AttentionError, match=f"no exact backward over {num_keys} keys") as caught:
            backend.backward(q, q, k, k, q, lse, CONFIG, FULL, num_keys, 0)
        assert "--attention flash2" in caught.value.hint


@pytest.mark.parametrize("name", GPU_KERNELS)
def test_a_kernel_of_gpus_is_not_for_the_cpu(name: str) -> None:
    with pytest.raises(AttentionError, match=f"'{name}' runs on cuda, not on cpu"):
        backend_named(name).require(torch.device("cpu"))


@pytest.mark.parametrize(
    ("name", "lacks", "hint"),
    [
        ("flash2", r"'flash2' is not in this build of torch", "wheel for CUDA"),
        ("cudnn", r"'cudnn' needs cuDNN 9 or later, torch .* has none", "--attention flash2"),
        ("flash3", "'flash3' needs the module flash_attn_interface, which is not installed", "hopper"),
        ("flash4", "'flash4' needs the module flash_attn.cute.interface, which is not installed", "flash-attn-4"),
        ("cpu_flash", "'cpu_flash' runs on cpu, not on cuda", "reference"),
    ],
)
def test_a_kernel_that_is_not_here_says_what_to_install(name: str, lacks: str, hint: str) -> None:
    """This torch is one for CPUs."""
    with pytest.raises(AttentionError, match=lacks) as caught:
        backend_named(name).require(CUDA)
    assert hint in caught.value.hint
    assert installed_kernels() == ()


def test_an_old_cudnn_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 8907)
    with pytest.raises(AttentionError, match="has cuDNN 8907"):
        backend_named("cudnn").require(CUDA)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    backend_named("cudnn").require(CUDA)


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[None]:
    """Both packages, of which torch needs names alone to register them."""
    cute = tmp_path / "flash_attn" / "cute"
    cute.mkdir(parents=True)
    for folder in (cute.parent, cute):
        (folder / "__init__.py").write_text("")
    (cute / "interface.py").write_text("_flash_attn_fwd = _flash_attn_bwd = None\n")
    (tmp_path / "flash_attn_interface.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    ops = ModuleType("flash_attn_3")
    ops.fwd = ops.bwd = None  # type: ignore[attr-defined]
    monkeypatch.setattr(torch.ops, "flash_attn_3", ops, raising=False)
    yield
    torch.nn.attention.restore_flash_attention_impl(_raise_warn=False)
    for name in [name for name in sys.modules if name.split(".")[0] in ("flash_attn", "flash_attn_interface")]:
        del sys.modules[name]


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize(("name", "chips"), [("flash3", [(9, 0)]), ("flash4", [(9, 0), (10, 0)])])
def test_an_installed_version_is_activated_on_its_chips_alone(
    name: str, chips: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert installed_kernels() == ("flash3", "flash4")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    for chip in [(8, 0), (9, 0), (10, 0), (12, 0)]:
        torch.nn.attention.restore_flash_attention_impl(_raise_warn=False)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, chip=chip: chip)
        if chip in chips:
            backend_named(name).require(CUDA)
            assert torch.nn.attention.current_flash_attention_impl() == f"FA{name[-1]}"
            continue
        with pytest.raises(AttentionError, match=rf"'{name}' runs on compute capability 9\.x.* a GPU has {chip[0]}"):
            backend_named(name).require(CUDA)
        assert torch.nn.attention.current_flash_attention_impl() is None


@pytest.mark.usefixtures("packages")
def test_version_2_takes_its_ops_back(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.nn.attention.activate_flash_attention_impl("FA4")
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    backend_named("flash2").require(CUDA)
    assert torch.nn.attention.current_flash_attention_impl() is None


@pytest.mark.usefixtures("packages")
def test_version_2_says_so_where_torch_cannot_give_its_ops_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    with monkeypatch.context() as older:
        older.delattr(torch.nn.attention, "restore_flash_attention_impl")
        backend_named("flash2").require(CUDA)
    torch.nn.attention.activate_flash_attention_impl("FA4")
    with monkeypatch.context() as older:
        older.delattr(torch.nn.attention, "restore_flash_attention_impl")
        with pytest.raises(AttentionError, match=r"FA4 stands behind torch's ops .* cannot take it back"):
            backend_named("flash2").require(CUDA)
