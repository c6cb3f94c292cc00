#!/usr/bin/env python3
"""Records what PyTorch computes. The tests compare Carousel with these recordings.

    tests/golden/record.py [CASE ...]     writes tests/golden/CASE.json; without a CASE, all of them

A recording holds the inputs and the results of a case, so that no test needs PyTorch. PyTorch works
in double precision: the results are exact to about 15 digits and carry no float rounding. The
inputs are multiples of powers of two that float and bf16 represent exactly (learning rates: float),
so that one recording serves both types.

Any Python that has torch runs this; tests/golden/setup makes one.
"""

import argparse
import functools
import itertools
import json
import math
import pathlib

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from modules import (CELLS, NgramLm, RecurrentLm, Seq2Seq, TransformerLm, TransformerSeq2seq,
                     run)

HERE = pathlib.Path(__file__).resolve().parent
SEED = 1
IGNORED = -1


def draw(*shape, bound=1, step=1 / 256):
    """Multiples of `step` between −bound and bound. bf16 holds those up to 256 steps."""
    assert bound / step <= 256
    most = int(bound / step)
    return torch.randint(-most, most + 1, shape).double() * step


def draw_parameters(module, bound):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(draw(*parameter.shape, bound=bound))


def leaf(tensor):
    return tensor.requires_grad_()


def gradients(module):
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters()}


def values_of(module):
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


class NearKink(Exception):
    """A pre-activation is so near 0 that ReLU's gradient, there 0 or 1, depends on rounding."""


def refuse_near_kink(module, inputs, _):
    """A forward hook of a ReLU torch.nn.RNN. It repeats the time loop, for the module does not show
    its pre-activations."""
    x, h_0 = inputs
    for (w_ih, w_hh, b_ih, b_hh), h in zip(module.all_weights, h_0):
        output = []
        for x_t in x:
            sum_ = functional.linear(x_t, w_ih, b_ih) + functional.linear(h, w_hh, b_hh)
            if sum_.abs().min() < 2**-8:
                raise NearKink
            h = sum_.relu()
            output.append(h)
        x = torch.stack(output)


# Ops.


def recurrent(cell, B=3, H=4, projection=0, bidirectional=False, lengths=None):
    """Two layers of a cell, 3 inputs and H units each, from a given state, over 5 steps or as a
    packed sequence of the given lengths, padded with zeros after it. The loss is the sum of the
    output and the final states, each element times its own given number d_*."""
    T, I, layers, directions = 5, 3, 2, 2 if bidirectional else 1
    P = projection or H
    options = {"projection": projection, "bidirectional": bidirectional}
    states = {name: (layers * directions, B, P if name == "h" else H)
              for name in CELLS[cell].states}
    named = {"proj_size": projection} if projection else {}
    named |= {"bidirectional": True} if bidirectional else {}
    module = CELLS[cell].make(I, H, layers, **named).double()
    draw_parameters(module, bound=0.4375)
    if cell == "relu":
        module.register_forward_hook(refuse_near_kink)
    given = ({"x": draw(T, B, I)} | {f"{s}_0": draw(*shape) for s, shape in states.items()} |
             {"d_output": draw(T, B, P * directions)} |
             {f"d_{s}_n": draw(*shape) for s, shape in states.items()})
    if lengths:
        given["lengths"] = torch.tensor(lengths)
    leaves = {name: leaf(given[name]) for name in ("x", *(f"{s}_0" for s in states))}
    x = leaves["x"]
    if lengths:
        x = pack_padded_sequence(x, given["lengths"], enforce_sorted=False)
    output, last = run(module, x, tuple(leaves[f"{s}_0"] for s in states))
    if lengths:
        output = pad_packed_sequence(output, total_length=T)[0]
    values = {"output": output} | {f"{s}_n": tensor for s, tensor in zip(states, last)}
    sum((tensor * given[f"d_{name}"]).sum() for name, tensor in values.items()).backward()
    return {"options": {"cell": cell} | {key: value for key, value in options.items() if value},
            "given": given | values_of(module), "values": values,
            "gradients": {name: tensor.grad for name, tensor in leaves.items()} |
                         gradients(module)}


def targets(rows, vocabulary):
    """Words, of which the second and the last row are ignored."""
    target = torch.randint(0, vocabulary, (rows,))
    target[1] = target[-1] = IGNORED
    return target


