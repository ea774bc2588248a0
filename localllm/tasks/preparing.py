"""What fine-tuning needs before it starts: everything that can be wrong with the request is found here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localllm.data.batches import count
from localllm.data.checks import check_overlap, check_rows
from localllm.data.dataset import at, common_format, has_valid, read_dataset, split
from localllm.data.examples import Encoder, TrainOn
from localllm.data.fitting import DEFAULT_MAX_LENGTH, TooLong, fit
from localllm.engine.llama import LlamaEngine
from localllm.errors import DataError, UsageError
from localllm.store.registry import Registry
from localllm.tasks.pairing import MLXBase, paired
from localllm.tasks.rehearsing import Rehearsal, chosen
from localllm.tasks.settings import Settings, check, configured
from localllm.tune.config import TrainConfig
from localllm.types import Conversation, Example, ModelRef
from localllm.weights.config import model_config
from localllm.weights.convert import Other
from localllm.weights.gguf import GGUFFile, read_header
from localllm.weights.mlx_folder import CONFIG


@dataclass(frozen=True, kw_only=True)
class FinetuneRequest(Settings):
    """What to teach and how; None takes a default that fits the model and the number of rows."""

    data: Path
    source: str = ""
    """What is remembered of where `data` is from; empty: the name of its file."""
    name: str
    model: str
    mlx: Path | None = None
    """A folder of MLX with the same weights, which train in place of the model's own."""
    valid: Path | None = None
    """Rows to validate on; without it a tenth of `data` is held out."""
    test: Path | None = None
    """Rows to answer before and after, through llama.cpp."""
    too_long: TooLong = "error"
    train_on: TrainOn = "assistant"
    """What counts in the loss: every answer, the last of each conversation, or every token."""
    other: Other = "16bit"
    """What weights become that MLX cannot hold quantized; on a CPU all are float32."""
    rehearse: Rehearsal | None = None
    """Rows of other data to mix in."""
    overwrite: bool = False
    auto: bool = False
    """Take settings that fit the memory where those asked for do not."""
    ignore_memory: bool = False
    """Do not look whether it fits."""
    report: bool = False
    """Evaluate the adapter at the end and write a page about it."""
    resume: bool = False
    """Insist on a run of that name that was left unfinished."""
    restart: bool = False
    """Begin anew even if there is one."""
    finish: bool = False
    """Train no further than the best so far, or one step where there is none; the rest is done as ever."""


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
    mlx: MLXBase | None = None


def prepare(registry: Registry, request: FinetuneRequest) -> Prepared:
    """Resolve, read, split and tokenise. Raises ModelError, DataError, UsageError, TemplateError."""
    model = registry.model(request.model)
    if (model.path / CONFIG).is_file():
        message = f"{model.path} is an MLX folder, and an adapter is used with a GGUF of the same model."
        raise UsageError(message, f"Name both: --model FILE.gguf --mlx {model.path}.")
    header = read_header(model.path)
    architecture = model_config(header)  # refuses what cannot be fine-tuned
    check(request)
    mlx, notes = paired(registry, request.mlx, header) if request.mlx else (None, [])
    train, held_out = _rows(request)
    test = read_dataset(request.test, "test") if request.test else []
    n_ctx_train = int(architecture["max_position_embeddings"])
    limit = request.max_length or min(n_ctx_train, DEFAULT_MAX_LENGTH)
    findings = [*check_rows(train), *check_overlap(train, held_out), *check_overlap(train, test, what="test")]
    warnings = [*notes, *(finding.message for finding in findings)]
    engine = LlamaEngine.open(model.path, vocab_only=True)
    try:
        encoder = Encoder(engine, engine.info.has_template, engine.vocab.eos, engine.vocab.is_end, request.train_on)
        trained = _encode(encoder, train, limit, request.too_long, request.data, "row", warnings)
        trained += _rehearsed(encoder, request, limit, len(trained), warnings)
        valid = request.valid or request.data
        validated = _encode(encoder, held_out, limit, request.too_long, valid, "validation row", warnings)
        questions = [_question(encoder, row) for row in test if row.text is None]
    finally:
        engine.close()
    config = configured(request, len(trained), int(architecture["hidden_size"]), header)
    kind = common_format(train)
    return Prepared(model, header, kind, config, trained, validated, questions, n_ctx_train, warnings, mlx)


def steps_of(prepared: Prepared) -> int:
    """Steps of the whole run."""
    config = prepared.config
    return config.steps(count(prepared.train, config.batch_size, config.batch_tokens))


def _rows(request: FinetuneRequest) -> tuple[Sequence[Conversation], Sequence[Conversation]]:
    rows = read_dataset(request.data)
    if request.valid is not None or has_valid(request.data):
        return rows, read_dataset(request.valid or request.data, "valid")
    try:
        return split(rows, request.seed)
    except DataError as error:
        raise DataError(error.message, error.hint, path=request.data) from None


def _rehearsed(
    encoder: Encoder, request: FinetuneRequest, limit: int, taught: int, warnings: list[str]
) -> list[Example]:
    """The rows of --rehearse that are trained on; too long ones are skipped, being only company."""
    if request.rehearse is None:
        return []
    path, share = request.rehearse.path, request.rehearse.share
    rows = chosen(read_dataset(path), share, taught, request.seed)
    examples = _encode(encoder, rows, limit, "skip", path, "rehearsed row", warnings)
    if (real := len(examples) / (taught + len(examples))) < 0.9 * share:
        warnings.append(f"{path} has only {len(examples)} rows to rehearse: {real:.0%} of all instead of {share:.0%}.")
    return examples


def _encode(
    encoder: Encoder,
    rows: Sequence[Conversation],
    limit: int,
    too_long: TooLong,
    path: Path,
    what: str,
    warnings: list[str],
) -> list[Example]:
    """Examples of the rows; what had to be left out or divided is added to `warnings`."""
    fitted = fit(encoder, rows, limit, too_long, path)
    part = "left out, in whole or in part" if too_long == "split" else "left out"
    over = f"of {path} longer than {limit} tokens"
    for lines, which, fate in (
        (fitted.divided, over, "split"),
        (fitted.skipped, over, part),
        (fitted.unlearned, f"of {path} with nothing to learn", "left out"),
    ):
        if lines:
            many = len(lines) > 1
            counted = f"{len(lines)} {what}{'s' * many}"
            warnings.append(f"{counted} {which} {'were' if many else 'was'} {fate} ({at('line', lines)}).")
    return fitted.examples


def _question(encoder: Encoder, row: Conversation) -> Question:
    example = encoder.encode(row)[-1]
    prompt = tuple(encoder.prompt(row))
    return Question(row, prompt, len(example.tokens) - len(prompt))
