"""All models of all places, and the one that a person means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from localllm.errors import InvalidModelError, ModelNotFoundError
from localllm.store.foreign.folders import in_folder
from localllm.store.foreign.hub_cache import in_hub_cache
from localllm.store.foreign.model import OWNERS, ForeignModel
from localllm.store.foreign.ollama import in_ollama, settings
from localllm.store.foreign.places import Place
from localllm.types import ModelRef

_READERS: dict[str, Callable[[Path], list[ForeignModel]]] = {"ollama": in_ollama, "hub": in_hub_cache}


def foreign_models(places: list[Place]) -> list[ForeignModel]:
    """Every model there is, place by place; one that two places lead to is told once."""
    found: dict[tuple[str, str, Path], ForeignModel] = {}
    for place in places:
        if not place.folder.is_dir():
            continue
        reader = _READERS.get(place.source)
        for model in reader(place.folder) if reader else in_folder(place.source, place.folder):
            found.setdefault((model.source, model.short, model.path), model)
    return list(found.values())


def find_foreign(models: list[ForeignModel], name: str) -> ForeignModel | None:
    """The model of that name, with its source or without it where only one answers to it.

    Raises ModelNotFoundError where several do, InvalidModelError for one that is broken and was named with its source.
    """
    found = [model for model in models if model.answers_to(name) and (is_foreign(name) or not model.problem)]
    exact = [model for model in found if name.lower() in (model.name.lower(), model.short.lower())]
    found = exact or found
    if len({model.path for model in found}) > 1:
        names = ", ".join(model.name for model in found[:6])
        raise ModelNotFoundError(f"Several models answer to {name!r}.", f"Name one of them whole: {names}.")
    if not found:
        return None
    if found[0].problem:
        message = f"{found[0].name} cannot be used: {found[0].problem}."
        raise InvalidModelError(message, f"It belongs to {owner(found[0])}: fetch it again there.")
    return found[0]


def owner(model: ForeignModel) -> str:
    """Whose it is, in words."""
    return OWNERS[model.source] or f"the folder that holds {model.path.name}"


def is_foreign(name: str) -> bool:
    """Whether a name says where its model is from."""
    return name.partition(":")[0].lower() in OWNERS and ":" in name


def reference(model: ForeignModel) -> ModelRef:
    """As the rest of the program knows a model, with what Ollama says of it."""
    said = settings(model) if model.source == "ollama" else None
    if said is None:
        return ModelRef(model.name, model.path, "foreign")
    return ModelRef(
        model.name, model.path, "foreign", sampling=said.sampling, system=said.system, stop=said.stop,
        template=said.template, adapters=said.adapters, notes=said.notes,
    )  # fmt: skip