def loss_of(logits, target, smoothing):
    """Per row, and the mean over the rows that count."""
    both = [functional.cross_entropy(logits, target, ignore_index=IGNORED, reduction=reduction,
                                     label_smoothing=smoothing) for reduction in ("none", "mean")]
    return {"rows": both[0], "mean": both[1]}


def cross_entropy(smoothing=0.0):
    """torch.nn.functional.cross_entropy(ignore_index=-1) of 7 rows, 2 of them ignored: the loss of
    each row; the mean over the others and its gradient."""
    logits, target = leaf(draw(7, 11, bound=8, step=1 / 16)), targets(7, 11)
    loss = loss_of(logits, target, smoothing)
    loss["mean"].backward()
    return {"options": {"label_smoothing": smoothing},
            "given": {"logits": logits, "target": target},
            "values": loss,
            "gradients": {"logits": logits.grad}}


def linear_cross_entropy(smoothing=0.0):
    """torch.nn.Linear(5, 11), then torch.nn.functional.cross_entropy(ignore_index=-1) of 7 rows, 2
    of them ignored: the loss of each row; the mean over the others and its gradients."""
    linear = nn.Linear(5, 11).double()
    draw_parameters(linear, bound=1)
    hidden, target = leaf(draw(7, 5)), targets(7, 11)
    loss = loss_of(linear(hidden), target, smoothing)
    loss["mean"].backward()
    return {"options": {"label_smoothing": smoothing},
            "given": {"hidden": hidden, "target": target} | values_of(linear),
            "values": loss,
            "gradients": {"hidden": hidden.grad} | gradients(linear)}


def adaptive_softmax(biased=False):
    """torch.nn.AdaptiveLogSoftmaxWithLoss(8, 25, cutoffs=[4, 11], div_value=2) of 12 rows, four of them
    in each part of the vocabulary: the loss of each row, the mean and its gradients, and the
    log-probabilities of all words."""
    V, cutoffs, div_value = 25, [4, 11], 2.0
    module = nn.AdaptiveLogSoftmaxWithLoss(8, V, cutoffs, div_value, head_bias=biased).double()
    draw_parameters(module, bound=1)
    hidden = leaf(draw(12, 8))
    target = torch.cat([torch.randint(low, high, (4,))
                        for low, high in itertools.pairwise([0, *cutoffs, V])])[torch.randperm(12)]
    output, mean = module(hidden, target)
    mean.backward()
    return {"options": {"vocabulary": V, "cutoffs": cutoffs, "div_value": div_value},
            "given": {"hidden": hidden, "target": target} | values_of(module),
            "values": {"rows": -output, "mean": mean, "log_probabilities": module.log_prob(hidden)},
            "gradients": {"hidden": hidden.grad} | gradients(module)}


def layer_norm():
    """torch.nn.LayerNorm(5) of 7 rows that lie around 0, 4 and 8. The loss is the sum of the output, each
    element times its own given number d_output."""
    module = nn.LayerNorm(5, eps=2**-16).double()
    draw_parameters(module, bound=1)
    x = leaf(draw(7, 5, bound=2, step=1 / 16) + torch.arange(7)[:, None] % 3 * 4)
    d_output = draw(7, 5)
    output = module(x)
    (output * d_output).sum().backward()
    return {"options": {"epsilon": module.eps},
            "given": {"x": x, "d_output": d_output} | values_of(module),
            "values": {"output": output}, "gradients": {"x": x.grad} | gradients(module)}


def activation(function):
    """A function of torch.nn.functional, of numbers between −8 and 8. The loss is the sum of the output,
    each element times its own given number d_output."""
    x, d_output = leaf(draw(40, bound=8, step=1 / 32)), draw(40)
    output = function(x)
    (output * d_output).sum().backward()
    return {"options": {}, "given": {"x": x, "d_output": d_output},
            "values": {"output": output}, "gradients": {"x": x.grad}}


