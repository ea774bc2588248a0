"""Training: several single-threaded processes, each with its own documents, that add up their gradients at every step.

Only the assistant's words are learned. The starting weights already copy, and plain training breaks that: the
attention of layers 0 and 1 hardly moves, and the embedding and layer 0's feed-forward write only to the coordinates
that the circuit does not use. An exponential average of the weights is what is exported. Matrix products run in
bfloat16 where the processor multiplies it natively, which doubles the speed; weights and sums stay float32.
"""

import math
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from . import circuit, mix, tokenizer
from .model import Guide
from .passages import Source
from .settings import Shape

FREE_LENGTH = 0.5
"""Of the part of an embedding that the circuit does not use; its code has length 1."""


@dataclass(frozen=True)
class Phase:
    """Steps with one mix of examples, during which the learning rate falls along a cosine."""

    until: int
    """The step that it ends before."""
    shares: tuple[float, ...]
    first: float = 1.0
    last: float = 0.05
    """Factors of the peak rate at both ends."""


@dataclass(frozen=True)
class Plan:
    """Everything that decides a run."""

    out: Path
    phases: tuple[Phase, ...]
    processes: int = 2
    tokens: int = 2048
    """Tokens of one process in one step."""
    rate: float = 1.5e-3
    token_rate: float = 5e-4
    circuit_rate: float = 3e-5
    decay: float = 0.05
    warmup: int = 60
    average: float = 0.995
    seed: int = 0
    bfloat16: bool = True
    save_seconds: float = 240.0

    @property
    def steps(self) -> int:
        """Of all phases."""
        return self.phases[-1].until

    @property
    def checkpoint(self) -> Path:
        """Where a run can be taken up again."""
        return self.out / "checkpoint.pt"


def group_of(name: str) -> str:
    """The circuit, the tokens, or the rest."""
    if name.startswith(("layers.0.attention", "layers.1.attention")):
        return "circuit"
    return "token" if name.startswith("embedding") else "free"


def make_optimizer(model: Guide, plan: Plan) -> torch.optim.AdamW:
    """The circuit hardly, the tokens slowly, the rest at the full rate; decay for that only."""
    rates = {"circuit": plan.circuit_rate, "token": plan.token_rate, "free": plan.rate}
    groups = [
        {
            "params": [p for n, p in model.named_parameters() if group_of(n) == group],
            "peak": rate,
            "weight_decay": plan.decay if group == "free" else 0.0,
        }
        for group, rate in rates.items()
    ]
    return torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.95), eps=1e-8, foreach=True)


def schedule(step: int, plan: Plan) -> tuple[float, tuple[float, ...]]:
    """Factor of the peak rate, with a linear warm-up in every phase, and the shares of the kinds of examples."""
    start = 0
    for phase in plan.phases:
        if step < phase.until:
            break
        start = phase.until
    warm = min(1.0, (step - start + 1) / plan.warmup)
    fallen = 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, phase.until - start)))
    return warm * (phase.last + (phase.first - phase.last) * fallen), phase.shares


def loss_sum(model: Guide, batch: mix.Batch, bfloat16: bool) -> tuple[Tensor, int]:
    """Summed cross-entropy of the learned tokens of a batch, and how many they are."""
    ids = torch.tensor(batch.ids)
    at = torch.nonzero(torch.tensor(batch.learned[1:]))[:, 0]
    # Few different shapes: oneDNN compiles and keeps one kernel for each.
    fill = -len(at) % 128
    targets = functional.pad(ids[at + 1], (0, fill), value=-100)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits = model(ids, batch.lengths, functional.pad(at, (0, fill)))
    return functional.cross_entropy(logits.float(), targets, reduction="sum"), len(at)


