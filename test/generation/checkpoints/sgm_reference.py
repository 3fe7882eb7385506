"""The released U-Net restated on its own: weight names with shapes, and the forward pass, from a dict of tensors.

Written from the documented architecture, without the package under test, so that the converters and
the batched model can be compared with something.
"""

import math

import torch
import torch.nn.functional as F

FULL = {'width': 320, 'mult': (1, 2, 4, 4), 'blocks': 2, 'attention_levels': 3, 'context': 1024, 'link_inner': 512}


def unet_shapes(width, mult, blocks, attention_levels, context, link_inner, in_channels=8, out_channels=4):
    """sgm key -> shape of the released VideoUNet (no label embedding)."""
    shapes = {}

    def put(name, *shape, bias=True):
        shapes[name + '.weight'] = shape
        if bias:
            shapes[name + '.bias'] = (shape[0],)

    def resblock(name, c_in, c_out, emb):
        put(f'{name}.in_layers.0', c_in)
        put(f'{name}.in_layers.2', c_out, c_in, 3, 3)
        put(f'{name}.emb_layers.1', c_out, emb)
        put(f'{name}.out_layers.0', c_out)
        put(f'{name}.out_layers.3', c_out, c_out, 3, 3)
        if c_in != c_out:
            put(f'{name}.skip_connection', c_out, c_in, 1, 1)
        for layer, kernel in (('in_layers.2', 1), ('out_layers.3', 1)):
            put(f'{name}.time_stack.{layer}', c_out, c_out, 3, 1, kernel)
        put(f'{name}.time_stack.in_layers.0', c_out)
        put(f'{name}.time_stack.emb_layers.1', c_out, emb)
        put(f'{name}.time_stack.out_layers.0', c_out)
        shapes[f'{name}.time_mixer.mix_factor'] = (1,)

    def feed_forward(name, c):
        put(f'{name}.net.0.proj', 8 * c, c)
        put(f'{name}.net.2', c, 4 * c)

    def attention(name, c, c_context):
        put(f'{name}.to_q', c, c, bias=False)
        put(f'{name}.to_k', c, c_context, bias=False)
        put(f'{name}.to_v', c, c_context, bias=False)
        put(f'{name}.to_out.0', c, c)

    def transformer(name, c):
        put(f'{name}.norm', c)
        put(f'{name}.proj_in', c, c)
        put(f'{name}.proj_out', c, c)
        put(f'{name}.time_pos_embed.0', 4 * c, c)
        put(f'{name}.time_pos_embed.2', c, 4 * c)
        shapes[f'{name}.time_mixer.mix_factor'] = (1,)
        for part in ('transformer_blocks.0', 'time_stack.0'):
            block = f'{name}.{part}'
            attention(f'{block}.attn1', c, c)
            attention(f'{block}.attn2', c, context)
            feed_forward(f'{block}.ff', c)
            for i in (1, 2, 3):
                put(f'{block}.norm{i}', c)
        put(f'{name}.time_stack.0.norm_in', c)
        feed_forward(f'{name}.time_stack.0.ff_in', c)

    emb = 4 * width
    put('time_embed.0', emb, width)
    put('time_embed.2', emb, emb)
    put('input_blocks.0.0', width, in_channels, 3, 3)
    skips, c, index = [width], width, 1
    for level, m in enumerate(mult):
        for _ in range(blocks):
            resblock(f'input_blocks.{index}.0', c, m * width, emb)
            c = m * width
            if level < attention_levels:
                transformer(f'input_blocks.{index}.1', c)
            skips.append(c)
            index += 1
        if level != len(mult) - 1:
            put(f'input_blocks.{index}.0.op', c, c, 3, 3)
            skips.append(c)
            index += 1
    resblock('middle_block.0', c, c, emb)
    transformer('middle_block.1', c)
    resblock('middle_block.2', c, c, emb)
    index = 0
    for level in reversed(range(len(mult))):
        for j in range(blocks + 1):
            resblock(f'output_blocks.{index}.0', c + skips.pop(), mult[level] * width, emb)
            c = mult[level] * width
            place = 1
            if level < attention_levels:
                transformer(f'output_blocks.{index}.1', c)
                place = 2
            if level and j == blocks:
                put(f'output_blocks.{index}.{place}.conv', c, c, 3, 3)
            for part, shape in (('to_q', (link_inner, c)), ('to_k', (link_inner, c)), ('to_v', (link_inner, c))):
                put(f'attn_layers_decoder.{index}.{part}', *shape, bias=False)
            put(f'attn_layers_decoder.{index}.to_out.0', c, link_inner)
            index += 1
    put('out.0', c)
    put('out.2', out_channels, width, 3, 3)
    return shapes