def attention(B=2, T=5, S=5, heads=4, groups=4, D=3, causal=False, lengths=None, biases=0):
    """scaled_dot_product_attention of q [T, B, heads·D] and k, v [S, B, groups·D]; with lengths, a mask
    hides the keys of row b from lengths[b] on; with biases, one for all heads or one for each, [T, S] are
    added to the scores, −∞ where hidden is 1. The loss is the sum of the output, each element times its own
    given number d_output."""
    def parted(x, count):  # [B, count, T, D]
        return x.unflatten(2, (count, D)).permute(1, 2, 0, 3)
    q, d_output = leaf(draw(T, B, heads * D)), draw(T, B, heads * D)
    k, v = leaf(draw(S, B, groups * D)), leaf(draw(S, B, groups * D))
    given = {"q": q, "k": k, "v": v, "d_output": d_output}
    mask = None
    if lengths:
        given["lengths"] = torch.tensor(lengths)
        mask = (torch.arange(S) < given["lengths"][:, None])[:, None, None]
    if biases:
        given["bias"] = draw(biases, T, S)
        given["hidden"] = (torch.randint(0, 4, (biases, T, S)) == 0).long()
        given["hidden"][:, 1] = 1  # query 1 must not look anywhere
        mask = given["bias"].masked_fill(given["hidden"] == 1, -math.inf)
    output = functional.scaled_dot_product_attention(
        parted(q, heads), parted(k, groups), parted(v, groups), mask, is_causal=causal,
        enable_gqa=groups < heads).permute(2, 0, 1, 3).flatten(2)
    (output * d_output).sum().backward()
    return {"options": {"heads": heads, "kv_heads": groups, "causal": causal},
            "given": given, "values": {"output": output},
            "gradients": {"q": q.grad, "k": k.grad, "v": v.grad}}


def multihead_attention(T=5, S=None, B=3, E=12, heads=3, lengths=None):
    """MultiheadAttention of x [T, B, E] with itself, causal, or with memory [S, B, E], whose row b has
    lengths[b] steps. The weights are those of each head. The loss is the sum of the output, each element
    times its own given number d_output."""
    module = nn.MultiheadAttention(E, heads).double()
    draw_parameters(module, bound=0.5)
    x, d_output = leaf(draw(T, B, E)), draw(T, B, E)
    inputs = {"x": x}
    if S:
        inputs["memory"] = leaf(draw(S, B, E))
        lengths = torch.tensor(lengths)
        masks = {"key_padding_mask": torch.arange(S) >= lengths[:, None]}
    else:
        masks = {"attn_mask": torch.ones(T, T, dtype=torch.bool).triu(1)}
    keys = inputs.get("memory", x)
    output, weights = module(x, keys, keys, average_attn_weights=False, **masks)
    (output * d_output).sum().backward()
    given = inputs | {"d_output": d_output} | values_of(module)
    return {"options": {"heads": heads}, "given": given | ({"lengths": lengths} if S else {}),
            "values": {"output": output, "weights": weights},
            "gradients": gradients(module) | {name: tensor.grad for name, tensor in inputs.items()}}


# Optimisers.


def rates(steps, highest, warm_up):
    """Rises linearly and falls along half a cosine, rounded so that float holds it."""
    def rate(t):
        if t < warm_up:
            return highest * (t + 1) / warm_up
        return highest * (1 + math.cos(math.pi * (t + 1 - warm_up) / (steps - warm_up))) / 2
    return torch.tensor([round(rate(t) * 2**20) / 2**20 for t in range(steps)])


STATE = ("momentum_buffer", "exp_avg", "exp_avg_sq", "square_avg", "grad_avg", "sum")
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW,
              "rmsprop": torch.optim.RMSprop, "adagrad": torch.optim.Adagrad}
# What Carousel calls PyTorch's options.
NAMES = {"eps": "epsilon", "lr_decay": "rate_decay",
         "initial_accumulator_value": "initial_accumulator"}


