#!/usr/bin/env python3
"""Train the built-in model from nothing and write it as a 4-bit GGUF.

Needs the project's own environment, whose packages are also the prose that it reads, and PyTorch, which only this
script uses:

    pip install torch==2.13.0
    python scripts/train_guide.py --out build/guide            # the whole of it
    python scripts/train_guide.py --out build/smoke --smoke    # every step of it, in seconds

A run that was stopped is taken up with --resume. The result is OUT/guide.gguf; OUT/guide-f16.gguf is the same
unquantized.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from guide import corpus, export, mix, tokenizer, train
from guide.settings import Shape
from guide.train import Phase

PHASES = (
    Phase(1500, mix.EARLY),
    Phase(2100, mix.LATE, first=0.25),
    Phase(2900, mix.READ, first=0.6),
    Phase(3240, mix.LAST, first=0.4, last=0.03),
    Phase(4900, mix.FIND, first=0.6, last=0.02),
    Phase(5600, mix.SETTLE, first=0.4, last=0.02),
    Phase(6150, mix.LEAD, first=0.35, last=0.02),
)
SMOKE = tuple(
    Phase(step, shares)
    for step, shares in enumerate((mix.EARLY, mix.LATE, mix.READ, mix.LAST, mix.FIND, mix.SETTLE, mix.LEAD), 1)
)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the corpus, tokenizer, checkpoint and model"
    )
    parser.add_argument("--procs", type=int, default=2, help="processes; more of them see more tokens in a step")
    parser.add_argument("--resume", action="store_true", help="go on from OUT/checkpoint.pt")
    parser.add_argument("--float32", action="store_true", help="no bfloat16 products, for processors without them")
    parser.add_argument("--smoke", action="store_true", help="a few small steps, to see that all of it runs")
    return parser.parse_args()


def main() -> None:
    """Corpus, tokenizer, training, export."""
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    passages, _ = mix.divide(corpus.load(args.out / "corpus.json"))
    words_file = args.out / "tokenizer.json"
    if not words_file.exists():
        texts = [s for p in passages.passages for s in p] + mix.sample_texts(passages, 4000)
        tokenizer.train(texts, Shape().vocab).save(str(words_file))
    passages = replace(passages, pieces=tokenizer.pieces(tokenizer.load(words_file)))
    plan = train.Plan(
        args.out,
        SMOKE if args.smoke else PHASES,
        processes=args.procs,
        tokens=512 if args.smoke else 2048,
        bfloat16=not args.float32,
    )
    if plan.checkpoint.exists() and not args.resume:
        raise SystemExit(f"{plan.checkpoint} exists: add --resume to go on from it, or choose another folder")
    train.run(plan, passages)
    export.write(train.averaged(plan), tokenizer.load(words_file), args.out / "guide.gguf")


if __name__ == "__main__":
    main()
