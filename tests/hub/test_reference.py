"""What a person types, and which names may become paths."""

from __future__ import annotations

import pytest

from localllm.errors import UsageError
from localllm.hub.names import is_safe
from localllm.hub.reference import Reference, bare, kind_of, looks_remote, parse, parse_dataset


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a/b", Reference("a/b")),
        ("a/b:Q4_K_M", Reference("a/b", "Q4_K_M")),
        ("a/b/c.gguf", Reference("a/b", file="c.gguf")),
        ("a/b/Q4/c-00001-of-00002.gguf", Reference("a/b", file="Q4/c-00001-of-00002.gguf")),
        ("hf.co/a/b:q4_0", Reference("a/b", "q4_0")),
        ("huggingface.co/a/b", Reference("a/b")),
        ("https://huggingface.co/a/b/", Reference("a/b")),
        ("https://hf.co/a/b/blob/main/x%20y.gguf", Reference("a/b", file="x y.gguf", revision="main")),
        ("https://huggingface.co/a/b/resolve/v1/x.gguf?download=true", Reference("a/b", file="x.gguf", revision="v1")),
        ("https://huggingface.co/a/b/tree/refs%2Fpr%2F1", Reference("a/b", revision="refs/pr/1")),
        ("hf://a/b@v1/x.gguf", Reference("a/b", file="x.gguf", revision="v1")),
        ("http://mirror:8080/a/b", Reference("a/b")),
    ],
)
def test_every_form_of_a_reference_is_read(text: str, expected: Reference) -> None:
    assert parse(text, "mirror") == expected


@pytest.mark.parametrize(
    "text",
    [
        "guide", "", "/", "a/", "a/../b", "a/b/../../etc/passwd", "a/b/\x1b[2J.gguf", "https://evil.example/a/b",
        "datasets/a/b", "a--b/c", "a/b.git", "a/b:Q 4", "a/b:", "a/b//c.gguf", "a/b/c:d.gguf", "../a", "~/m/x.gguf",
    ],
)  # fmt: skip
def test_what_names_no_model_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)
    assert not looks_remote(text)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a/b", Reference("datasets/a/b")),
        ("datasets/a/b", Reference("datasets/a/b")),
        ("a/b@v1", Reference("datasets/a/b", revision="v1")),
        ("hf://datasets/a/b@v1/en/train.csv", Reference("datasets/a/b", file="en/train.csv", revision="v1")),
        ("https://huggingface.co/datasets/a/b/viewer/main/train?p=1", Reference("datasets/a/b")),
        ("https://hf.co/datasets/a/b/tree/v1/en", Reference("datasets/a/b", file="en", revision="v1")),
    ],
)
def test_every_form_of_a_dataset_is_read(text: str, expected: Reference) -> None:
    assert parse_dataset(text) == expected
    assert (kind_of(expected.repo), bare(expected.repo)) == ("dataset", "a/b")


@pytest.mark.parametrize("text", ["models/a/b", "spaces/a/b", "datasets/a", "a/b:Q4_0", "a/b/../c", "https://x.y/a/b"])
def test_what_names_no_dataset_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="owner/name"):
        parse_dataset(text)


@pytest.mark.parametrize(
    "name",
    [
        "../x", "a/../../x", "/etc/passwd", "a//b", "a\\b", "C:/x", "a/./b", "a\nb", "\x1b]52;c;x", "a\u202eb", "con",
        "x/NUL.gguf", "x" * 256, "a/" * 40 + "b", " a", "a ", "a.", "", "\ud800",
    ],
)  # fmt: skip
def test_hostile_names_are_not_safe(name: str) -> None:
    assert not is_safe(name)


@pytest.mark.parametrize("name", ["model.gguf", "Q4_K_M/m-00001-of-00003.gguf", ".gitattributes", "模型 v2 (é).gguf"])
def test_ordinary_names_are_safe(name: str) -> None:
    assert is_safe(name)
