"""The language model: characters in, stacked LSTMs, the next characters out."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

__all__ = ["CharLSTM"]


class CharLSTM(nnx.Module):
    """An embedding, `layers` LSTMs on top of each other, and logits.

    Args:
      characters: how many there are in the vocabulary.
      layers: how many LSTMs.
      hidden: the units of each, and the size of the embedding.
      dtype: of the products; parameters, LSTM states and logits are float32.
      rngs: for the parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from optjax.tasks.models import CharLSTM
      >>> model = CharLSTM(65, layers=2, hidden=32, rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((4, 10), jnp.int32)).shape
      (4, 10, 65)
    """

    def __init__(
        self,
        characters: int,
        *,
        layers: int = 1,
        hidden: int = 256,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.embedding = nnx.Embed(characters, hidden, dtype=dtype, rngs=rngs)
        self.cells = nnx.List(
            nnx.OptimizedLSTMCell(hidden, hidden, dtype=dtype, rngs=rngs)
            for _ in range(layers)
        )
        self.logits = nnx.Linear(hidden, characters, rngs=rngs)

    def __call__(self, ids: jax.Array) -> jax.Array:
        """Map ids (n, time) to logits (n, time, characters), from a state of zeros.

        The logits at time t are for the character at t + 1, and know those up to t.
        """

        def advance(states: Any, x: jax.Array) -> tuple[Any, jax.Array]:
            after = []
            for cell, state in zip(self.cells, states, strict=True):
                state, x = cell(state, x)
                after.append(state)
            return after, x

        # In float32, since a cell's memory is a sum over the time.
        zeros = jnp.zeros((len(ids), self.cells[0].hidden_features), jnp.float32)
        _, x = jax.lax.scan(
            advance,
            [(zeros, zeros) for _ in self.cells],
            self.embedding(ids).swapaxes(0, 1),
        )
        return self.logits(x.astype(jnp.float32).swapaxes(0, 1))
