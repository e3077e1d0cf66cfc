"""bfloat16 for matrix products only, while training.

On processors with AVX512-BF16 oneDNN multiplies bfloat16 matrices about five times as fast as MKL does float32 ones
(400 against 80 GFLOPS on one thread), while convolutions gain nothing in training. Weights, moments,
normalisation and convolutions stay in float32, and products are summed in float32.
"""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional


class BfLinear(nn.Linear):
    """`nn.Linear` that multiplies in bfloat16; parameters, input and output stay float32."""

    def forward(self, values: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        bias = None if self.bias is None else self.bias.bfloat16()
        return functional.linear(values.bfloat16(), self.weight.bfloat16(), bias).float()


class BfAttention:
    """Attention of diffusers' `Attention` blocks with both products in bfloat16 and the softmax in float32."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Queries from `hidden_states` (B, N, C), keys and values from `encoder_hidden_states` or the same."""
        if attention_mask is not None or attn.residual_connection or attn.rescale_output_factor != 1.0:
            raise NotImplementedError("only the plain attention of a transformer block")
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            product.unflatten(-1, (attn.heads, -1)).transpose(1, 2).bfloat16()
            for product in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        weights = (query @ key.transpose(-1, -2)).float().mul(attn.scale).softmax(dim=-1).bfloat16()
        out: Tensor = attn.to_out[0]((weights @ value).transpose(1, 2).flatten(2).float())
        return out


def multiply_in_bfloat16(model: nn.Module) -> None:
    """Change every `nn.Linear` and diffusers attention of the model in place; parameters stay the same objects."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = BfLinear
        elif isinstance(module, Attention):
            module.set_processor(BfAttention())


def supported() -> bool:
    """True if this processor multiplies bfloat16 natively."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
