"""Carousel's recurrent cells, its recurrent_lm, classifier and seq2seq, made of PyTorch's modules.
Weights have the same names in both."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


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


def turned(x, base=10000.0):
    """Rotary positions of heads x [B, A, T, D]: column i and D/2 + i are turned together."""
    T, D = x.shape[-2:]
    angle = torch.arange(T).double()[:, None] * base ** (-torch.arange(0, D, 2).double() / D)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), dim=-1)


class Attention(nn.Module):
    """Causal self-attention of x [B, T, E] by torch's scaled_dot_product_attention."""

    def __init__(self, embed, heads, kv_heads, bias, rotary):
        super().__init__()
        self.heads, self.kv_heads, self.rotary = heads, kv_heads, rotary
        self.c_attn = nn.Linear(embed, embed + 2 * kv_heads * (embed // heads), bias=bias)
        self.c_proj = nn.Linear(embed, embed, bias=bias)

    def forward(self, x):
        B, T, E = x.shape
        D = E // self.heads
        q, k, v = (part.view(B, T, -1, D).transpose(1, 2)
                   for part in self.c_attn(x).split([E, self.kv_heads * D, self.kv_heads * D], -1))
        if self.rotary:
            q, k = turned(q), turned(k)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, E))


class FeedForward(nn.Module):
    def __init__(self, embed, hidden, bias, gated):
        super().__init__()
        self.gated = gated
        self.c_fc = nn.Linear(embed, 2 * hidden if gated else hidden, bias=bias)
        self.c_proj = nn.Linear(hidden, embed, bias=bias)

    def forward(self, x):
        x = self.c_fc(x)
        if not self.gated:
            return self.c_proj(functional.gelu(x))
        a, b = x.chunk(2, dim=-1)
        return self.c_proj(functional.silu(a) * b)


class TransformerLm(nn.Module):
    """Carousel's transformer_lm: GPT-2 with learnt positions, LayerNorm, exact GELU and biases; or, as
    Llama, with rotary positions, RMSNorm, SwiGLU and no biases."""

    def __init__(self, vocabulary, context, embed, hidden, layers, heads, kv_heads, llama=False,
                 bias=None):
        super().__init__()
        bias = not llama if bias is None else bias
        norm = ((lambda: nn.RMSNorm(embed, eps=1e-5)) if llama else
                (lambda: nn.LayerNorm(embed, bias=bias)))
        parts = {"wte": nn.Embedding(vocabulary, embed)}
        if not llama:
            parts["wpe"] = nn.Embedding(context, embed)
        parts["h"] = nn.ModuleList(nn.ModuleDict({
            "ln_1": norm(), "attn": Attention(embed, heads, kv_heads, bias, llama),
            "ln_2": norm(), "mlp": FeedForward(embed, hidden, bias, llama)})
            for _ in range(layers))
        parts["ln_f"] = norm()
        self.transformer = nn.ModuleDict(parts)

    def forward(self, token):
        """Logits [T, B, V] for token [T, B]; the output matrix is the embedding."""
        parts = self.transformer
        x = parts.wte(token.T)
        if "wpe" in parts:
            x = x + parts.wpe(torch.arange(len(token)))
        for block in parts.h:
            x = x + block.attn(block.ln_1(x))
            x = x + block.mlp(block.ln_2(x))
        return functional.linear(parts.ln_f(x), parts.wte.weight).transpose(0, 1)


def sinusoids(steps, embed):
    angle = (torch.arange(steps).double()[:, None]
             * 10000.0 ** (-torch.arange(0, embed, 2).double() / embed))
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)


class TransformerSeq2seq(nn.Module):
    """Carousel's transformer_seq2seq of torch's TransformerEncoderLayer and TransformerDecoderLayer,
    ReLU, whose output matrix is the target's embedding."""

    def __init__(self, sources, vocabulary, embed, hidden, layers, decoder_layers, heads, pre):
        super().__init__()
        self.source_embedding = nn.Embedding(sources, embed)
        self.target_embedding = nn.Embedding(vocabulary, embed)
        options = {"dim_feedforward": hidden, "dropout": 0.0, "norm_first": pre}
        norm = (lambda: nn.LayerNorm(embed)) if pre else (lambda: None)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(embed, heads, **options),
                                             layers, norm(), enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(embed, heads, **options),
                                             decoder_layers, norm())

    def forward(self, source, lengths, token):
        """Logits [T, B, V] for token [T, B] and source [S, B], whose rows have these lengths."""
        def embedded(table, ids):
            E = table.embedding_dim
            return table(ids) * E**0.5 + sinusoids(len(ids), E)[:, None].to(table.weight)
        padding = torch.arange(len(source))[None] >= lengths[:, None]
        memory = self.encoder(embedded(self.source_embedding, source), src_key_padding_mask=padding)
        mask = torch.ones(len(token), len(token), dtype=torch.bool).triu(1)
        x = self.decoder(embedded(self.target_embedding, token), memory, tgt_mask=mask,
                         memory_key_padding_mask=padding)
        return functional.linear(x, self.target_embedding.weight)


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


