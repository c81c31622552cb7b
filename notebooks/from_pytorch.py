"""The torch run of 5-from-pytorch.ipynb: python notebooks/from_pytorch.py

Writes from_pytorch.npz: the weights and the optimizer's state_dict after the first half
and after the second, and the loss of every step. Needs PyTorch, which the notebook does
not.
"""

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from optjax.pytorch import flatten_state_dict

FILE = Path(__file__).with_name("from_pytorch.npz")
STEPS, HALF, BATCH = 400, 200, 64


def main() -> None:
    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images / 16.0, dtype=torch.float32)
    labels = torch.tensor(labels)
    order = np.random.default_rng(0).integers(len(images), size=(STEPS, BATCH))

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 24), torch.nn.ReLU(), torch.nn.Linear(24, 10)
    )
    weights = dict(model.named_parameters())
    groups = [
        {"params": [weights["0.bias"], weights["2.bias"]], "weight_decay": 0.0},
        {"params": [weights["0.weight"], weights["2.weight"]]},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.1, amsgrad=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)

    stored, losses = {}, []
    for step, batch in enumerate(order, 1):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images[batch]), labels[batch])
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
        if step in (HALF, STEPS):
            for name, weight in weights.items():
                stored[f"{step}/weights/{name}"] = weight.detach().numpy().copy()
            for name, value in flatten_state_dict(optimizer.state_dict()).items():
                stored[f"{step}/optimizer/{name}"] = np.array(value)
    np.savez_compressed(FILE, **stored, losses=np.float32(losses))
    print(f"{FILE.name}: loss {losses[HALF - 1]:.3f}, then {losses[-1]:.3f}")


if __name__ == "__main__":
    main()
