"""From a name to a registered model: what is chosen, what is refused, and what is never registered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from localllm.errors import HubError, InvalidModelError, ModelError, RemoteNotFoundError, UnreachableError, UsageError
from localllm.hub.listing import RemoteFile
from localllm.hub.surroundings import Surroundings
from localllm.hub.variants import Variant
from localllm.paths import Home
from localllm.store import catalog
from localllm.store.registry import Registry
from localllm.tasks.estimate import estimate
from localllm.tasks.pull import Noted, Offered, Pulled, PullRequest, pull
from localllm.tasks.remote import Choice, best
from tests.hub.conftest import QUICK
from tests.hub.models import split
from tests.hub.server import HubServer, serving

ROOM = 10**9


@pytest.fixture
def server() -> Iterator[HubServer]:
    with serving() as hub:
        yield hub


@pytest.fixture
def here(server: HubServer, tmp_path: Path) -> Surroundings:
    return Surroundings(server.endpoint, tmp_path / "hf" / "hub", timeout=2.0)


@pytest.fixture
def registry(home: Home) -> Registry:
    return Registry(home)


def done(registry: Registry, here: Surroundings, reference: str, **options: object) -> list[object]:
    request = replace(PullRequest(reference, memory=ROOM), **options)  # type: ignore[arg-type]
    return list(pull(registry, request, here=here, limits=QUICK))


def pulled(events: list[object]) -> Pulled:
    assert isinstance(events[-1], Pulled), events
    return events[-1]


def test_a_pulled_model_is_registered_with_its_hash_and_used_by_name(
    server: HubServer, here: Surroundings, registry: Registry, guide_path: Path
) -> None:
    server.repo("me/m", {"m-Q4_K_M.gguf": guide_path})
    last = pulled(done(registry, here, "me/m"))
    assert last.model.name == "me/m:Q4_K_M"
    assert registry.model("me/m").path.read_bytes() == guide_path.read_bytes()
    known = json.loads((registry.home.cache / "hashes.json").read_text())
    assert [entry[2] for entry in known.values()] == [hashlib.sha256(guide_path.read_bytes()).hexdigest()]
    again = pulled(done(registry, here, "me/m:q4_k_m"))
    assert (again.received, again.bytes) == (0, guide_path.stat().st_size)


def test_parts_are_pulled_as_one_model(
    server: HubServer, here: Surroundings, registry: Registry, guide_path: Path, tmp_path: Path
) -> None:
    parts = split(guide_path, tmp_path / "m-Q4_0.gguf", 20)
    server.repo("me/m", {part.name: part for part in parts})
    last = pulled(done(registry, here, "me/m"))
    assert last.model.path.name == "m-Q4_0-00001-of-00003.gguf"
    assert last.bytes == sum(part.stat().st_size for part in parts)


def variants(**sizes: int) -> list[Choice]:
    made = [Variant(name, (RemoteFile(f"{name}.gguf", size, "0" * 64),)) for name, size in sizes.items()]
    return [Choice(variant, variant.size, variant.size <= 60) for variant in made]


@pytest.mark.parametrize(
    "sizes, default, expected",
    [
        ({"Q2_K": 20, "Q4_K_M": 40, "Q6_K": 59, "Q8_0": 80, "F16": 160}, "", "Q6_K"),
        ({"Q4_K_M": 10, "Q8_0": 20, "F16": 40}, "", "Q8_0"),  # beyond it nothing is gained
        ({"Q2_K": 20, "Q4_K_M": 40, "Q6_K": 59}, "Q4_K_M", "Q4_K_M"),  # the card's choice, when it fits
        ({"Q2_K": 20, "Q4_K_M": 70}, "Q4_K_M", "Q2_K"),
        ({"Q2_K": 70, "Q4_K_M": 90}, "", "Q2_K"),  # nothing fits: the one that lacks least
        ({"F16": 40}, "", "F16"),
    ],
)
def test_the_best_that_fits_is_taken(sizes: dict[str, int], default: str, expected: str) -> None:
    assert best(variants(**sizes), default).variant.quantization == expected


def test_where_the_memory_is_unknown_the_usual_one_is_taken() -> None:
    unknown = [Choice(choice.variant) for choice in variants(Q2_K=1, Q4_K_M=2, Q8_0=3)]
    assert best(unknown).variant.quantization == "Q4_K_M"


def test_what_does_not_fit_is_refused_with_what_would(
    server: HubServer, here: Surroundings, registry: Registry, guide_path: Path
) -> None:
    small = Path(__file__).parents[1] / "oracle" / "llama.gguf"
    server.repo("me/m", {"m-Q8_0.gguf": guide_path, "m-Q4_0.gguf": small})
    between = 87_500_000  # of which a tenth stays free
    with pytest.raises(ModelError, match=r"as Q8_0 needs about 0.1 GB.*These fit: Q4_0. --force"):
        done(registry, here, "me/m:Q8_0", memory=between)
    assert server.find(hashlib.sha256(guide_path.read_bytes()).hexdigest())
    assert registry.pulled() == []
    assert pulled(done(registry, here, "me/m", memory=between)).model.name == "me/m:Q4_0"
    assert pulled(done(registry, here, "me/m:Q8_0", memory=between, force=True)).model.name == "me/m:Q8_0"


def test_a_dry_run_fetches_headers_only(
    server: HubServer, here: Surroundings, registry: Registry, guide_path: Path
) -> None:
    server.repo("me/m", {"m-Q4_K_M.gguf": guide_path})
    (offered,) = done(registry, here, "me/m", dry_run=True)
    assert isinstance(offered, Offered)
    assert offered.to_fetch == guide_path.stat().st_size
    assert server.bytes_sent() < 300_000
    assert not here.cache.exists()


def test_a_repository_that_holds_rubbish_is_never_registered(
    server: HubServer, here: Surroundings, registry: Registry, guide_path: Path
) -> None:
    content = guide_path.read_bytes()
    server.repo("me/m", {"m-Q4_0.gguf": b"GGUF" + bytes(9000), "m-Q8_0.gguf": content[:300_000]})
    for quantization in ("Q4_0", "Q8_0"):
        with pytest.raises(InvalidModelError):
            done(registry, here, f"me/m:{quantization}")
    assert registry.pulled() == []


def test_weights_in_other_formats_say_what_can_be_done(
    server: HubServer, here: Surroundings, registry: Registry
) -> None:
    server.repo("me/m", {"config.json": b"{}", "model.safetensors": bytes(9000)})
    server.repo("me/m-GGUF", {})
    with pytest.raises(RemoteNotFoundError, match=r"no GGUF: its weights are safetensors.*me/m-GGUF.*--mlx"):
        done(registry, here, "me/m")
    server.repo("me/data", {"README.md": b"x"})
    with pytest.raises(RemoteNotFoundError, match="no GGUF and no safetensors"):
        done(registry, here, "me/data")
    server.repo("me/half-GGUF", {"m-Q4_0-00001-of-00002.gguf": b"x"})
    with pytest.raises(
        RemoteNotFoundError, match=r"no whole model in GGUF, only m-Q4_0-00001-of-00002\.gguf"
    ) as caught:
        done(registry, here, "me/half-GGUF")
    assert "me/half-GGUF" not in caught.value.hint


def mlx_folder(tmp_path: Path, **config: object) -> dict[str, bytes]:
    save_file({"model.embed_tokens.weight": np.zeros((8, 4), np.float32)}, tmp_path / "w.safetensors")
    content = {"model_type": "llama", "quantization": {"bits": 4, "group_size": 64}} | config
    return {
        "config.json": json.dumps(content).encode(), "model.safetensors": (tmp_path / "w.safetensors").read_bytes(),
        "tokenizer.json": b"{}", "run_me.py": b"print(1)",
    }  # fmt: skip


def test_an_mlx_repository_comes_as_a_folder_without_its_code(
    server: HubServer, here: Surroundings, registry: Registry, tmp_path: Path
) -> None:
    server.repo("mlx-community/m-4bit", mlx_folder(tmp_path))
    last = pulled(done(registry, here, "mlx-community/m-4bit"))
    assert last.model.name == "mlx-community/m-4bit:mlx"
    assert sorted(p.name for p in last.model.path.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert [m.quantization for m in registry.pulled()] == ["MLX 4-bit"]
    server.repo("me/code", mlx_folder(tmp_path, auto_map={"AutoModel": "run_me.X"}), tags=("mlx",))
    events = done(registry, here, "me/code")
    assert any(isinstance(e, Noted) and "Python code of its own" in e.message for e in events)


def test_without_the_hub_what_is_here_will_do(
    server: HubServer, here: Surroundings, registry: Registry, guide_path: Path
) -> None:
    server.repo("me/m", {"m-Q4_K_M.gguf": guide_path})
    offline = replace(here, offline=True)
    with pytest.raises(UnreachableError):
        done(registry, offline, "me/m")
    done(registry, here, "me/m")
    assert not pulled(done(registry, offline, "me/m")).checked
    with pytest.raises(UnreachableError):
        done(registry, offline, "me/m", revision="v2")


def test_gated_files_name_the_page_to_visit(
    server: HubServer, here: Surroundings, registry: Registry, guide_path: Path
) -> None:
    server.repo("me/m", {"m-Q4_K_M.gguf": guide_path}, gated="manual")
    with pytest.raises(HubError, match=f"gated, and there is no token.*{server.endpoint}/me/m, then run `hf auth"):
        done(registry, here, "me/m")
    with pytest.raises(HubError, match=f"your token has no access.*{server.endpoint}/me/m"):
        done(registry, replace(here, token="hf_good"), "me/m")
    server.allowed.add("hf_member")
    assert pulled(done(registry, replace(here, token="hf_member"), "me/m"))


def test_catalog_names_stand_for_repositories_of_both_formats(
    server: HubServer, here: Surroundings, registry: Registry, guide_path: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    cards = tmp_path / "cards"
    cards.mkdir()
    (cards / "tiny.toml").write_text(
        'name = "tiny"\ntitle = "Tiny"\n[gguf]\nrepo = "me/m"\nquantization = "Q4_0"\n[mlx]\nrepo = "me/f"\n'
    )
    monkeypatch.setattr(catalog, "builtin_models", lambda: cards)
    server.repo("me/m", {"m-Q4_0.gguf": guide_path, "m-Q8_0.gguf": guide_path})
    server.repo("me/f", mlx_folder(tmp_path))
    assert pulled(done(registry, here, "tiny")).model.name == "tiny:Q4_0"
    assert pulled(done(registry, here, "tiny:mlx")).model.name == "tiny:mlx"
    assert pulled(done(registry, here, "me/m:Q8_0")).model.title == "Tiny"
    assert registry.model("tiny").name == "tiny:Q4_0"
    with pytest.raises(UsageError, match="Did you mean tiny"):
        done(registry, here, "tinny")


def test_fit_of_a_remote_model_is_that_of_the_same_file_here(
    server: HubServer, here: Surroundings, registry: Registry, guide_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repo("me/m", {"m-Q4_K_M.gguf": guide_path})
    monkeypatch.setattr("localllm.tasks.estimate.surroundings", lambda: here)
    remote, local = estimate(registry, "me/m", memory=ROOM), estimate(registry, str(guide_path), memory=ROOM)
    assert remote.chat == local.chat
    assert remote.training is not None
    assert local.training is not None
    assert remote.training.footprint == local.training.footprint
    assert remote.offer is not None