def trajectory(kind, clip_norm=0.0, clip_value=0.0, **options):
    """20 updates of two parameters, [2, 3] and [3], here laid out in a row, by given gradients and
    learning rates: the norm of each gradient before clipping (torch.nn.utils.clip_grad_norm_, then
    clip_grad_value_; 0 is none), the weights after each update, the optimiser's state at the end."""
    steps, shapes = 20, ((2, 3), (3,))
    sizes = [math.prod(shape) for shape in shapes]
    weights = [leaf(draw(*shape)) for shape in shapes]
    given = {"weight": torch.cat([w.detach().flatten() for w in weights]).clone(),
             "gradient": draw(steps, sum(sizes)), "learning_rate": rates(steps, 2**-5, warm_up=4)}
    named = {key: value for key, value in options.items() if not key.startswith("beta")}
    if "beta1" in options:
        named["betas"] = (options["beta1"], options["beta2"])
    optimizer = OPTIMIZERS[kind](weights, lr=1.0, **named)
    norms, trail = [], []
    for gradient, rate in zip(given["gradient"], given["learning_rate"]):
        for weight, part in zip(weights, gradient.split(sizes)):
            weight.grad = part.reshape(weight.shape).clone()
        norms.append(nn.utils.clip_grad_norm_(weights, clip_norm or math.inf))
        if clip_value:
            nn.utils.clip_grad_value_(weights, clip_value)
        optimizer.param_groups[0]["lr"] = rate.item()
        optimizer.step()
        trail.append(torch.cat([w.detach().flatten() for w in weights]))
    state = {name: torch.cat([optimizer.state[w][name].flatten() for w in weights])
             for name in STATE if optimizer.state[weights[0]].get(name) is not None}
    options = {NAMES.get(key, key): value for key, value in options.items()}
    return {"options": {"kind": kind, "clip_norm": clip_norm, "clip_value": clip_value} | options,
            "given": given,
            "values": {"norm": torch.stack(norms), "weight": torch.stack(trail)} | state}


def clipping():
    """torch.nn.utils.clip_grad_norm_ and clip_grad_value_, each alone and the second after the
    first, of three gradients [2, 3] and [3], here laid out in a row: the first has a norm below the
    limit, the last is zero."""
    clip_norm, clip_value = 1.5, 0.25
    gradient = torch.stack([draw(9, bound=0.25), draw(9), torch.zeros(9).double()])

    def clipped(by_norm, by_value):
        rows, norms = [], []
        for row in gradient:
            parts = [leaf(torch.zeros(2, 3).double()), leaf(torch.zeros(3).double())]
            parts[0].grad, parts[1].grad = row[:6].reshape(2, 3).clone(), row[6:].clone()
            norms.append(nn.utils.clip_grad_norm_(parts, clip_norm if by_norm else math.inf))
            if by_value:
                nn.utils.clip_grad_value_(parts, clip_value)
            rows.append(torch.cat([p.grad.flatten() for p in parts]))
        return torch.stack(rows), torch.stack(norms)

    by_norm, norm = clipped(True, False)
    assert norm[0] < clip_norm < norm[1]
    return {"options": {"clip_norm": clip_norm, "clip_value": clip_value},
            "given": {"gradient": gradient},
            "values": {"norm": norm, "by_norm": by_norm, "by_value": clipped(False, True)[0],
                       "by_both": clipped(True, True)[0]}}


# Models.


def recurrent_lm(cell, clip_norm, tied=False):
    """A whole language model, torch.nn.Embedding, two layers of a cell and torch.nn.Linear, over 8
    windows of a text with ignored targets and resets, from a given state. Of the first window: the
    logits and the loss (rows, mean) without resets and smoothing; the final state, the smoothed
    loss and all gradients with both. Then training by AdamW on one window after the other, with
    carried state: each window's loss and its gradient norm before clipping."""
    windows, T, B, V, H, layers, smoothing = 8, 5, 2, 11, 4, 2, 0.125
    E = H if tied else 3
    decay, rate = 0.125, 2**-5
    states = CELLS[cell].states
    module = RecurrentLm(cell, V, E, H, layers, tied).double()
    draw_parameters(module, bound=0.5)
    if cell == "relu":
        module.recurrent().register_forward_hook(refuse_near_kink)
    with torch.no_grad():  # larger at both ends, so that gradients are not small
        module.embedding.weight.copy_(draw(V, E, bound=2, step=1 / 128))
        if not tied:
            module.output.weight.copy_(draw(V, H, bound=2, step=1 / 128))
    given = {"token": torch.randint(0, V, (windows, T, B)),
             "target": torch.randint(0, V, (windows, T, B)),
             "reset": (torch.rand(windows, T, B) < 0.2).int()}
    given |= {f"{s}_0": draw(layers, B, H) for s in states} | values_of(module)
    given["target"][torch.rand(windows, T, B) < 0.2] = IGNORED
    given["target"][0, 2, 1], given["reset"][0, 3, 0] = IGNORED, 1
    state = tuple(given[f"{s}_0"] for s in states)

    logits, _ = module(given["token"][0], state)
    result = {"logits": logits} | loss_of(logits.flatten(0, 1), given["target"][0].flatten(), 0.0)

    optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=decay)
    losses, norms = [], []
    for token, target, reset in zip(given["token"], given["target"], given["reset"]):
        optimizer.zero_grad(set_to_none=True)
        logits, state = module(token, state, reset)
        state = tuple(s.detach() for s in state)
        loss = loss_of(logits.flatten(0, 1), target.flatten(), smoothing)["mean"]
        loss.backward()
        if not losses:
            result |= {f"{s}_n": tensor for s, tensor in zip(states, state)}
            first_gradients = gradients(module)
        losses.append(loss.detach())
        norms.append(nn.utils.clip_grad_norm_(module.parameters(), clip_norm))
        optimizer.step()
    assert min(norms) < clip_norm < max(norms)
    result |= {"losses": torch.stack(losses), "norms": torch.stack(norms)}
    return {"options": {"cell": cell, "vocabulary": V, "embed": E, "hidden": H,
                        "layers": layers, "tie_weights": tied, "label_smoothing": smoothing,
                        "learning_rate": rate, "weight_decay": decay, "clip_norm": clip_norm},
            "given": given, "values": result, "gradients": first_gradients}


