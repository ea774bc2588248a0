"""Make the documentation pages from the handbook: Markdown, and one page of HTML.

python scripts/make_docs.py [--out build/docs]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def write(folder: Path) -> list[Path]:
    """Write all pages, replacing those of an earlier run; the folder holds nothing else of ours afterwards."""
    from localllm.handbook.entries import entries
    from localllm.handbook.pages import pages

    folder.mkdir(parents=True, exist_ok=True)
    made = {folder / name: text for name, text in pages(entries()).items()}
    for path in [*folder.glob("*.md"), *folder.glob("*.html")]:
        if path not in made:
            path.unlink()
    for path, text in made.items():
        path.write_text(text, "utf-8")
    return list(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "docs", help="folder (default: build/docs)")
    args = parser.parse_args()
    print(f"{len(write(args.out))} pages in {args.out}")


if __name__ == "__main__":
    main()
