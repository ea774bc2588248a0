"""What fine-tuning needs before it starts: everything that can be wrong with the request is found here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localllm.data.dataset import format_of, read_dataset, split
from localllm.data.examples import Encoder, TooLong, fitting
from localllm.engine.llama import LlamaEngine
from localllm.errors import DataError, UsageError
from localllm.store.registry import Registry
from localllm.tune.config import TrainConfig, default_batch_size, default_epochs, default_learning_rate
from localllm.types import Conversation, Example, ModelRef
from localllm.weights.config import model_config
from localllm.weights.convert import Other
from localllm.weights.gguf import GGUFFile, read_header

DEFAULT_MAX_LENGTH = 2048


@dataclass(frozen=True)
class FinetuneRequest:
    """What to teach and how; None takes a default that fits the model and the number of rows."""

    data: Path
    name: str
    model: str
    valid: Path | None = None
    """Rows to validate on; without it a tenth of `data` is held out."""
    test: Path | None = None
    """Rows to answer before and after, through llama.cpp."""
    epochs: int | None = None
    max_steps: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    rank: int = 16
    alpha: float | None = None
    """Default: twice the rank."""
    dropout: float = 0.0
    max_length: int | None = None
    """Tokens of the longest row; default: the model's context, up to 2048."""
    too_long: TooLong = "error"
    seed: int = 0
    other: Other = "16bit"
    """What weights become that MLX cannot hold quantized; on a CPU all are float32."""
    overwrite: bool = False


@dataclass(frozen=True)
class Question:
    """A row of --test: the prompt as tokens, and the answer that counts as right."""

    row: Conversation
    prompt: tuple[int, ...]
    answer_tokens: int


@dataclass(frozen=True)
class Prepared:
    """A request that was found to be in order."""

    model: ModelRef
    header: GGUFFile
    format: str
    config: TrainConfig
    train: list[Example]
    held_out: list[Example]
    questions: list[Question]
    n_ctx_train: int
    warnings: list[str]


def prepare(registry: Registry, request: FinetuneRequest) -> Prepared:
    """Resolve, read, split and tokenise. Raises ModelError, DataError, UsageError, TemplateError."""
    model = registry.model(request.model)
    header = read_header(model.path)
    architecture = model_config(header)  # refuses what cannot be fine-tuned
    _check_numbers(request)
    train, held_out = _rows(request)
    test = read_dataset(request.test) if request.test else []
    n_ctx_train = int(architecture["max_position_embeddings"])
    limit = request.max_length or min(n_ctx_train, DEFAULT_MAX_LENGTH)
    warnings: list[str] = []
    engine = LlamaEngine.open(model.path, vocab_only=True)
    try:
        encoder = Encoder(engine, engine.info.has_template, engine.vocab.eos, engine.vocab.is_end)
        trained = _encode(encoder, train, limit, request.too_long, request.data, warnings)
        validated = _encode(encoder, held_out, limit, request.too_long, request.valid or request.data, warnings)
        questions = [_question(encoder, row) for row in test if row.text is None]
    finally:
        engine.close()
    config = _config(request, len(trained), int(architecture["hidden_size"]))
    kind = format_of(train[0])
    return Prepared(model, header, kind, config, trained, validated, questions, n_ctx_train, warnings)


def _check_numbers(request: FinetuneRequest) -> None:
    for name in ("epochs", "max_steps", "batch_size", "learning_rate", "rank", "alpha", "max_length"):
        value = getattr(request, name)
        if value is not None and not value > 0:
            raise UsageError(f"--{name.replace('_', '-')} must be more than 0, not {value}.")
    if not 0 <= request.dropout < 1:
        raise UsageError(f"--dropout must be at least 0 and less than 1, not {request.dropout}.")


def _rows(request: FinetuneRequest) -> tuple[Sequence[Conversation], Sequence[Conversation]]:
    rows = read_dataset(request.data)
    if request.valid is not None:
        return rows, read_dataset(request.valid)
    try:
        return split(rows, request.seed)
    except DataError as error:
        raise DataError(error.message, error.hint, path=request.data) from None


def _encode(
    encoder: Encoder, rows: Sequence[Conversation], limit: int, too_long: TooLong, path: Path, warnings: list[str]
) -> list[Example]:
    """Examples of the rows; what had to be left out is added to `warnings`."""
    encoded = [encoder.encode(row) for row in rows]
    partial = [example.line for example, left_out in encoded if left_out]
    if partial:
        warnings.append(
            f"The chat template shows earlier answers differently later on, so only the last answer of {len(partial)} "
            f"rows of {path} is learned (lines {_listed(partial)})."
        )
    kept, skipped = fitting([example for example, _ in encoded], limit, too_long, path)
    if skipped:
        warnings.append(f"{len(skipped)} rows of {path} are longer than {limit} tokens and were left out "
                        f"(lines {_listed(skipped)}).")  # fmt: skip
    return kept


def _listed(lines: Sequence[int]) -> str:
    return ", ".join(map(str, lines[:8])) + (" …" if len(lines) > 8 else "")


def _question(encoder: Encoder, row: Conversation) -> Question:
    example, _ = encoder.encode(row)
    prompt = tuple(encoder.prompt(row))
    return Question(row, prompt, len(example.tokens) - len(prompt))


def _config(request: FinetuneRequest, rows: int, width: int) -> TrainConfig:
    return TrainConfig(
        epochs=request.epochs or default_epochs(rows),
        batch_size=request.batch_size or default_batch_size(rows),
        learning_rate=request.learning_rate or default_learning_rate(width),
        rank=request.rank,
        alpha=request.alpha or 2.0 * request.rank,
        dropout=request.dropout,
        seed=request.seed,
        max_steps=request.max_steps,
    )
