"""Adapter folders of Hugging Face's PEFT, in and out.

Layout (peft/utils/save_and_load.py, tuners/lora/layer.py), names behind "base_model.model.":

    <path>.lora_A.weight (rank, in)             <path>.lora_B.weight (out, rank)
    <path>.lora_embedding_A (rank, vocabulary)  <path>.lora_embedding_B (width, rank)
    <path>.base_layer.weight                    the base's own, saved along with an adapter on the embedding

and adapter_config.json. A layer is multiplied with alpha / rank, with rsLoRA alpha / sqrt(rank); rank_pattern and
alpha_pattern give layers their own. Experts have a matrix each, `mlp.experts.N.gate_proj`, where MLX has one stack.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from localllm.errors import AdapterError, AdapterMismatchError
from localllm.weights.adapter import Adapter, from_scaled, rescaled, text_module
from localllm.weights.architectures import architecture_of
from localllm.weights.gguf import GGUFFile
from localllm.weights.names import EMBEDDING, OUTPUT, Slot, modules
from localllm.weights.peft_config import CONFIG, Config, read_config, write_config
from localllm.weights.safetensors import Matrix, read_tensors

WEIGHTS, PICKLE = "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."
_NAME = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<half>[AB])(\.default)?(\.weight)?")
Scaled = tuple[Matrix, Matrix, float]
Expert = tuple[str, int | None]
"""A module's path in MLX, and which of its experts."""


def read(folder: Path, base: GGUFFile) -> tuple[Adapter, list[str]]:
    """The adapter in a folder of PEFT, and what had to be assumed, in sentences.

    Raises AdapterError, in one sentence with the reason, for pickles, other methods than LoRA, what changes more than
    low-rank products, and damaged files; AdapterMismatchError for modules that the base does not have.
    """
    if not (folder / WEIGHTS).is_file():
        if (folder / PICKLE).is_file():
            message = f"{folder / PICKLE} is a pickle, which can run any program when it is opened."
            raise AdapterError(message, f"Ask for {WEIGHTS}, or save it so with PEFT where you trust it.")
        raise AdapterError(f"{folder} has no {WEIGHTS}.")
    config, slots = read_config(folder / CONFIG), modules(base)
    pairs, experts = _pairs(folder, slots, config), _hugging_face_names(base, slots)
    layers: dict[str, Scaled] = {}
    stacks: defaultdict[str, dict[int, Scaled]] = defaultdict(dict)
    for name, (a, b) in pairs.items():
        path, expert = experts.get(name, (name, None))
        if path not in slots:
            raise AdapterMismatchError(f"The adapter changes {name}, which {base.path} does not have.")
        scale = config.scale(name, a.shape[0] if a.ndim else 0)
        if expert is None:
            layers[path] = (a.T, b.T, scale)
        else:
            stacks[path][expert] = (a, b, scale)
    stacked = {path: _stack(path, stack, slots[path]) for path, stack in stacks.items()}
    return from_scaled(layers | stacked, config.dropout), []


def write(folder: Path, adapter: Adapter, base: GGUFFile) -> None:
    """A folder for `peft.PeftModel.from_pretrained` on the Hugging Face model that `base` was converted from.

    One alpha serves all layers, so that programs which leave out alpha_pattern, llama.cpp's converter among them, do
    the same.

    Raises AdapterError for what PEFT cannot hold: adapters on experts.
    """
    from safetensors.numpy import save

    slots = modules(base)
    if any(a.ndim == 3 for a, _ in adapter.layers.values()):
        message = "PEFT has no LoRA for experts that transformers holds as one stack."
        raise AdapterError(message, "Choose --to gguf, mlx or merged.")
    tensors = {}
    for path, (a, unscaled) in adapter.layers.items():
        b = rescaled(unscaled, a.shape[1] / adapter.rank)
        halves = ("lora_embedding_A", "lora_embedding_B") if path == EMBEDDING else ("lora_A.weight", "lora_B.weight")
        for half, value in zip(halves, (a, b), strict=True):
            tensors[f"{PREFIX}{path}.{half}"] = np.ascontiguousarray(value.T, np.float32)
        if path == EMBEDDING and OUTPUT not in slots:  # it is the output too: the same numbers, the other way round
            tensors[f"{PREFIX}{OUTPUT}.lora_A.weight"] = np.ascontiguousarray(b, np.float32)
            tensors[f"{PREFIX}{OUTPUT}.lora_B.weight"] = np.ascontiguousarray(a, np.float32)
    part = folder / f".{WEIGHTS}.part"
    part.write_bytes(save(tensors, metadata={"format": "pt"}))
    part.replace(folder / WEIGHTS)
    write_config(folder / CONFIG, adapter, slots)


