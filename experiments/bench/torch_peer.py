"""The published recurrent step in PyTorch: what a search cannot be faster than there.

Fifty steps of the network one after another, for a batch of roots, in evaluation mode, without any
tree. Needs `torch`, which ez_jax itself does not use.
"""

from collections.abc import Iterator

import numpy as np

from experiments.bench.measure import Case
from experiments.bench.parts import Setting
from experiments.bench.parts import search as our_search
from ez_jax.config import BadInput

try:
    import torch
    from torch import nn
except ImportError as error:
    raise BadInput("this workload needs PyTorch: pip install torch") from error

STEPS = 50


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    plain = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(plain, nn.BatchNorm2d(outputs))


class _Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = _convolution(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.second(torch.relu(self.first(x))))


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
        entered = self.enter(torch.cat([state, plane], dim=1))
        state = self.tower(torch.relu(entered + state))
        memory, carry = self.lstm(self.necks[0](state)[None], carry)
        prefix = self.heads[0](torch.relu(self.after_lstm(memory[0])))
        predicted = self.prediction(state)
        value, policy = (self.heads[i](self.necks[i](predicted)) for i in (1, 2))
        scalars = [torch.softmax(logits, -1) @ self.support for logits in (prefix, value)]
        return state, carry, policy, *scalars


def peer(setting: Setting) -> Iterator[Case]:
    """Our search with puct_ez beside as many steps of the network in PyTorch, without a tree."""
    channels, side = setting.config.network.channels, 6
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
