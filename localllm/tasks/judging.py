"""The verdict of a verification, from its numbers, and what is kept of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from localllm.evaluate.agreement import Agreement
from localllm.tasks.conversion import Conversion

NO_EFFECT = 1e-7  # nats; float32 noise is a thousand times smaller
MAX_FLOOR = 1e-6  # of the base on float32 weights; models of every architecture stay below 1e-7
FLOOR, FLOOR_RATIO = 1e-7, 10  # with the adapter: that much, or that many times the base's
MIN_COSINE = 0.999  # on float32 weights
ROUNDING_RATIO, EFFECT_SHARE = 3, 0.1  # on the base itself: times the base's rounding, plus a share of the effect
UNMEASURED_COSINE = 0.98  # on the base itself, where the conversion could not be measured apart


@dataclass(frozen=True)
class Verdict:
    """`problem` is empty when the adapter passed; `remark` is something to know nevertheless."""

    problem: str = ""
    remark: str = ""


def judge(conversion: Conversion | None, agreement: Agreement) -> Verdict:
    """Two things are told apart: whether our conversion does what it should, which shows on float32 weights, and how
    much llama.cpp's rounding of activations on this base blurs, which is held against the adapter's own effect."""
    a = agreement
    if a.effect_kl < NO_EFFECT:
        return Verdict("The adapter has no effect: the model answers as without it.")
    if conversion is not None and (problem := _conversion_problem(conversion)):
        return Verdict(problem)
    if conversion is None and a.effect_cosine < UNMEASURED_COSINE:
        return Verdict(f"The adapter moves llama.cpp in another direction than MLX: cosine {a.effect_cosine:.3f}.")
    if a.kl > (limit := ROUNDING_RATIO * a.base_kl + EFFECT_SHARE * a.effect_kl + FLOOR):
        return Verdict(f"With the adapter llama.cpp differs from MLX: mean KL {a.kl:.1e}, above {limit:.1e}.")
    return Verdict(remark=_remark(a))


def _conversion_problem(c: Conversion) -> str:
    if c.base_kl > MAX_FLOOR:
        return f"MLX and llama.cpp disagree on the base itself: mean KL {c.base_kl:.1e} on float32 weights."
    if c.kl > (limit := max(FLOOR, FLOOR_RATIO * c.base_kl)):
        return f"The adapter does something else in llama.cpp than in MLX: mean KL {c.kl:.1e}, above {limit:.1e}."
    if c.effect_kl > NO_EFFECT and c.cosine < MIN_COSINE:
        return f"The adapter moves llama.cpp in another direction than MLX: cosine {c.cosine:.4f}."
    return ""


def _remark(a: Agreement) -> str:
    """Said of an adapter that is right and yet hardly to be seen."""
    if a.kl > a.effect_kl:
        return (
            f"llama.cpp's rounding on this base (mean KL {a.kl:.1e}) is larger than what the adapter changes "
            f"({a.effect_kl:.1e})."
        )
    return ""


def certificate(
    conversion: Conversion | None, agreement: Agreement, verdict: Verdict, base_sha256: str, rows: str
) -> dict[str, Any]:
    """What is kept of a verification: numbers, versions, the rows it was made on and the base's content hash."""
    floor = asdict(conversion) if conversion else {}
    return {
        "passed": not verdict.problem,
        "rows": rows,
        **asdict(agreement),
        **{f"conversion_{key}": value for key, value in floor.items()},
        "base_sha256": base_sha256,
        "llama_cpp_python": version("llama-cpp-python"),
        "mlx": version("mlx"),
    }