def random_state(shapes, seed=0):
    """Weights that keep activations of order one."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        fan_in = math.prod(shape[1:]) if len(shape) > 1 else 1
        value = torch.randn(shape, generator=generator) / math.sqrt(fan_in)
        if len(shape) == 1:
            value = 0.1 * value + (1.0 if name.endswith('.weight') else 0.0)
        state[name] = value
    return state


class SgmUNet:
    """The released forward pass for one stream at a time."""

    def __init__(self, state, mult, blocks, head_dim, link_heads=8):
        self.state, self.mult, self.blocks = state, mult, blocks
        self.head_dim, self.link_heads = head_dim, link_heads

    def linear(self, name, x):
        return F.linear(x, self.state[name + '.weight'], self.state.get(name + '.bias'))

    def conv(self, name, x, **kwargs):
        weight, bias = self.state[name + '.weight'], self.state[name + '.bias']
        if weight.dim() == 5:
            return F.conv3d(x, weight, bias, padding=(1, 0, 0))
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, **kwargs)

    def norm(self, name, x, eps=1e-5):
        return F.group_norm(x, 32, self.state[name + '.weight'], self.state[name + '.bias'], eps)

    def layer_norm(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.state[name + '.weight'], self.state[name + '.bias'])

    @staticmethod
    def sinusoid(t, dim):
        frequencies = torch.exp(-math.log(10000) * torch.arange(dim // 2) / (dim // 2))
        angles = t.float()[:, None] * frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=-1)

    def half_resblock(self, name, x, emb):
        h = self.conv(f'{name}.in_layers.2', F.silu(self.norm(f'{name}.in_layers.0', x)))
        shift = self.linear(f'{name}.emb_layers.1', F.silu(emb))  # (frames, c)
        h = h + (shift[:, :, None, None] if x.dim() == 4 else shift.T[None, :, :, None, None])
        h = self.conv(f'{name}.out_layers.3', F.silu(self.norm(f'{name}.out_layers.0', h)))
        if f'{name}.skip_connection.weight' in self.state:
            x = self.conv(f'{name}.skip_connection', x)
        return x + h

    def blend(self, name, spatial, temporal):
        alpha = torch.sigmoid(self.state[f'{name}.time_mixer.mix_factor'])
        return alpha * spatial + (1 - alpha) * temporal

    def resblock(self, name, x, emb):
        x = self.half_resblock(name, x, emb)
        clip = x.transpose(0, 1)[None]  # (1, c, frames, h, w)
        mixed = self.half_resblock(f'{name}.time_stack', clip, emb)
        return self.blend(name, clip, mixed)[0].transpose(0, 1)

    def attend(self, name, x, context, heads):
        q, k, v = (self.linear(f'{name}.to_{p}', y) for p, y in (('q', x), ('k', context), ('v', context)))
        q, k, v = (t.reshape(*t.shape[:2], heads, -1).transpose(1, 2) for t in (q, k, v))
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        return self.linear(f'{name}.to_out.0', (weights @ v).transpose(1, 2).flatten(2))

    def feed_forward(self, name, x):
        value, gate = self.linear(f'{name}.net.0.proj', x).chunk(2, dim=-1)
        return self.linear(f'{name}.net.2', value * F.gelu(gate))

    def basic_block(self, name, x, context, heads):
        y = self.layer_norm(f'{name}.norm1', x)
        x = x + self.attend(f'{name}.attn1', y, y, heads)
        x = x + self.attend(f'{name}.attn2', self.layer_norm(f'{name}.norm2', x), context, heads)
        return x + self.feed_forward(f'{name}.ff', self.layer_norm(f'{name}.norm3', x))

    def transformer(self, name, x, context):
        frames, c, height, width = x.shape
        heads = c // self.head_dim
        y = self.norm(f'{name}.norm', x, eps=1e-6).flatten(2).transpose(1, 2)
        y = self.linear(f'{name}.proj_in', y)
        place = self.sinusoid(torch.arange(frames), c)
        place = self.linear(f'{name}.time_pos_embed.2', F.silu(self.linear(f'{name}.time_pos_embed.0', place)))
        y = self.basic_block(f'{name}.transformer_blocks.0', y, context.expand(frames, -1, -1), heads)
        z = (y + place[:, None]).transpose(0, 1)  # pixels are the batch, frames the tokens
        block = f'{name}.time_stack.0'
        z = z + self.feed_forward(f'{block}.ff_in', self.layer_norm(f'{block}.norm_in', z))
        z = self.basic_block(block, z, context.expand(height * width, -1, -1), heads)
        y = self.blend(name, y, z.transpose(0, 1))
        return x + self.linear(f'{name}.proj_out', y).transpose(1, 2).reshape(x.shape)

    def module(self, name, x, emb, context):
        x = self.resblock(f'{name}.0', x, emb)
        if f'{name}.1.proj_in.weight' in self.state:
            x = self.transformer(f'{name}.1', x, context)
        for place in (1, 2):
            if f'{name}.{place}.conv.weight' in self.state:
                x = self.conv(f'{name}.{place}.conv', F.interpolate(x, scale_factor=2.0, mode='nearest'))
        return x

    def link(self, i, x, source):
        tokens, other = (t.flatten(2).transpose(1, 2) for t in (x, source))
        out = self.attend(f'attn_layers_decoder.{i}', tokens, other, self.link_heads)
        return x + out.transpose(1, 2).reshape(x.shape)

    def __call__(self, x, t, context, sources=None):
        """(frames, 8, h, w), (frames,), (1, 1, d) -> output and the features of every output block."""
        width = self.state['time_embed.0.weight'].shape[1]
        emb = self.linear('time_embed.2', F.silu(self.linear('time_embed.0', self.sinusoid(t, width))))
        h = self.conv('input_blocks.0.0', x)
        skips, index = [h], 1
        for level in range(len(self.mult)):
            for _ in range(self.blocks):
                h = self.module(f'input_blocks.{index}', h, emb, context)
                skips.append(h)
                index += 1
            if level != len(self.mult) - 1:
                h = self.conv(f'input_blocks.{index}.0.op', h, stride=2)
                skips.append(h)
                index += 1
        h = self.resblock('middle_block.0', h, emb)
        h = self.transformer('middle_block.1', h, context)
        h = self.resblock('middle_block.2', h, emb)
        features = []
        for i in range(len(skips)):
            h = self.module(f'output_blocks.{i}', torch.cat([h, skips.pop()], dim=1), emb, context)
            if sources is not None:
                h = self.link(i, h, sources[i])
            features.append(h)
        return self.conv('out.2', F.silu(self.norm('out.0', h))), features
