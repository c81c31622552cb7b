"""A recipe: batches, epochs, the learning rate's drop, L2 and clipping."""

import math
from typing import NamedTuple

import jax
import optax

from optjax._arguments.checked import check_positive
from optjax.sweep._epochs import updates_an_epoch
from optjax.sweep._trial import Factory
from optjax.tasks._task import Settings

#: What Luo et al. found for DenseNet-121 and ResNet-34 on CIFAR-10; AdaBound's and
#: AMSBound's final_lr is 0.1, the default.
PAPER_RATES = {
    "momentum": (0.1,),
    "adam": (1e-3,),
    "amsgrad": (1e-3,),
    "adabound": (1e-3,),
    "amsbound": (1e-3,),
}


class Recipe(NamedTuple):
    """How to train on a number of examples, whatever the optimizer.

    Attributes:
      batch_size: examples an update.
      epochs: how long.
      decay_after: the epochs at the full learning rate; then it is a tenth.
      weight_decay: λ of the L2 penalty λ|x|²/2, added to the gradient as λx.
      clip_norm: the largest norm of a loss gradient, before λx is added; longer ones
        are scaled down to it. `math.inf` clips nothing.

    Example:
      >>> import optjax
      >>> from optjax.tasks import Recipe
      >>> recipe = Recipe(batch_size=32, epochs=20, decay_after=15, weight_decay=1e-4)
      >>> recipe.updates_an_epoch(examples=1000)
      31
      >>> optimizer = recipe.applied(optjax.adam, examples=1000)(learning_rate=1e-3)
    """

    batch_size: int
    epochs: int
    decay_after: int
    weight_decay: float = 0.0
    clip_norm: float = math.inf

    def __str__(self) -> str:
        return (
            f"batches of {self.batch_size}, {self.epochs} epochs, learning rate × 0.1 "
            f"after {self.decay_after}, L2 {self.weight_decay:g}"
        )

    def scaled(self, settings: Settings) -> "Recipe":
        """With the user's batches and epochs, and the drop at the same share of them.

        Raises:
          ValueError: where the user's epochs are fewer than 1.
        """
        batch_size, epochs = settings.batch_size, settings.epochs
        recipe = self if batch_size is None else self._replace(batch_size=batch_size)
        if epochs is None:
            return recipe
        if epochs < 1:
            raise ValueError(f"there must be at least 1 epoch, got {epochs}")
        decay_after = max(1, self.decay_after * epochs // self.epochs)
        return recipe._replace(epochs=epochs, decay_after=decay_after)

    def updates_an_epoch(self, examples: int) -> int:
        """How many updates an epoch has; its last, incomplete batch is left out.

        Raises:
          ValueError: where a batch is larger than the data.
        """
        return updates_an_epoch(examples, self.batch_size)

    def applied(self, factory: Factory, examples: int) -> Factory:
        """The optimizer's factory with the drop of the learning rate, L2 and clipping.

        `factory` is called with a schedule as `learning_rate`.

        Raises:
          ValueError: where `decay_after` is not positive, or a batch is larger than the
            data.
        """
        check_positive("It counts epochs", decay_after=self.decay_after)
        drop = self.decay_after * self.updates_an_epoch(examples)

        def with_recipe(
            learning_rate: jax.Array | float, **hyper: jax.Array | float
        ) -> optax.GradientTransformation:
            schedule = optax.piecewise_constant_schedule(learning_rate, {drop: 0.1})
            return optax.chain(
                optax.identity()
                if self.clip_norm == math.inf
                else optax.clip_by_global_norm(self.clip_norm),
                optax.add_decayed_weights(self.weight_decay),
                factory(learning_rate=schedule, **hyper),
            )

        return with_recipe
