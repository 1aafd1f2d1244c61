"""What others train the same shapes with: a plain loop on PyTorch modules, transformers, x-transformers.

Everybody has float32 weights, autocast to bf16 where that is asked, `AdamW(fused=True)`, and gradients clipped to norm 1. `Plain` is
a GPT-2 by the book in the way of nanoGPT (github.com/karpathy/nanoGPT, model.py): one matrix for queries, keys and values, PyTorch's
attention, one table for reading and writing, all logits at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from _shapes import Case

Step = Callable[[], Any]


class PlainBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.c_attn(self.ln_1(x)).split(d, dim=2)
        q, k, v = (part.view(b, n, self.heads, d // self.heads).transpose(1, 2) for part in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).contiguous().view(b, n, d))
        return x + self.mlp(self.ln_2(x))


class Plain(nn.Module):
    def __init__(self, ids: int, width: int, depth: int, heads: int, tokens: int):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(ids, width), nn.Embedding(tokens, width)
        self.h = nn.ModuleList(PlainBlock(width, heads) for _ in range(depth))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, ids, bias=False)
        self.lm_head.weight = self.wte.weight
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        for block in self.h:
            x = block(x)
        logits = self.lm_head(self.ln_f(x))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=-1)


def stepper(model: nn.Module, loss: Callable[[nn.Module], Tensor], precision: str, compiled: bool = False) -> Step:
    """A training loop's body around a model."""
    model.train()
    device = next(model.parameters()).device.type
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), weight_decay=0.1, fused=True)
    run: Any = torch.compile(model) if compiled else model

    def step() -> float:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            found = loss(run)
        found.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(found.detach())

    return step


def shape(case: Case, trunk: str) -> dict[str, Any]:
    return dict(case.recipe["trunks"][trunk])


def decoders(case: Case, device: str = "cpu") -> Iterator[tuple[str, nn.Module, Callable[[Any], Tensor]]]:
    own = shape(case, "lm")
    width, depth, heads = own["width"], own["depth"], own["block"]["mixer"]["heads"]
    ids = torch.randint(case.ids, (case.rows, case.tokens + 1), device=device)
    yield "nanoGPT-like", Plain(case.ids, width, depth, heads, case.tokens), lambda m: m(ids[:, :-1], ids[:, 1:])
    import transformers as peer

    config = peer.GPT2Config(
        vocab_size=case.ids,
        n_positions=case.tokens,
        n_embd=width,
        n_layer=depth,
        n_head=heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    given = ids[:, :-1].contiguous()
    yield "transformers", peer.GPT2LMHeadModel(config), lambda m: m(input_ids=given, labels=given).loss
    try:
        from x_transformers import Decoder, TransformerWrapper
    except ImportError:
        print("x-transformers is not installed (pip install 'sevenfold[bench]'): left out")
        return
    layers = Decoder(dim=width, depth=depth, heads=heads, attn_dim_head=width // heads, attn_flash=True)
    wrapped = TransformerWrapper(
        num_tokens=case.ids, max_seq_len=case.tokens, attn_layers=layers, tie_embedding=True, emb_dropout=0.0
    )

    def loss(m: Any) -> Tensor:
        logits = m(ids[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    yield "x-transformers", wrapped, loss


def masks(case: Case, device: str = "cpu") -> Iterator[tuple[str, nn.Module, Callable[[Any], Tensor]]]:
    import transformers as peer

    own = shape(case, "enc")
    width, depth, heads = own["width"], own["depth"], own["block"]["mixer"]["heads"]
    ids = torch.randint(3, case.ids, (case.rows, case.tokens), device=device)
    asked = torch.rand(ids.shape, device=device).argsort(1) < round(0.15 * case.tokens)
    seen, labels = torch.where(asked, 2, ids), torch.where(asked, ids, -100)
    config = peer.BertConfig(
        vocab_size=case.ids,
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        max_position_embeddings=case.tokens,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    yield "transformers BERT", peer.BertForMaskedLM(config), lambda m: m(input_ids=seen, labels=labels).loss
    for name, sparse in (("ModernBERT", False), ("ModernBERT sparse", True)):
        modern = peer.ModernBertConfig(
            vocab_size=case.ids,
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            intermediate_size=8 * width // 3,
            max_position_embeddings=case.tokens,
            sparse_prediction=sparse,
            reference_compile=False,
            pad_token_id=0,
            bos_token_id=0,
            eos_token_id=0,
            cls_token_id=0,
            sep_token_id=0,
        )
        model = peer.ModernBertForMaskedLM(modern)
        yield f"transformers {name}", model, lambda m: m(input_ids=seen, labels=labels).loss


def vision_config(own: dict[str, Any], size: int) -> dict[str, Any]:
    return {
        "hidden_size": own["width"],
        "num_hidden_layers": own["depth"],
        "num_attention_heads": own["block"]["mixer"]["heads"],
        "intermediate_size": 4 * own["width"],
        "image_size": size,
        "patch_size": 16,
    }


def pixels(case: Case, own: dict[str, Any], device: str = "cpu") -> Tensor:
    size = 16 * own["position"]["size"]
    return torch.randn(case.rows, 3, size, size, device=device)


def vits(case: Case, device: str = "cpu") -> Iterator[tuple[str, nn.Module, Callable[[Any], Tensor]]]:
    import transformers as peer

    own = shape(case, "enc")
    seen, labels = pixels(case, own, device), torch.randint(1000, (case.rows,), device=device)
    config = peer.ViTConfig(**vision_config(own, seen.shape[-1]), num_labels=1000)
    model = peer.ViTForImageClassification(config)
    yield "transformers", model, lambda m: m(pixel_values=seen, labels=labels).loss


def maes(case: Case, device: str = "cpu") -> Iterator[tuple[str, nn.Module, Callable[[Any], Tensor]]]:
    import transformers as peer

    own, dec = shape(case, "enc"), shape(case, "dec")
    seen = pixels(case, own, device)
    config = peer.ViTMAEConfig(
        **vision_config(own, seen.shape[-1]),
        decoder_hidden_size=dec["width"],
        decoder_num_hidden_layers=dec["depth"],
        decoder_num_attention_heads=dec["block"]["mixer"]["heads"],
        decoder_intermediate_size=4 * dec["width"],
        norm_pix_loss=True,
    )
    yield "transformers", peer.ViTMAEForPreTraining(config), lambda m: m(pixel_values=seen).loss


def clips(case: Case, device: str = "cpu") -> Iterator[tuple[str, nn.Module, Callable[[Any], Tensor]]]:
    import transformers as peer

    own, text = shape(case, "v"), shape(case, "t")
    seen = pixels(case, own, device)
    ids = torch.randint(3, case.ids, (case.rows, case.tokens), device=device)
    config = peer.CLIPConfig(
        vision_config={**vision_config(own, seen.shape[-1]), "hidden_act": "gelu"},
        text_config={
            "hidden_size": text["width"],
            "num_hidden_layers": text["depth"],
            "num_attention_heads": text["block"]["mixer"]["heads"],
            "intermediate_size": 4 * text["width"],
            "vocab_size": case.ids,
            "max_position_embeddings": case.tokens,
            "hidden_act": "gelu",
        },
        projection_dim=128,
    )
    yield "transformers", peer.CLIPModel(config), lambda m: m(input_ids=ids, pixel_values=seen, return_loss=True).loss


PEERS = {"decoder": decoders, "decoder50k": decoders, "masked": masks, "vit": vits, "mae": maes, "towers": clips}
