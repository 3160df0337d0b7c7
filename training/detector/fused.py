"""Faster training on a CPU: normalisation, activation and affine of each convolution in one pass.

    fused.accelerate(model)

In: a `DFine`. Out: the same model, its parameters and names untouched, whose convolution units run through
`fused.cpp` while training. Without a C++ compiler or `ninja` it says so and changes nothing. `python fused.py`
checks values and gradients against PyTorch's own.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

import backbone
import encoder

NONE, RELU, SILU = range(3)


@functools.cache
def kernels():
    from torch.utils.cpp_extension import load

    flags = ["-O3", "-march=native", "-ffast-math", "-fno-finite-math-only", "-w"]
    return load("ultramotion_fused", [str(Path(__file__).with_name("fused.cpp"))], extra_cflags=flags)


class NormAct(torch.autograd.Function):
    """Batch statistics, normalise, activate, scale and shift. Also returns mean and variance."""

    @staticmethod
    def forward(ctx, x, gamma, beta, scale, shift, eps, kind):
        s, t = (1.0, 0.0) if scale is None else (scale.item(), shift.item())
        y, mean, var, rstd, gain, offset, kept = kernels().forward(x, gamma, beta, eps, kind, s, t)
        ctx.save_for_backward(kept, mean, rstd, gain, offset)
        ctx.kind, ctx.s, ctx.affine = kind, s, scale is not None
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    def backward(ctx, gy, _mean, _var):
        gx, dgamma, dbeta, dscale, dshift = kernels().backward(gy, *ctx.saved_tensors, ctx.kind, ctx.s)
        if not ctx.affine:
            dscale = dshift = None
        return gx, dgamma, dbeta, dscale, dshift, None, None


def norm_act(x, bn: torch.nn.BatchNorm2d, kind: int, affine=None):
    scale, shift = (None, None) if affine is None else (affine.scale, affine.bias)
    y, mean, var = NormAct.apply(x, bn.weight, bn.bias, scale, shift, bn.eps, kind)
    with torch.no_grad():
        count = x.numel() / x.shape[1]
        bn.running_mean.lerp_(mean, bn.momentum)
        bn.running_var.lerp_(var * (count / max(1.0, count - 1)), bn.momentum)
        bn.num_batches_tracked += 1
    return y


def convolved(conv: torch.nn.Conv2d, x):
    """Depthwise convolutions stay in float32: oneDNN has no fast bfloat16 gradient of them."""
    if conv.groups == 1 or not torch.is_autocast_enabled("cpu"):
        return conv(x)
    with torch.autocast("cpu", enabled=False):
        return conv(x.float())


def as_before(y, conv: torch.nn.Conv2d, x):
    """A depthwise unit's output in its input's type."""
    return y if conv.groups == 1 else y.to(x.dtype)


def conv_bn_act(self, x):
    if not self.training:
        return backbone.ConvBnAct.forward(self, x)
    y = norm_act(convolved(self.conv, x), self.bn, RELU if self.act else NONE, self.lab)
    return as_before(y, self.conv, x)


def conv_norm(self, x):
    if not self.training:
        return encoder.ConvNorm.forward(self, x)
    y = norm_act(convolved(self.conv, x), self.norm, SILU if self.act else NONE)
    return as_before(y, self.conv, x)


def accelerate(net: torch.nn.Module) -> bool:
    """Whether it worked."""
    try:
        kernels()
    except (OSError, RuntimeError, ImportError) as error:
        print(f"no fused kernels, training is slower: {error}", file=sys.stderr)
        return False
    for module in net.modules():
        if type(module) is backbone.ConvBnAct:
            module.forward = conv_bn_act.__get__(module)
        elif type(module) is encoder.ConvNorm:
            module.forward = conv_norm.__get__(module)
    return True


def check():
    generator = torch.Generator().manual_seed(5)
    for kind, act in ((NONE, lambda z: z), (RELU, F.relu), (SILU, F.silu)):
        for channels in (8, 21, 128):
            x = torch.randn(3, channels, 9, 7, generator=generator) * 2 + 5
            bn = torch.nn.BatchNorm2d(channels)
            torch.nn.init.uniform_(bn.weight, 0.5, 2)
            torch.nn.init.uniform_(bn.bias, -1, 1)
            other = torch.nn.BatchNorm2d(channels)
            other.load_state_dict(bn.state_dict())
            ours, theirs = backbone.Affine(), backbone.Affine()
            for affine in (ours, theirs):
                torch.nn.init.constant_(affine.scale, 1.3)
                torch.nn.init.constant_(affine.bias, -0.2)
            a = x.clone().contiguous(memory_format=torch.channels_last).requires_grad_()
            b = x.clone().requires_grad_()
            up = torch.randn(x.shape, generator=generator)
            out, expected = norm_act(a, bn, kind, ours), theirs(act(other(b)))
            (out * up).sum().backward()
            (expected * up).sum().backward()
            pairs = [(out, expected), (a.grad, b.grad), (bn.weight.grad, other.weight.grad)]
            pairs += [(bn.bias.grad, other.bias.grad), (ours.scale.grad, theirs.scale.grad)]
            pairs += [(ours.bias.grad, theirs.bias.grad), (bn.running_mean, other.running_mean)]
            pairs += [(bn.running_var, other.running_var)]
            for got, want in pairs:
                torch.testing.assert_close(got, want, rtol=1e-3, atol=2e-4)
    print("equal to PyTorch's own, values and gradients")


if __name__ == "__main__":
    check()