def add_up(model: Guide, loss: float, count: int) -> tuple[float, int]:
    """Replace the gradients by those of the mean loss over the tokens of all processes; return loss sum and count."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients] + [torch.tensor([loss, float(count)])])
    if dist.is_initialized():
        dist.all_reduce(flat)
    total = flat[-1].item()
    parts = flat[:-2].div_(total).split([g.numel() for g in gradients])
    torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(parts, gradients, strict=True)])
    return flat[-2].item(), int(total)


def spare_circuit(model: Guide) -> None:
    """No gradient for what embedding and layer 0's feed-forward write to the coordinates that the circuit compares."""
    model.embedding.weight.grad[:, : circuit.FREE] = 0
    model.layers[0].down.weight.grad[: circuit.FREE] = 0


@torch.no_grad()
def bound_rows(model: Guide) -> None:
    """Keep the free part of every embedding short.

    Tokens that are seldom the right answer are pushed down all the time, which makes theirs long; the norm then leaves
    too little of their code for the circuit to find, and copying stops at them.
    """
    free = model.embedding.weight[:, circuit.FREE :]
    free.mul_((FREE_LENGTH / free.norm(dim=1, keepdim=True)).clamp(max=1.0))


def save(plan: Plan, step: int, model: Guide, average: Guide, optimizer: torch.optim.Optimizer) -> None:
    """Write the checkpoint under another name first, so that a crash leaves the old one."""
    state = {
        "step": step,
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    new = plan.checkpoint.with_suffix(".new")
    torch.save(state | {"plan": {k: str(v) for k, v in asdict(plan).items()}}, new)
    new.replace(plan.checkpoint)


def _loop(rank: int, plan: Plan, model: Guide, source: Source, words: Tokenizer) -> None:
    optimizer = make_optimizer(model, plan)
    average = Guide(model.shape).requires_grad_(False)
    average.load_state_dict(model.state_dict())
    first = 0
    if plan.checkpoint.exists():
        state = torch.load(plan.checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    started = saved = time.monotonic()
    loss_total, count_total, tokens = 0.0, 0, 0
    for step in range(first, plan.steps):
        seed = (plan.seed * 1_000_000 + step) * 64 + rank
        rate, shares = schedule(step, plan)
        batch = mix.batch(words, source, seed, plan.tokens, shares)
        optimizer.zero_grad(set_to_none=True)
        loss, count = loss_sum(model, batch, plan.bfloat16)
        loss.backward()
        loss_all, count_all = add_up(model, loss.item(), count)
        spare_circuit(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        optimizer.step()
        bound_rows(model)
        loss_total, count_total, tokens = loss_total + loss_all, count_total + count_all, tokens + len(batch.ids)
        if rank:
            continue
        keep = min(plan.average, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(average.parameters()), [p.detach() for p in model.parameters()], 1 - keep)
        if (step + 1) % 50 == 0 or step + 1 == plan.steps:
            speed = tokens * plan.processes / (time.monotonic() - started)
            print(
                f"step {step + 1}/{plan.steps}  loss {loss_total / count_total:.4f}  {speed:.0f} tokens/s", flush=True
            )
            loss_total, count_total = 0.0, 0
        if time.monotonic() - saved > plan.save_seconds or step + 1 == plan.steps:
            save(plan, step + 1, model, average, optimizer)
            saved = time.monotonic()


def _process(rank: int, plan: Plan, port: int, source: Source) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(plan.seed)
    if plan.processes > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
        dist.init_process_group("gloo", rank=rank, world_size=plan.processes)
    words = tokenizer.load(plan.out / "tokenizer.json")
    model = Guide(Shape())
    circuit.start(model, words, plan.seed)
    _loop(rank, plan, model, source, words)
    if plan.processes > 1:
        dist.destroy_process_group()


def run(plan: Plan, source: Source) -> None:
    """Train from the starting weights, or from the checkpoint where there is one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if plan.processes == 1:
        _process(0, plan, port, source)
    else:
        mp.spawn(_process, (plan, port, source), nprocs=plan.processes)


def averaged(plan: Plan) -> Guide:
    """The averaged model of the checkpoint."""
    model = Guide(Shape())
    model.load_state_dict(torch.load(plan.checkpoint, weights_only=True)["average"])
    return model.eval()
