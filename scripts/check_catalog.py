"""Ask the hub whether every entry of the catalog still holds: repositories, quantizations, sizes, context, licence.

    python scripts/check_catalog.py [NAME ...]      needs the network; HF_ENDPOINT names another hub

Of each GGUF only the header is read, a few megabytes. Exits with 1 when an entry does not hold.
"""

from __future__ import annotations

import argparse
import sys
from math import prod
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from localllm.errors import LocalLLMError  # noqa: E402
from localllm.hub.http import Hub  # noqa: E402
from localllm.hub.listing import Repository, list_repository  # noqa: E402
from localllm.hub.reference import Reference  # noqa: E402
from localllm.hub.surroundings import surroundings  # noqa: E402
from localllm.hub.variants import folder_variant, is_mlx  # noqa: E402
from localllm.store.catalog import cards  # noqa: E402
from localllm.tasks.remote import Named, look  # noqa: E402
from localllm.weights.gguf import GGUFFile  # noqa: E402

NEAR = 0.05
"""Part of the weights by which a card may be off: it gives three digits."""
FAMILIES = ("apache-2.0", "mit", "gemma", "llama")
"""Beginnings of the licences that are in use."""


def check(hub: Hub, name: str, card: dict[str, Any]) -> list[str]:
    """What of an entry does not hold."""
    problems = _missing(name, card)
    if problems:
        return problems
    gguf, mlx = card["gguf"], card.get("mlx")
    try:
        asked = Named(Reference(gguf["repo"], gguf["quantization"]), name, card)
        offer = look(hub, asked, memory=1 << 50)
        assert offer.header is not None
        problems += _header(card, offer.header) + _license(card, offer.repository)
    except LocalLLMError as error:
        problems.append(error.message)
    if mlx:
        try:
            repository = list_repository(hub, mlx["repo"])
            if folder_variant(repository) is None or not is_mlx(repository):
                problems.append(f"{mlx['repo']} holds no folder for MLX")
        except LocalLLMError as error:
            problems.append(error.message)
    return problems


def _missing(name: str, card: dict[str, Any]) -> list[str]:
    wanted = {
        "name": str, "title": str, "description": str, "license": str, "context": int, "languages": list,
        "tools": bool, "thinking": bool, "parameters": int, "gguf": dict,
    }  # fmt: skip
    problems = [
        f"{key} is missing or no {kind.__name__}" for key, kind in wanted.items() if type(card.get(key)) is not kind
    ]
    problems += [f"gguf.{key} is missing" for key in ("repo", "quantization") if not card.get("gguf", {}).get(key)]
    return problems if card.get("name") == name else [*problems, "its name is not that of its file"]


def _header(card: dict[str, Any], header: GGUFFile) -> list[str]:
    problems = []
    weights = sum(prod(tensor.shape) for tensor in header.tensors.values())
    if abs(weights / card["parameters"] - 1) > NEAR:
        problems.append(f"it has {weights:,} weights, not {card['parameters']:,}")
    context = header.metadata.get(f"{header.architecture}.context_length")
    if isinstance(context, int) and context < card["context"]:
        problems.append(f"its context is {context}, not {card['context']}")
    template = str(header.metadata.get("tokenizer.chat_template", ""))
    if not template:
        problems.append("it has no chat template")
    if card["tools"] and "tool" not in template:
        problems.append("its chat template knows no tools")
    return problems


def _license(card: dict[str, Any], repository: Repository) -> list[str]:
    said, ours = repository.license.lower(), str(card["license"]).lower().replace(" ", "")
    family = next((family for family in FAMILIES if said.startswith(family)), said)
    return (
        [f"its licence is {repository.license}, not {card['license']}"] if said and not ours.startswith(family) else []
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="entries to check (default: all)")
    arguments = parser.parse_args()
    entries = {name: card for name, card in cards().items() if "file" not in card}
    if unknown := sorted(set(arguments.names) - set(entries)):
        parser.error(f"there is no entry {', '.join(unknown)}")
    failed = 0
    with Hub(surroundings()) as hub:
        for name in arguments.names or entries:
            problems = check(hub, name, entries[name])
            failed += bool(problems)
            print(f"{name:20} {'; '.join(problems) or 'holds'}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
