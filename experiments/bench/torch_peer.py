"""The published network in PyTorch: what a search cannot be faster than there, and an update.

`peer` makes fifty steps of the network one after another, for a batch of roots, in evaluation mode,
without any tree. `peer_update` makes the unrolled update with random targets: losses, gradients,
clipping and SGD (without augmentation and without the prediction at the root, so a little less than
ours). Needs `torch`, which ez_jax itself does not use.
"""

import itertools
from collections.abc import Iterator

import numpy as np

from experiments.bench.measure import Case
from experiments.bench.parts import Setting
from experiments.bench.parts import search as our_search
from experiments.bench.parts import update as our_update
from ez_jax.config import BadInput

try:
    import torch
    from torch import nn
except ImportError as error:
    raise BadInput("this workload needs PyTorch: pip install torch") from error

STEPS = 50
SIDE = 6  # of the states of 96 or 84 pixels


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    plain = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(plain, nn.BatchNorm2d(outputs))


class _Residual(nn.Module):
    def __init__(self, channels: int, inputs: int = 0):
        """With other `inputs` the block has stride 2 and a convolution as its shortcut."""
        super().__init__()
        stride = 2 if inputs else 1
        self.first = _convolution(inputs or channels, channels, stride)
        self.second = _convolution(channels, channels)
        shortcut = nn.Conv2d(inputs or channels, channels, 3, stride, padding=1, bias=False)
        self.shortcut = shortcut if inputs else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.shortcut(x) + self.second(torch.relu(self.first(x))))


def _represent(stacked: int, channels: int) -> nn.Sequential:
    half, pool = channels // 2, nn.AvgPool2d(3, 2, padding=1)
    return nn.Sequential(
        _convolution(stacked, half, 2),
        nn.ReLU(),
        _Residual(half),
        _Residual(channels, inputs=half),
        _Residual(channels),
        pool,
        _Residual(channels),
        pool,
        _Residual(channels),
    )


def _perceptron(*widths: int, ends_with_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        layers.append(nn.Linear(inputs, outputs))
        is_last = i == len(widths) - 2
        if not is_last or ends_with_norm:
            layers.append(nn.BatchNorm1d(outputs))
        if not is_last:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class _Step(nn.Module):
    """Dynamics, value prefix, policy and value of the published sizes."""

    def __init__(self, setting: Setting, side: int):
        super().__init__()
        c, actions = setting.config.network, setting.spec.num_actions
        bins, features = 2 * c.support + 1, c.head_channels * side**2
        self.enter, self.tower = _convolution(c.channels + 1, c.channels), _Residual(c.channels)
        self.prediction = _Residual(c.channels)
        self.necks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(c.channels, c.head_channels, 1),
                nn.BatchNorm2d(c.head_channels),
                nn.ReLU(),
                nn.Flatten(),
            )
            for _ in range(3)
        )
        self.lstm = nn.LSTM(features, c.lstm_width)
        self.after_lstm = nn.BatchNorm1d(c.lstm_width)
        widths = ((c.lstm_width, bins), (features, bins), (features, actions))
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Linear(inputs, c.head_hidden),
                nn.BatchNorm1d(c.head_hidden),
                nn.ReLU(),
                nn.Linear(c.head_hidden, outputs),
            )
            for inputs, outputs in widths
        )
        self.register_buffer("support", torch.arange(-c.support, c.support + 1.0))

    def forward(self, state, carry, plane):
        state, carry, prefix, value, policy = self.logits(state, carry, plane)
        scalars = [torch.softmax(logits, -1) @ self.support for logits in (prefix, value)]
        return state, carry, policy, *scalars

    def logits(self, state, carry, plane):
        entered = self.enter(torch.cat([state, plane], dim=1))
        state = self.tower(torch.relu(entered + state))
        memory, carry = self.lstm(self.necks[0](state)[None], carry)
        prefix = self.heads[0](torch.relu(self.after_lstm(memory[0])))
        predicted = self.prediction(state)
        value, policy = (self.heads[i](self.necks[i](predicted)) for i in (1, 2))
        return state, carry, prefix, value, policy


