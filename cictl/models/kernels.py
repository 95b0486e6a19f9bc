"""Triton's kernels of a frozen UNet's normalisations and gates, with channels last; :mod:`cictl.models.fused` calls them.

Pictures are [B, H W, C], whatever their precision; all is computed in fp32. Names in capitals are known when a kernel is built.
"""

# Triton reads the source of what it builds, and its arguments are pointers and numbers: no annotations but its own.

import triton
import triton.language as tl

# In the kernels a program has one picture (axis 0), some positions or one group (axis 1) and some channels (axis 2). Where a
# picture begins is counted in 64 bits, since a batch may have more than 2^31 numbers; within a picture 32 are enough.


@triton.jit
def beginning_of(pictures, picture, positions, channels):
    """Where ``picture`` begins."""
    return pictures + picture.to(tl.int64) * positions * channels


@triton.jit
def sum_channels(hidden, sums, positions, channels, blocks, TURNS: tl.constexpr, P: tl.constexpr, C: tl.constexpr):
    """The sum and the sum of squares of each channel over a share of the positions: [B, blocks, 2, C]."""
    picture, block = tl.program_id(0), tl.program_id(1)
    channel = tl.program_id(2) * C + tl.arange(0, C)
    hidden = beginning_of(hidden, picture, positions, channels)
    total, squares = tl.zeros((C,), tl.float32), tl.zeros((C,), tl.float32)
    for turn in range(TURNS):
        position = (turn * blocks + block) * P + tl.arange(0, P)
        inside = (position[:, None] < positions) & (channel[None, :] < channels)
        at = position[:, None] * channels + channel[None, :]
        x = tl.load(hidden + at, inside, 0.0).to(tl.float32)
        total += tl.sum(x, 0)
        squares += tl.sum(x * x, 0)
    place = sums + (picture * blocks + block) * 2 * channels + channel
    tl.store(place, total, channel < channels)
    tl.store(place + channels, squares, channel < channels)


@triton.jit
def to_scale(
    sums, weight, bias, scale, shift, stats, positions, channels, blocks, eps, size, S: tl.constexpr, N: tl.constexpr
):  # fmt: skip
    """Mean and 1 / std of a group, and by what its channels are scaled and shifted."""
    picture, group, groups = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    own, block = tl.arange(0, S), tl.arange(0, N)
    channel = group * size + own
    inside = (block[:, None] < blocks) & (own[None, :] < size)
    at = sums + (picture * blocks + block[:, None]) * 2 * channels + channel[None, :]
    count = positions * size
    mean = tl.sum(tl.sum(tl.load(at, inside, 0.0), 1), 0) / count
    squares = tl.sum(tl.sum(tl.load(at + channels, inside, 0.0), 1), 0) / count
    inverse = 1.0 / tl.sqrt(tl.maximum(squares - mean * mean, 0.0) + eps)
    w = tl.load(weight + channel, own < size, 0.0).to(tl.float32) * inverse
    b = tl.load(bias + channel, own < size, 0.0).to(tl.float32)
    tl.store(scale + picture * channels + channel, w, own < size)
    tl.store(shift + picture * channels + channel, b - mean * w, own < size)
    place = stats + (picture * groups + group) * 2
    tl.store(place, mean)
    tl.store(place + 1, inverse)


@triton.jit
def scale_and_activate(hidden, scale, shift, output, positions, channels, SILU: tl.constexpr, P: tl.constexpr, C: tl.constexpr):
    """y = silu(x a + b) with the a and b of each channel."""
    picture = tl.program_id(0)
    position = tl.program_id(1) * P + tl.arange(0, P)
    channel = tl.program_id(2) * C + tl.arange(0, C)
    a = tl.load(scale + picture * channels + channel, channel < channels, 0.0)
    b = tl.load(shift + picture * channels + channel, channel < channels, 0.0)
    inside = (position[:, None] < positions) & (channel[None, :] < channels)
    at = position[:, None] * channels + channel[None, :]
    hidden = beginning_of(hidden, picture, positions, channels)
    output = beginning_of(output, picture, positions, channels)
    y = tl.load(hidden + at, inside, 0.0).to(tl.float32) * a[None, :] + b[None, :]
    if SILU:
        y = y * tl.sigmoid(y)
    tl.store(output + at, y.to(output.dtype.element_ty), inside)


@triton.jit
def of_activation(x, gradient, a, b, SILU: tl.constexpr):
    """The gradient of y = x a + b, of whose SILU ``gradient`` is."""
    if SILU:
        y = x * a[None, :] + b[None, :]
        gate = tl.sigmoid(y)
        gradient = gradient * gate * (1.0 + y * (1.0 - gate))
    return gradient