def ngram_lm(tied=False):
    """A whole n-gram language model, torch.nn.Embedding, Linear, LayerNorm, gelu and Linear, over a text
    with ignored targets and resets that is cut into two windows: the logits of all its steps, the loss
    (rows, mean) of each window, and all gradients of the sum of both means."""
    T, B, V, H, context = 5, 2, 11, 4, 3
    E = H if tied else 3
    module = NgramLm(context, V, E, H, tied).double()
    draw_parameters(module, bound=0.5)
    with torch.no_grad():  # larger at both ends, so that gradients are not small
        module.embedding.weight.copy_(draw(V, E, bound=2, step=1 / 128))
        if not tied:
            module.output.weight.copy_(draw(V, H, bound=2, step=1 / 128))
    token, target = torch.randint(0, V, (2 * T, B)), torch.randint(0, V, (2 * T, B))
    reset = (torch.rand(2 * T, B) < 0.15).int()
    target[2, 1], reset[T + 1, 0] = IGNORED, 1
    logits = module(token, reset)
    losses = [loss_of(logits[part].flatten(0, 1), target[part].flatten(), 0.0)
              for part in (slice(0, T), slice(T, 2 * T))]
    sum(loss["mean"] for loss in losses).backward()
    values = {"logits": logits} | {key: torch.stack([loss[key] for loss in losses])
                                   for key in ("rows", "mean")}
    return {"options": {"context": context, "vocabulary": V, "embed": E, "hidden": H,
                        "tie_weights": tied},
            "given": {"token": token.unflatten(0, (2, T)), "target": target.unflatten(0, (2, T)),
                      "reset": reset.unflatten(0, (2, T))} | values_of(module),
            "values": values, "gradients": gradients(module)}


def transformer_lm(llama=False):
    """A whole transformer language model over a window with ignored targets: the logits of all its
    steps, the loss (rows, mean) and all gradients. GPT-2's parts: torch.nn.LayerNorm,
    scaled_dot_product_attention and gelu; or Llama's: torch.nn.RMSNorm, rotary positions, shared
    keys and silu."""
    T, B, V = 6, 3, 11
    sizes = {"context": 7, "embed": 8, "hidden": 12 if llama else 32, "layers": 2, "heads": 2,
             "kv_heads": 1 if llama else 2}
    module = TransformerLm(V, **sizes, llama=llama).double()
    draw_parameters(module, bound=0.5)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if "ln_" in name and name.endswith("weight"):
                weight.copy_(1 + draw(*weight.shape, bound=0.25, step=1 / 64))
    given = {"token": torch.randint(0, V, (T, B)), "target": torch.randint(0, V, (T, B))}
    given["target"][2, 1] = given["target"][5, 0] = IGNORED
    given |= values_of(module)
    logits = module(given["token"])
    loss = loss_of(logits.flatten(0, 1), given["target"].flatten(), 0.0)
    loss["mean"].backward()
    return {"options": {"vocabulary": V, "llama": llama} | sizes, "given": given,
            "values": {"logits": logits} | loss, "gradients": gradients(module)}


