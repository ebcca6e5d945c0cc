"""Compute an embedding with all-MiniLM-L6-v2 in numpy, and print it as JSON. Arguments: text, repositories or folders.

Runs in the environment of the newest client: transformers, tokenizers and safetensors, without torch. A repository is
read as its users do: transformers loads the configuration and the tokenizer, huggingface_hub downloads the weights.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import hf_hub_download
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoTokenizer  # type: ignore[import-not-found]

type Matrix = np.ndarray[Any, np.dtype[Any]]


class Bert:
    """The encoder of BERT (https://arxiv.org/abs/1810.04805), with post-layer normalization."""

    def __init__(self, weights: dict[str, Matrix], heads: int, layers: int, epsilon: float) -> None:
        self._weights = weights
        self._heads = heads
        self._layers = layers
        self._epsilon = epsilon

    def encode(self, tokens: Matrix) -> Matrix:
        """Return one vector for each token."""
        table = [self._weights[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")]
        states = self._normalize("embeddings.LayerNorm", table[0][tokens] + table[1][: len(tokens)] + table[2][0])
        for number in range(self._layers):
            layer = f"encoder.layer.{number}"
            attended = self._apply(f"{layer}.attention.output.dense", self._attend(f"{layer}.attention.self", states))
            states = self._normalize(f"{layer}.attention.output.LayerNorm", states + attended)
            hidden = _compute_gelu(self._apply(f"{layer}.intermediate.dense", states))
            states = self._normalize(f"{layer}.output.LayerNorm", states + self._apply(f"{layer}.output.dense", hidden))
        return states

    def _attend(self, name: str, states: Matrix) -> Matrix:
        query, key, value = (
            self._apply(f"{name}.{part}", states).reshape(len(states), self._heads, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(1, 2) / np.sqrt(query.shape[-1])
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        attended: Matrix = (shares @ value).swapaxes(0, 1).reshape(len(states), -1)
        return attended

    def _apply(self, name: str, states: Matrix) -> Matrix:
        return states @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _normalize(self, name: str, states: Matrix) -> Matrix:
        centered = states - states.mean(-1, keepdims=True)
        scaled = centered / np.sqrt(centered.var(-1, keepdims=True) + self._epsilon)
        normalized: Matrix = scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return normalized


def _compute_gelu(values: Matrix) -> Matrix:
    """The approximation by tanh, which differs from the exact function by less than 1e-3."""
    result: Matrix = 0.5 * values * (1 + np.tanh(np.sqrt(2 / np.pi) * (values + 0.044715 * values**3)))
    return result


def embed(model: str, text: str) -> list[float]:
    configuration = AutoConfig.from_pretrained(model)
    tokens = np.array(AutoTokenizer.from_pretrained(model)(text)["input_ids"])
    folder = Path(model)
    name = "model.safetensors"
    weights = load_file(folder / name if folder.is_dir() else hf_hub_download(model, name))
    bert = Bert(
        weights, configuration.num_attention_heads, configuration.num_hidden_layers, configuration.layer_norm_eps
    )
    embedding = bert.encode(tokens).mean(0)
    normalized: list[float] = (embedding / np.linalg.norm(embedding)).tolist()
    return normalized


if __name__ == "__main__":
    print(json.dumps([embed(model, sys.argv[1]) for model in sys.argv[2:]]))