@triton.jit
def sum_gradients(
    hidden, gradient, scale, shift, sums, positions, channels, blocks,
    SILU: tl.constexpr, TURNS: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """The sums of dy and of dy x for each channel, over a share of the positions: [B, blocks, 2, C]."""
    picture, block = tl.program_id(0), tl.program_id(1)
    channel = tl.program_id(2) * C + tl.arange(0, C)
    a = tl.load(scale + picture * channels + channel, channel < channels, 0.0)
    b = tl.load(shift + picture * channels + channel, channel < channels, 0.0)
    hidden = beginning_of(hidden, picture, positions, channels)
    gradient = beginning_of(gradient, picture, positions, channels)
    total, products = tl.zeros((C,), tl.float32), tl.zeros((C,), tl.float32)
    for turn in range(TURNS):
        position = (turn * blocks + block) * P + tl.arange(0, P)
        inside = (position[:, None] < positions) & (channel[None, :] < channels)
        at = position[:, None] * channels + channel[None, :]
        x = tl.load(hidden + at, inside, 0.0).to(tl.float32)
        d = of_activation(x, tl.load(gradient + at, inside, 0.0).to(tl.float32), a, b, SILU)
        total += tl.sum(d, 0)
        products += tl.sum(d * x, 0)
    place = sums + (picture * blocks + block) * 2 * channels + channel
    tl.store(place, total, channel < channels)
    tl.store(place + channels, products, channel < channels)


@triton.jit
def to_coefficients(
    sums, weight, stats, of_input, constant, positions, channels, blocks, size, S: tl.constexpr, N: tl.constexpr
):  # fmt: skip
    """What of a group's gradient goes back through its mean and its std: dx = dy a + x k + c."""
    picture, group, groups = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    own, block = tl.arange(0, S), tl.arange(0, N)
    channel = group * size + own
    inside = (block[:, None] < blocks) & (own[None, :] < size)
    at = sums + (picture * blocks + block[:, None]) * 2 * channels + channel[None, :]
    w = tl.load(weight + channel, own < size, 0.0).to(tl.float32)
    total = tl.sum(tl.sum(tl.load(at, inside, 0.0), 0) * w, 0)
    products = tl.sum(tl.sum(tl.load(at + channels, inside, 0.0), 0) * w, 0)
    place = stats + (picture * groups + group) * 2
    mean, inverse = tl.load(place), tl.load(place + 1)
    count = positions * size
    k = -(products - mean * total) * inverse * inverse * inverse / count
    tl.store(of_input + picture * groups + group, k)
    tl.store(constant + picture * groups + group, -total * inverse / count - k * mean)


@triton.jit
def input_gradient(
    hidden, gradient, scale, shift, of_input, constant, result, positions, channels, groups, size,
    SILU: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """dx = dy a + x k + c, with k and c of the channel's group."""
    picture = tl.program_id(0)
    position = tl.program_id(1) * P + tl.arange(0, P)
    channel = tl.program_id(2) * C + tl.arange(0, C)
    known = channel < channels
    a = tl.load(scale + picture * channels + channel, known, 0.0)
    b = tl.load(shift + picture * channels + channel, known, 0.0)
    k = tl.load(of_input + picture * groups + channel // size, known, 0.0)
    c = tl.load(constant + picture * groups + channel // size, known, 0.0)
    inside = (position[:, None] < positions) & known[None, :]
    at = position[:, None] * channels + channel[None, :]
    hidden = beginning_of(hidden, picture, positions, channels)
    gradient = beginning_of(gradient, picture, positions, channels)
    result = beginning_of(result, picture, positions, channels)
    x = tl.load(hidden + at, inside, 0.0).to(tl.float32)
    d = of_activation(x, tl.load(gradient + at, inside, 0.0).to(tl.float32), a, b, SILU)
    tl.store(result + at, (d * a[None, :] + x * k[None, :] + c[None, :]).to(result.dtype.element_ty), inside)


@triton.jit
def gelu(x):
    """GELU and its gradient."""
    share = 0.5 * (1.0 + tl.erf(x * 0.7071067811865476))
    return x * share, share + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)


@triton.jit
def share_of(count, width, N: tl.constexpr):
    """The N numbers of a gate's output that a program computes: where they begin, by how much more in its input, and in 32 bits
    each one's place behind both and whether it is there."""
    begin = tl.program_id(0).to(tl.int64) * N
    row = begin // width
    own = tl.arange(0, N)
    along = (begin - row * width).to(tl.int32) + own  # from the beginning of the row on
    return begin, row * width, own, own + along // width * width, own < tl.minimum(count - begin, N).to(tl.int32)


@triton.jit
def multiply_by_gelu(projected, output, count, width, N: tl.constexpr):
    """y = h gelu(g), with h and g one after the other in each row."""
    begin, more, own, first, inside = share_of(count, width, N)
    projected += begin + more
    hidden = tl.load(projected + first, inside, 0.0).to(tl.float32)
    activated, _ = gelu(tl.load(projected + first + width, inside, 0.0).to(tl.float32))
    tl.store(output + begin + own, (hidden * activated).to(output.dtype.element_ty), inside)


@triton.jit
def gradient_of_gate(projected, gradient, result, count, width, N: tl.constexpr):
    """dh = dy gelu(g), and dg = dy h gelu'(g)."""
    begin, more, own, first, inside = share_of(count, width, N)
    projected += begin + more
    result += begin + more
    d = tl.load(gradient + begin + own, inside, 0.0).to(tl.float32)
    hidden = tl.load(projected + first, inside, 0.0).to(tl.float32)
    activated, slope = gelu(tl.load(projected + first + width, inside, 0.0).to(tl.float32))
    tl.store(result + first, (d * activated).to(result.dtype.element_ty), inside)
    tl.store(result + first + width, (d * hidden * slope).to(result.dtype.element_ty), inside)