def gpt2():
    """A small GPT-2 of Hugging Face's transformers, whose matrices are stored [in, out]: the logits of
    all steps."""
    from transformers import GPT2Config, GPT2LMHeadModel
    T, B = 5, 2
    sizes = {"vocabulary": 7, "context": T, "embed": 4, "hidden": 4, "layers": 2, "heads": 2}
    module = GPT2LMHeadModel(GPT2Config(
        vocab_size=sizes["vocabulary"], n_positions=T, n_embd=sizes["embed"],
        n_inner=sizes["hidden"], n_layer=sizes["layers"], n_head=sizes["heads"],
        bos_token_id=None, eos_token_id=None)).double().eval()
    draw_parameters(module, bound=0.5)
    token = torch.randint(0, sizes["vocabulary"], (T, B))
    logits = module(token.T).logits.transpose(0, 1)
    return {"options": sizes, "given": {"token": token} | values_of(module),
            "values": {"logits": logits}, "gradients": {}}


def seq2seq(cell, attention, bidirectional=True, input_feeding=False):
    """A whole translation model of two layers, its source a packed sequence, over targets of which
    some are ignored: the logits and the attention's weights of all steps, the loss (rows, mean) and
    all gradients."""
    S, T, B = 5, 4, 3
    sizes = {"source_vocabulary": 9, "vocabulary": 11, "embed": 3, "hidden": 4, "layers": 2}
    kind = {"cell": cell, "attention": attention, "bidirectional": bidirectional,
            "input_feeding": input_feeding}
    module = Seq2Seq(**sizes, **kind).double()
    draw_parameters(module, bound=1)
    given = {"source": torch.randint(0, sizes["source_vocabulary"], (S, B)),
             "lengths": torch.tensor([5, 1, 3]),
             "token": torch.randint(0, sizes["vocabulary"], (T, B)),
             "target": torch.randint(0, sizes["vocabulary"], (T, B))}
    given["target"][3, 1] = given["target"][2, 0] = IGNORED
    given |= values_of(module)
    logits, weights = module(given["source"], given["lengths"], given["token"])
    loss = loss_of(logits.flatten(0, 1), given["target"].flatten(), 0.0)
    loss["mean"].backward()
    values = {"logits": logits} | loss | ({} if weights is None else {"weights": weights})
    return {"options": sizes | kind, "given": given, "values": values,
            "gradients": gradients(module)}


def in_parts(tensors):
    """With the three matrices of attention between two sequences each by its name, and without the bias
    of its keys, which changes nothing."""
    result = {}
    for name, tensor in tensors.items():
        if "multihead_attn.in_proj_" in name:
            for part, rows in zip("qkv", tensor.chunk(3)):
                if part != "k" or not name.endswith("bias"):
                    result[name.replace("in_proj_", f"{part}_proj.")] = rows
        else:
            result[name] = tensor
    return result


def transformer_seq2seq(pre=False):
    """A whole transformer of encoder and decoder over sources of different lengths and targets of
    which some are ignored: the logits of all its steps, the loss (rows, mean) and all gradients."""
    S, T, B = 5, 6, 3
    sizes = {"sources": 9, "vocabulary": 11, "embed": 8, "hidden": 8, "layers": 2,
             "decoder_layers": 1 if pre else 2, "heads": 2}
    module = TransformerSeq2seq(**sizes, pre=pre).double()
    draw_parameters(module, bound=0.5)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if "norm" in name and name.endswith("weight"):
                weight.copy_(1 + draw(*weight.shape, bound=0.25, step=1 / 64))

    def refuse(_, __, wide):
        if wide.abs().min() < 2**-9:
            raise NearKink

    for layer in (*module.encoder.layers, *module.decoder.layers):
        layer.linear1.register_forward_hook(refuse)
    given = {"source": torch.randint(0, sizes["sources"], (S, B)), "lengths": torch.tensor([4, 5, 1]),
             "token": torch.randint(0, sizes["vocabulary"], (T, B)),
             "target": torch.randint(0, sizes["vocabulary"], (T, B))}
    given["target"][2, 1] = given["target"][5, 0] = IGNORED
    logits = module(given["source"], given["lengths"], given["token"])
    loss = loss_of(logits.flatten(0, 1), given["target"].flatten(), 0.0)
    loss["mean"].backward()
    return {"options": {"pre": pre} | sizes, "given": given | in_parts(values_of(module)),
            "values": {"logits": logits} | loss, "gradients": in_parts(gradients(module))}