class _Learner(nn.Module):
    """Everything that the unrolled update trains."""

    def __init__(self, setting: Setting):
        super().__init__()
        c = setting.config.network
        colours = setting.spec.observation_shape[-1]
        self.represent = _represent(colours * setting.spec.frame_stack, c.channels)
        self.step = _Step(setting, SIDE)
        flat, width, hidden = c.channels * SIDE**2, c.projection, c.predictor_hidden
        self.project = _perceptron(flat, width, width, width, ends_with_norm=True)
        self.predict = _perceptron(width, hidden, width, ends_with_norm=False)

    def loss(self, frames: torch.Tensor, plane: torch.Tensor, targets: list[torch.Tensor]):
        """Of frames [K+1, B, C, H, W]: K steps of three cross entropies and the consistency."""
        state, width = self.represent(frames[0]), self.step.lstm.hidden_size
        carry = (torch.zeros(1, len(state), width), torch.zeros(1, len(state), width))
        total = torch.zeros(())
        for observed in frames[1:]:
            state, carry, *logits = self.step.logits(state, carry, plane)
            for one, target in zip(logits, targets, strict=True):
                total = total - (target * torch.log_softmax(one, -1)).sum(-1).mean()
            with torch.no_grad():
                seen = self.project(self.represent(observed).flatten(1))
            imagined = self.predict(self.project(state.flatten(1)))
            total = total - nn.functional.cosine_similarity(imagined, seen).mean()
        return total


def peer(setting: Setting) -> Iterator[Case]:
    """Our search with puct_ez beside as many steps of the network in PyTorch, without a tree."""
    channels, side = setting.config.network.channels, SIDE
    step = _Step(setting, side).eval()
    width = setting.config.network.lstm_width
    ours = [case for case in our_search(setting) if case.name.startswith("puct_ez")]
    for case in ours:
        batch = round(case.items / STEPS)
        numbers = np.random.default_rng(0).normal(size=(batch, channels, side, side))
        state = torch.relu(torch.as_tensor(numbers, dtype=torch.float32))
        carry = torch.zeros(1, batch, width), torch.zeros(1, batch, width)
        plane = torch.zeros(batch, 1, side, side)

        def run(state=state, carry=carry, plane=plane) -> None:
            with torch.inference_mode():
                for _ in range(STEPS):
                    state, carry, *_ = step(state, carry, plane)

        yield case
        yield Case(f"PyTorch {STEPS} steps, batch {batch}", run, batch * STEPS, "steps", case.cost)


def peer_update(setting: Setting) -> Iterator[Case]:
    """Our unrolled update beside the same in PyTorch."""
    learner, config = _Learner(setting).train(), setting.config.learner
    optimizer = torch.optim.SGD(learner.parameters(), 0.01, config.momentum, weight_decay=1e-4)
    height, width, colours = setting.spec.observation_shape
    bins = 2 * setting.config.network.support + 1
    for case in our_update(setting):
        batch = round(case.items)
        shape = (config.unroll_steps + 1, batch, colours * setting.spec.frame_stack, height, width)
        frames, plane = torch.rand(shape), torch.zeros(batch, 1, SIDE, SIDE)
        sizes = (bins, bins, setting.spec.num_actions)
        targets = [torch.softmax(torch.randn(batch, size), -1) for size in sizes]

        def run(frames=frames, plane=plane, targets=targets) -> None:
            optimizer.zero_grad()
            learner.loss(frames, plane, targets).backward()
            nn.utils.clip_grad_norm_(learner.parameters(), config.max_grad_norm)
            optimizer.step()

        yield case
        yield Case(f"PyTorch update, batch {batch}", run, batch, "samples", case.cost)
