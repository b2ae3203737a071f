"""Writes optimizer-reference.json: what other implementations make of the same gradients, and transformers' schedules.

SGD is torch.optim.SGD, Adafactor is transformers', Muon is torch.optim.Muon with its orthogonalization in float64
instead of bfloat16 (which rounds it to two digits), BAdam is torch.optim.AdamW made anew for each layer's turn. Lion
(arXiv:2302.06675) and GaLore (arXiv:2403.03507, with an exact SVD) are their papers' formulas in torch; GaLore's directions are
pointed to where their largest component is positive, which the paper leaves open.

Run with PyTorch and transformers installed:  python tests/parity/optimizer-reference.py
"""

import json
import pathlib

import torch
from torch.optim import _muon
from transformers import get_scheduler
from transformers.optimization import Adafactor

SHAPES = {
    "model.layers.0.a.weight": (6, 4),
    "model.layers.0.b.weight": (3, 8),
    "model.layers.1.a.weight": (6, 4),
    "model.norm.weight": (5,),
}


def newton_schulz(grad, coefficients, steps, eps):
    a, b, c = coefficients
    x = grad.double()
    if grad.size(0) > grad.size(1):
        x = x.T
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if grad.size(0) > grad.size(1) else x).float()


_muon._zeropower_via_newtonschulz = newton_schulz


class Lion(torch.optim.Optimizer):
    def __init__(self, params, lr, betas, weight_decay):
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                update = (b1 * m + (1 - b1) * p.grad).sign()
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * update)
                m.mul_(b2).add_(p.grad, alpha=1 - b2)


class GaLore(torch.optim.Optimizer):
    def __init__(self, params, lr, betas, eps, weight_decay, rank, interval, scale):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))
        self.rank, self.interval, self.scale, self.t = rank, interval, scale, 0

    @torch.no_grad()
    def step(self):
        self.t += 1
        for group in self.param_groups:
            (b1, b2), lr = group["betas"], group["lr"]
            for p in group["params"]:
                state, grad = self.state[p], p.grad
                right = p.ndim == 2 and p.shape[0] >= p.shape[1]
                if p.ndim == 2:
                    if (self.t - 1) % self.interval == 0:
                        u, _, vh = torch.linalg.svd(grad.double(), full_matrices=False)
                        basis = vh[: self.rank].T if right else u[:, : self.rank]
                        basis = basis * basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()
                        state["basis"] = (basis.T if right else basis).float()
                    grad = grad @ state["basis"].T if right else state["basis"].T @ grad
                m = state.setdefault("m", torch.zeros_like(grad))
                v = state.setdefault("v", torch.zeros_like(grad))
                m.mul_(b1).add_(grad, alpha=1 - b1)
                v.mul_(b2).addcmul_(grad, grad, value=1 - b2)
                size = lr * (1 - b2**self.t) ** 0.5 / (1 - b1**self.t)
                update = m / (v.sqrt() + group["eps"])
                if p.ndim == 2:
                    update = (update @ state["basis"] if right else state["basis"] @ update) * self.scale
                p.sub_(size * update).mul_(1 - lr * group["weight_decay"])


class BAdam:
    """One layer at a time, in ascending order, `interval` updates each."""

    def __init__(self, params, interval, **options):
        self.layers = [[p for name, p in zip(SHAPES, params) if f".{i}." in name] for i in range(2)]
        self.interval, self.options, self.t = interval, options, 0

    @property
    def param_groups(self):
        if self.t % self.interval == 0 and getattr(self, "made", None) != self.t:
            self.inner = torch.optim.AdamW(self.layers[self.t // self.interval % 2], **self.options)
            self.made = self.t
        return self.inner.param_groups

    def step(self):
        self.inner.step()
        self.t += 1


def record(make, steps=9):
    generator = torch.Generator().manual_seed(3)
    draw = lambda shape: torch.randn(shape, generator=generator)
    parameters = [torch.nn.Parameter(draw(shape)) for shape in SHAPES.values()]
    start = {name: p.detach().flatten().tolist() for name, p in zip(SHAPES, parameters)}
    optimizer, records = make(parameters), []
    for step in range(steps):
        lr = 0.01 * (step + 1) / steps
        for parameter in parameters:
            parameter.grad = draw(parameter.shape) * 10 ** (step % 5 - 3)
        gradients = [p.grad.flatten().tolist() for p in parameters]
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        records.append({"lr": lr, "gradients": gradients, "parameters": [p.detach().flatten().tolist() for p in parameters]})
    return {"start": start, "steps": records}


def muon(parameters):
    matrices = [p for p in parameters if p.ndim == 2]
    rest = [p for p in parameters if p.ndim != 2]
    pair = [
        torch.optim.Muon(matrices, lr=1.0, weight_decay=0.1, momentum=0.95, nesterov=True, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=1.0, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.0),
    ]

    class Pair:
        param_groups = [group for optimizer in pair for group in optimizer.param_groups]

        def step(self):
            for optimizer in pair:
                optimizer.step()

    return Pair()


def groups(parameters):
    """Weight decay for matrices alone."""
    return [
        {"params": [p for p in parameters if p.ndim == 2], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.ndim != 2], "weight_decay": 0.0},
    ]


ADAM = dict(betas=(0.9, 0.99), eps=1e-6)
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(groups(p), lr=1.0),
    "sgd_momentum": lambda p: torch.optim.SGD(groups(p), lr=1.0, momentum=0.9, dampening=0.1),
    "sgd_nesterov": lambda p: torch.optim.SGD(groups(p), lr=1.0, momentum=0.9, nesterov=True),
    "adafactor": lambda p: Adafactor(groups(p), lr=1.0, scale_parameter=False, relative_step=False),
    "lion": lambda p: Lion(groups(p), lr=1.0, betas=(0.9, 0.99), weight_decay=0.0),
    "muon": muon,
    "galore": lambda p: GaLore(groups(p), lr=1.0, weight_decay=0.0, rank=2, interval=4, scale=2.0, **ADAM),
    "badam": lambda p: BAdam(p, interval=2, lr=1.0, weight_decay=0.1, **ADAM),
}
SCHEDULES = [
    ("cosine", {"num_cycles": 1.5}),
    ("cosine_with_restarts", {}),
    ("cosine_with_restarts", {"num_cycles": 3}),
    ("polynomial", {}),
    ("polynomial", {"power": 2.0, "lr_end": 1e-5}),
    ("inverse_sqrt", {}),
    ("inverse_sqrt", {"timescale": 7}),
    ("cosine_with_min_lr", {"min_lr": 3e-5}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.2, "num_cycles": 1.0}),
]


def schedule(name, kwargs, total, warmup):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    scheduler = get_scheduler(name, optimizer, warmup, total, scheduler_specific_kwargs=kwargs)
    rates = []
    for _ in range(total):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return {"lr_scheduler_type": name, "kwargs": kwargs, "total": total, "warmup_steps": warmup, "rates": rates}


reference = {
    "shapes": SHAPES,
    "optimizers": {name: record(make) for name, make in OPTIMIZERS.items()},
    "schedules": [schedule(name, kwargs, *shape) for name, kwargs in SCHEDULES for shape in [(20, 0), (17, 4)]],
}
path = pathlib.Path(__file__).with_suffix(".json")


def shortened(value):
    """Nine digits tell float32 numbers apart."""
    if isinstance(value, dict):
        return {key: shortened(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [shortened(item) for item in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


path.write_text(json.dumps(shortened(reference)) + "\n")