def initial_values(cell):
    """The distribution of initial weights, as [least, greatest, mean, variance] of each parameter
    of Embedding(200, 96), two layers of a cell, 96 inputs and 128 units, and Linear(128, 200).
    uniform.*: as the modules draw them; xavier.* and orthogonal.*: by torch.nn.init.xavier_uniform_
    and orthogonal_, the cell's matrices gate by gate, and the biases by zeros_; orthogonal.*: also
    the largest |element| of WᵀW − 1 or WWᵀ − 1, whichever is smaller, over all gates."""
    V, E, H, layers = 200, 96, 128, 2
    result = {}
    for kind, begin in (("uniform", None), ("xavier", nn.init.xavier_uniform_),
                        ("orthogonal", nn.init.orthogonal_)):
        module = RecurrentLm(cell, V, E, H, layers).double()
        for name, parameter in module.named_parameters():
            recurrent = name.startswith(module.cell.prefix)
            gates = parameter.chunk(len(parameter) // H) if recurrent else [parameter]
            if begin and parameter.dim() == 1:
                nn.init.zeros_(parameter)
            elif begin and name != "embedding.weight":
                with torch.no_grad():
                    for gate in gates:
                        gate.copy_(begin(torch.empty_like(gate)))
            p = parameter.detach()
            numbers = [p.min(), p.max(), p.mean(), p.var(unbiased=False)]
            if kind == "orthogonal" and p.dim() == 2 and name != "embedding.weight":
                grams = (min((g @ g.t(), g.t() @ g), key=len) for g in (g.detach() for g in gates))
                numbers.append(max((gram - torch.eye(len(gram))).abs().max() for gram in grams))
            result[f"{kind}.{name}"] = torch.stack(numbers)
    return {"options": {"cell": cell, "vocabulary": V, "embed": E, "hidden": H, "layers": layers},
            "values": result}


UNSORTED = (3, 1, 5)  # the lengths of a batch's rows
KINDS = {
    "bidirectional": {"bidirectional": True},
    "packed": {"lengths": UNSORTED},
    "packed_bidirectional": {"lengths": UNSORTED, "bidirectional": True},
    "projected": {"projection": 2},
    "projected_bidirectional": {"projection": 2, "bidirectional": True},
    "projected_packed_bidirectional": {"projection": 2, "lengths": UNSORTED,
                                       "bidirectional": True},
}
CELLS_OF = {kind: ("lstm",) if "projection" in options else ("lstm", "gru", "tanh")
            for kind, options in KINDS.items()}
ACTIVATIONS = {"gelu": functional.gelu,
               "gelu_tanh": functools.partial(functional.gelu, approximate="tanh"),
               "relu": functional.relu, "silu": functional.silu, "tanh": torch.tanh}
CASES = {
    **{cell: (recurrent, {"cell": cell, "B": 2, "H": 5}) for cell in CELLS},
    **{f"{cell}_{kind}": (recurrent, {"cell": cell} | options)
       for kind, options in KINDS.items() for cell in CELLS_OF[kind]},
    "cross_entropy": (cross_entropy, {}),
    "cross_entropy_smoothed": (cross_entropy, {"smoothing": 0.125}),
    "linear_cross_entropy": (linear_cross_entropy, {}),
    "linear_cross_entropy_smoothed": (linear_cross_entropy, {"smoothing": 0.125}),
    "adaptive_softmax": (adaptive_softmax, {}),
    "adaptive_softmax_biased": (adaptive_softmax, {"biased": True}),
    "attention": (attention, {"S": 7}),
    "attention_biased": (attention, {"S": 7, "groups": 2, "biases": 4}),
    "attention_biased_alike": (attention, {"S": 6, "biases": 1}),
    "attention_causal": (attention, {"causal": True}),
    "attention_masked": (attention, {"S": 6, "lengths": [6, 2]}),
    "attention_grouped": (attention, {"groups": 2, "causal": True}),
    "multihead_attention": (multihead_attention, {}),
    "multihead_attention_memory": (multihead_attention, {"S": 6, "lengths": [6, 1, 4]}),
    "layer_norm": (layer_norm, {}),
    **{f"activation_{name}": (activation, {"function": function})
       for name, function in ACTIVATIONS.items()},
    "sgd": (trajectory, {"kind": "sgd", "weight_decay": 0.1, "clip_norm": 1.5}),
    "sgd_momentum": (trajectory, {"kind": "sgd", "momentum": 0.9, "weight_decay": 0.1}),
    "sgd_nesterov": (trajectory, {"kind": "sgd", "momentum": 0.9, "nesterov": True,
                                  "weight_decay": 0.1, "clip_value": 0.5}),
    "adam": (trajectory, {"kind": "adam", "beta1": 0.8, "beta2": 0.99, "eps": 1e-6,
                          "weight_decay": 0.1, "clip_value": 0.5}),
    "adamw": (trajectory, {"kind": "adamw", "beta1": 0.9, "beta2": 0.999, "eps": 1e-8,
                           "weight_decay": 0.1, "clip_norm": 1.5}),
    "rmsprop": (trajectory, {"kind": "rmsprop", "alpha": 0.9, "eps": 1e-8, "weight_decay": 0.1,
                             "clip_value": 0.5}),
    "rmsprop_momentum": (trajectory, {"kind": "rmsprop", "alpha": 0.95, "eps": 1e-4,
                                      "momentum": 0.9, "weight_decay": 0.1}),
    "rmsprop_centered": (trajectory, {"kind": "rmsprop", "alpha": 0.9, "eps": 1e-4,
                                      "momentum": 0.8, "centered": True, "weight_decay": 0.1,
                                      "clip_norm": 1.5}),
    "adagrad": (trajectory, {"kind": "adagrad", "eps": 1e-10, "weight_decay": 0.1,
                             "clip_norm": 1.5}),
    "adagrad_decay": (trajectory, {"kind": "adagrad", "eps": 1e-4, "lr_decay": 0.125,
                                   "initial_accumulator_value": 0.25, "weight_decay": 0.1}),
    "clipping": (clipping, {}),
    "gpt2": (gpt2, {}),
    **{f"{cell}_lm": (recurrent_lm, {"cell": cell, "clip_norm": limit}) for cell, limit in (
        ("lstm", 0.4), ("gru", 1.0), ("tanh", 1.5), ("relu", 0.5), ("linear", 2.75))},
    "lstm_lm_tied": (recurrent_lm, {"cell": "lstm", "clip_norm": 0.4, "tied": True}),
    "ngram_lm": (ngram_lm, {}),
    "ngram_lm_tied": (ngram_lm, {"tied": True}),
    "seq2seq_additive": (seq2seq, {"cell": "lstm", "attention": "additive"}),
    "seq2seq_concat": (seq2seq, {"cell": "gru", "attention": "concat", "input_feeding": True}),
    "seq2seq_dot": (seq2seq, {"cell": "gru", "attention": "dot"}),
    "seq2seq_fed": (seq2seq, {"cell": "lstm", "attention": "general", "input_feeding": True}),
    "seq2seq_general": (seq2seq, {"cell": "lstm", "attention": "general"}),
    "seq2seq_none": (seq2seq, {"cell": "lstm", "attention": "none", "bidirectional": False}),
    "transformer_lm": (transformer_lm, {}),
    "transformer_lm_llama": (transformer_lm, {"llama": True}),
    "transformer_seq2seq": (transformer_seq2seq, {}),
    "transformer_seq2seq_pre": (transformer_seq2seq, {"pre": True}),
    **{f"{cell}_initial_values": (initial_values, {"cell": cell}) for cell in ("lstm", "gru")},
}


def text_of(recording):
    """JSON with a tensor to a line. Numbers are written so that they read back to the last bit."""
    lines = []
    for key, value in recording.items():
        if isinstance(value, dict) and key != "options":
            entries = [f'  {json.dumps(name)}: {{"shape": {list(tensor.shape)}, "values": '
                       f'{json.dumps(tensor.detach().flatten().tolist())}}}'
                       for name, tensor in value.items()]
            lines.append(f"{json.dumps(key)}: {{\n" + ",\n".join(entries) + "}")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{" + ",\n".join(lines) + "}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    cases = parser.parse_args().cases
    for case in cases:
        if case not in CASES:
            parser.error(f"unknown case '{case}', expected one of: {', '.join(CASES)}")
    torch.set_num_threads(1)
    for case in cases or CASES:
        make, arguments = CASES[case]
        for seed in itertools.count(SEED):
            torch.manual_seed(seed)
            try:
                result = make(**arguments)
                break
            except NearKink:
                continue
        recording = {"recorded by": f"tests/golden/record.py {case}; PyTorch {torch.__version__}, "
                                    f"CPU, double precision, seed {seed}",
                     "case": " ".join(make.__doc__.split())} | result
        (HERE / f"{case}.json").write_text(text_of(recording))


if __name__ == "__main__":
    main()
