"""A peer's fine-tuning of the same rows in a process of its own; any interpreter that has the peer can run this.

    PYTHON bench_train_child.py peft JOB.json
    PYTHON bench_train_child.py mlx_lm JOB.json

JOB.json: "model", a Hugging Face folder; "rows", the tokens of each row and how many of them are the prompt; "batch",
"steps", "warm_up" (steps that do not count), "rank"; for mlx_lm "folder", where to put what it needs, and "texts", the
rows as messages. Writes one JSON line. Only the standard library is imported before it is known what runs.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

MISSING = "missing"


def peft(job: dict[str, Any]) -> dict[str, Any]:
    """PyTorch and PEFT in float32, LoRA on all linear layers, rows in the file's order padded to the longest."""
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    library = importlib.import_module("peft")
    model = transformers.AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    rank = job["rank"]
    settings = library.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    model = library.get_peft_model(model, settings)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    started, tokens = time.perf_counter(), 0
    for step in range(job["steps"]):
        if step == job["warm_up"]:
            started, tokens = time.perf_counter(), 0
        rows = job["rows"][step * job["batch"] : (step + 1) * job["batch"]]
        ids, mask, labels = _padded(torch, rows)
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        tokens += int(mask.sum())
    seconds = time.perf_counter() - started
    return {"tokens": tokens, "seconds": seconds, "version": f"{library.__version__}, torch {torch.__version__}"}


def _padded(torch: Any, rows: list[tuple[list[int], int]]) -> tuple[Any, Any, Any]:
    width = max(len(tokens) for tokens, _ in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, (tokens, prompt) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
        labels[row, prompt : len(tokens)] = torch.tensor(tokens[prompt:])
    return ids, mask, labels


def mlx_lm(job: dict[str, Any]) -> dict[str, Any]:
    """mlx_lm.lora as it comes, on its own 4-bit quantization of the folder; every row of its one epoch counts."""
    lora, package = importlib.import_module("mlx_lm.lora"), importlib.import_module("mlx_lm")
    convert = importlib.import_module("mlx_lm.convert").convert
    folder, batch = Path(job["folder"]), job["batch"]
    with open(os.devnull, "w") as nowhere:  # it writes of its progress to stdout
        sys.stdout, told = nowhere, sys.stdout
        try:
            convert(job["model"], str(folder / "model"), quantize=True)
            for name, rows in (("train", job["texts"]), ("valid", job["texts"][:batch])):
                lines = "".join(json.dumps({"messages": messages}) + "\n" for messages in rows)
                (folder / f"{name}.jsonl").write_text(lines, "utf-8")
            chosen = {
                "model": str(folder / "model"), "data": str(folder), "train": True, "batch_size": batch,
                "iters": job["steps"], "num_layers": job["layers"], "val_batches": 1, "mask_prompt": True,
                "adapter_path": str(folder / "adapters"), "steps_per_report": 1, "steps_per_eval": 10**9,
                "lora_parameters": {"rank": job["rank"], "dropout": 0.0, "scale": 2.0},
            }  # fmt: skip
            args = SimpleNamespace(**{**lora.CONFIG_DEFAULTS, **chosen})
            model, tokenizer = lora.load(args.model)
            train_rows, valid_rows, _ = lora.load_dataset(args, tokenizer)
            seconds: list[float] = []
            callback = SimpleNamespace(
                on_train_loss_report=lambda report: seconds.append(1 / report["iterations_per_second"]),
                on_val_loss_report=lambda report: None,
            )
            lora.train_model(args, model, train_rows, valid_rows, callback)
        finally:
            sys.stdout = told
    tokens = sum(len(row) for row, _ in job["rows"])
    return {"tokens": tokens, "seconds": sum(seconds), "version": package.__version__}


def main(program: str, path: str) -> int:
    """Train, and say what came of it, or what is not installed."""
    job = json.loads(Path(path).read_text("utf-8"))
    try:
        result = {"peft": peft, "mlx_lm": mlx_lm}[program](job)
    except ImportError as error:
        result = {MISSING: error.name or str(error)}
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != here]  # its neighbours are no modules
    raise SystemExit(main(*sys.argv[1:]))
