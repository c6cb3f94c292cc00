"""Carousel's recurrent cells, its recurrent_lm and its classifier, made of PyTorch's modules.
Weights have the same names in both."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence


class LinearRnn(nn.Module):
    """h_t = W_ih x_t + b_ih + W_hh h_(t-1) + b_hh: torch.nn.RNN without its nonlinearity."""

    def __init__(self, width, hidden, layers):
        super().__init__()
        self.layers = layers
        bound = hidden**-0.5  # where torch.nn.RNN draws its weights from
        for layer in range(layers):
            shapes = {"weight_ih": (hidden, hidden if layer else width),
                      "weight_hh": (hidden, hidden), "bias_ih": (hidden,), "bias_hh": (hidden,)}
            for name, shape in shapes.items():
                weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
                self.register_parameter(f"{name}_l{layer}", weight)

    def forward(self, x, h_0):
        h_n = []
        for layer in range(self.layers):
            w_ih, w_hh, b_ih, b_hh = (getattr(self, f"{name}_l{layer}") for name in (
                "weight_ih", "weight_hh", "bias_ih", "bias_hh"))
            h, output = h_0[layer], []
            for x_t in x:
                h = functional.linear(x_t, w_ih, b_ih) + functional.linear(h, w_hh, b_hh)
                output.append(h)
            x = torch.stack(output)
            h_n.append(h)
        return x, torch.stack(h_n)


class Cell(NamedTuple):
    make: Callable  # (input width, hidden width, layers, PyTorch's options) -> module
    prefix: str = "rnn"  # of its weights' names in a model
    states: tuple = ("h",)


CELLS = {
    "lstm": Cell(nn.LSTM, "lstm", ("h", "c")),
    "gru": Cell(nn.GRU, "gru"),
    "tanh": Cell(nn.RNN),
    "relu": Cell(functools.partial(nn.RNN, nonlinearity="relu")),
    "linear": Cell(LinearRnn),
}


def run(module, x, state):
    """Output and final state of a recurrent module. A state is a tuple with one tensor for each of
    the cell's states."""
    if len(state) > 1:
        return module(x, state)
    output, h_n = module(x, *state)
    return output, (h_n,)


class RecurrentLm(nn.Module):
    """Carousel's recurrent_lm made of PyTorch's modules, with the same names of weights."""

    def __init__(self, cell, vocabulary, embed, hidden, layers, tied=False, **options):
        super().__init__()
        self.cell = CELLS[cell]
        self.embedding = nn.Embedding(vocabulary, embed)
        self.add_module(self.cell.prefix, self.cell.make(embed, hidden, layers, **options))
        self.output = nn.Linear(options.get("proj_size", hidden), vocabulary)
        if tied:
            self.output.weight = self.embedding.weight

    def recurrent(self):
        return getattr(self, self.cell.prefix)

    def forward(self, token, state, reset=None):
        """Logits [T, B, V] and the final state. Where reset [T, B] is 1, a row's state is zeroed."""
        x = self.embedding(token)
        if reset is None:
            hidden, state = run(self.recurrent(), x, state)
            return self.output(hidden), state
        steps = []
        for t in range(len(x)):
            keep = (1 - reset[t])[None, :, None]
            hidden, state = run(self.recurrent(), x[t:t + 1], tuple(s * keep for s in state))
            steps.append(hidden)
        return self.output(torch.cat(steps)), state


class NgramLm(nn.Module):
    """Carousel's ngram_lm with exact GELU. What lies before a row's first token is a row of zeros."""

    def __init__(self, context, vocabulary, embed, hidden, tied=False):
        super().__init__()
        self.context = context
        self.embedding = nn.Embedding(vocabulary, embed)
        self.hidden = nn.Linear(context * embed, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.output = nn.Linear(hidden, vocabulary)
        if tied:
            self.output.weight = self.embedding.weight

    def forward(self, token, reset):
        """Logits [T, B, V] for token [T, B]; where reset [T, B] is 1, nothing lies before a token."""
        rows = []
        for b in range(token.shape[1]):
            seen = []
            for t in range(len(token)):
                seen = [] if reset[t, b] else seen
                seen = (seen + [self.embedding(token[t, b])])[-self.context:]
                nothing = torch.zeros_like(seen[0])
                rows.append(torch.cat([nothing] * (self.context - len(seen)) + seen))
        x = torch.stack(rows).unflatten(0, token.shape[::-1]).transpose(0, 1)
        return self.output(functional.gelu(self.norm(self.hidden(x))))


class Classifier(nn.Module):
    """Carousel's classifier with pooling = "last", which reads in both directions."""

    def __init__(self, cell, vocabulary, classes, embed, hidden, layers, **options):
        super().__init__()
        self.prefix = CELLS[cell].prefix
        self.embedding = nn.Embedding(vocabulary, embed)
        self.add_module(self.prefix, CELLS[cell].make(embed, hidden, layers, bidirectional=True,
                                                      **options))
        self.output = nn.Linear(2 * options.get("proj_size", hidden), classes)

    def forward(self, token, lengths):
        """Logits [B, C] of rows of these lengths in token [T, B]."""
        x = pack_padded_sequence(self.embedding(token), lengths, enforce_sorted=False)
        _, last = getattr(self, self.prefix)(x)
        h_n = last[0] if isinstance(last, tuple) else last
        return self.output(torch.cat((h_n[-2], h_n[-1]), dim=1))