class Seq2Seq(nn.Module):
    """Carousel's seq2seq: the decoder begins with the encoder's last states, of two directions
    through a layer and tanh, and looks at the source as Luong's does, or with additive scores as
    Bahdanau's."""

    def __init__(self, cell, source_vocabulary, vocabulary, embed, hidden, layers, attention,
                 bidirectional, input_feeding):
        super().__init__()
        self.cell, self.attends, self.bidirectional = CELLS[cell], attention != "none", bidirectional
        self.feeds, self.hidden, self.first = input_feeding, hidden, attention == "additive"
        sums = attention in ("additive", "concat")
        name, make = self.cell.prefix, self.cell.make
        units = hidden * (2 if bidirectional else 1)
        self.encoder = nn.ModuleDict({
            "embedding": nn.Embedding(source_vocabulary, embed),
            name: make(embed, hidden, layers, bidirectional=bidirectional)})
        fed = units if self.first else hidden if input_feeding else 0
        self.decoder = nn.ModuleDict({"embedding": nn.Embedding(vocabulary, embed),
                                      name: make(embed + fed, hidden, layers)})
        if bidirectional:
            self.bridge = nn.ModuleDict({f"{state}_l{layer}": nn.Linear(units, hidden)
                                         for layer in range(layers) for state in self.cell.states})
        parts = {}
        if sums:
            parts |= {"query": nn.Linear(hidden, hidden, bias=False),
                      "key": nn.Linear(units, hidden, bias=False),
                      "score": nn.Linear(hidden, 1, bias=False)}
        elif self.attends and bidirectional:
            parts["memory"] = nn.Linear(units, hidden, bias=False)
        if attention == "general":
            parts["score"] = nn.Linear(hidden, hidden, bias=False)
        if self.attends:
            parts["output"] = nn.Linear((units if sums else hidden) + hidden, hidden, bias=False)
        self.attention = nn.ModuleDict(parts)
        self.output = nn.Linear(hidden, vocabulary)

    def part(self, name, x):
        return self.attention[name](x) if name in self.attention else x

    def initial(self, last):
        """A state of the encoder [layers·directions, B, H] as one of the decoder [layers, B, H]."""
        if not self.bidirectional:
            return last
        return tuple(
            torch.stack([torch.tanh(self.bridge[f"{name}_l{layer}"](
                torch.cat((state[2 * layer], state[2 * layer + 1]), dim=-1)))
                for layer in range(len(state) // 2)])
            for name, state in zip(self.cell.states, last))

    def forward(self, source, lengths, token):
        """Logits [T, B, V] for token [T, B] and source [S, B] of these lengths, and the weights [T, B, S]
        of an attention."""
        name = self.cell.prefix
        x = pack_padded_sequence(self.encoder["embedding"](source), lengths, enforce_sorted=False)
        steps, last = self.encoder[name](x)
        steps, _ = pad_packed_sequence(steps, total_length=len(source))
        last = last if isinstance(last, tuple) else (last,)
        state, x = self.initial(last), self.decoder["embedding"](token)
        if self.attends:
            memory = self.part("memory", steps)
            beyond = torch.arange(len(source)) >= lengths[:, None, None]
        if not self.feeds and not self.first:
            h, _ = run(self.decoder[name], x, state)
            h, weights = self.look(h, memory, beyond) if self.attends else (h, None)
            return self.output(h), weights
        fed, steps = torch.zeros(1, len(lengths), self.hidden, dtype=x.dtype), []
        for t in range(len(token)):
            if self.first:
                fed, weights = self.context(state[0][-1:], memory, beyond)
                weights = weights.transpose(0, 1)
            h, state = run(self.decoder[name], torch.cat((x[t:t + 1], fed), dim=-1), state)
            if self.first:
                fed = self.combined(fed, h)
            else:
                fed, weights = self.look(h, memory, beyond)
            steps.append((fed, weights))
        outputs, weights = (torch.cat(part) for part in zip(*steps))
        return self.output(outputs), weights

    def context(self, query, memory, beyond):
        """What queries [T, B, H] get of the memory, and the weights [B, T, S]."""
        if "query" in self.attention:
            sums = self.part("query", query)[:, None] + self.part("key", memory)  # [T, S, B, H]
            scores = self.part("score", torch.tanh(sums)).squeeze(-1).permute(2, 0, 1)
        else:
            scores = torch.einsum("tbh,sbh->bts", self.part("score", query), memory)
        weights = scores.masked_fill(beyond, float("-inf")).softmax(-1)
        return torch.einsum("bts,sbh->tbh", weights, memory), weights

    def combined(self, context, h):
        return torch.tanh(self.attention["output"](torch.cat((context, h), dim=-1)))

    def look(self, h, memory, beyond):
        context, weights = self.context(h, memory, beyond)
        return self.combined(context, h), weights.transpose(0, 1)