def _pairs(folder: Path, slots: dict[str, Slot], config: Config) -> dict[str, tuple[Matrix, Matrix]]:
    """Module -> A and B as PEFT has them: (rank, in) and (out, rank)."""
    halves: defaultdict[str, dict[str, Matrix]] = defaultdict(dict)
    for name, value in read_tensors(folder / WEIGHTS).items():
        bare = text_module(name.removeprefix(PREFIX))
        if bare.endswith(".base_layer.weight"):
            _check_base_layer(bare, value, slots)
        elif found := _NAME.fullmatch(bare):
            _check_embedding(found, slots, config)
            halves[found["module"]][found["half"]] = value
        else:
            raise AdapterError(f"The adapter holds {name}, which is not a LoRA matrix.")
    if config.ties_output and OUTPUT not in slots:
        halves.pop(OUTPUT, None)  # the same numbers as the embedding's, transposed
    for module, both in halves.items():
        if len(both) != 2:
            raise AdapterError(f"The adapter holds lora_{next(iter(both))} of {module} without its other half.")
    return {module: (both["A"], both["B"]) for module, both in halves.items()}


def _check_base_layer(name: str, value: Matrix, slots: dict[str, Slot]) -> None:
    """The base's matrix, saved along, must not be one of a vocabulary that has grown."""
    slot = slots.get(name.removesuffix(".base_layer.weight"))
    if slot is not None and slot.shape != value.shape:
        message = f"The adapter brings {name} of shape {value.shape}, but {slot.tensor} has {slot.shape}."
        raise AdapterMismatchError(message, "It was made for a model with another vocabulary.")


def _check_embedding(found: re.Match[str], slots: dict[str, Slot], config: Config) -> None:
    if bool(found["embedding"]) != (found["module"] == EMBEDDING):
        raise AdapterError(f"The adapter holds {found[0]}, which is not how PEFT keeps that.")
    if found["embedding"] and OUTPUT not in slots and not config.ties_output:
        message = "The adapter changes the token embedding alone, and the model shares it with its output."
        raise AdapterError(message, "Neither llama.cpp nor a merge can do that; train it with ensure_weight_tying.")


def _hugging_face_names(base: GGUFFile, slots: dict[str, Slot]) -> dict[str, Expert]:
    """The name of each expert's matrix -> the stack that MLX has for all, and the expert's number."""
    found: dict[str, Expert] = {}
    for path, slot in slots.items():
        if len(slot.shape) == 3:
            for ours, theirs in architecture_of(base).aliases.items():
                found |= {path.replace(ours, f"{theirs}{n}."): (path, n) for n in range(slot.shape[0])}
    return found


def _stack(path: str, experts: dict[int, Scaled], slot: Slot) -> Scaled:
    """A (experts, rank, in) and B (experts, out, rank) of all experts; smaller ranks are filled up with zeros."""
    if missing := [str(n) for n in range(slot.shape[0]) if n not in experts]:
        listed = ", ".join(missing[:5])
        raise AdapterError(
            f"The adapter has only {len(experts)} of {slot.shape[0]} experts of {path}: {listed} are missing."
        )
    rank = max(a.shape[0] for a, _, _ in experts.values())
    _, out, width = slot.shape
    stacked_a, stacked_b = (
        np.zeros((slot.shape[0], rank, width), np.float32),
        np.zeros((slot.shape[0], out, rank), np.float32),
    )
    common = experts[0][2]
    for number, (a, b, scale) in experts.items():
        if a.shape[1:] != (width,) or b.shape != (out, a.shape[0]):
            problem = f"has the shapes {a.shape} and {b.shape} for expert {number}, but {slot.tensor} has {slot.shape}"
            raise AdapterMismatchError(f"The adapter's {path} {problem}.")
        stacked_a[number, : len(a)] = a
        stacked_b[number, :, : len(a)] = b if scale == common else b * np.float32(scale / common)
    return stacked_a, stacked_b, common
