"""The stacked core: one small network for all keys, with an embedding of the key. The only file that needs
torch.

It answers with moving averages of its weights, computed in numpy row by row; torch trains on replays. Each
replay builds its tensors from arrays and writes them back, so the arrays are the whole state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainers.keyed import Array, Rows
from trainers.spec import Network

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float64]
Halves = NDArray[np.float32]
MOMENTS = ("", "average.", "first.", "second.")  # trained, served, and AdamW's two moments
BETAS, EPSILON = (0.9, 0.999), 1e-8


class Mlp:
    """SiLU network [inputs + embedding] -> hidden... -> 1, in units of `Public.unit` against the profile.

    The last layer starts at 0: before its first replay the network forecasts the profile. Embeddings start
    at 0, so a new key starts as the average one.
    """

    def __init__(self, spec: Network, inputs: int, seed: int) -> None:
        self._spec, self._seed = spec, seed
        self.steps = 0  # gradient steps so far
        self.rounds = 0  # replays so far
        rng = np.random.Generator(np.random.Philox(key=[seed, 0]))
        sizes = [inputs + spec.embedding, *spec.hidden, 1]
        self._layers = len(sizes) - 1
        start: dict[str, Halves] = {"embedding": np.zeros((0, spec.embedding), np.float32)}
        for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            bound = 0.0 if layer == self._layers - 1 else fan_in**-0.5  # torch's default for a linear layer
            start[f"weight{layer}"] = rng.uniform(-bound, bound, (fan_in, fan_out)).astype(np.float32)
            start[f"bias{layer}"] = rng.uniform(-bound, bound, fan_out).astype(np.float32)
        self.names = tuple(start)
        self.arrays = {
            moment + name: array.copy() if moment in MOMENTS[:2] else np.zeros_like(array)
            for moment in MOMENTS
            for name, array in start.items()
        }
        self._serve()

    def grow(self, keys: int) -> None:
        """Embeddings for at least `keys` keys."""
        for moment in MOMENTS:
            old = self.arrays[moment + "embedding"]
            if keys > len(old):
                new = np.zeros((keys - len(old), old.shape[1]), old.dtype)
                self.arrays[moment + "embedding"] = np.concatenate([old, new])
        self._serve()

    def served(self) -> dict[str, Halves]:
        """The weights that answer: `embedding` [K, E], `weight{i}` [in, out], `bias{i}` [out]."""
        return {name: self.arrays["average." + name] for name in self.names}

    def predict(self, rows: Rows, x: Floats) -> Floats:
        """float64 [N] for inputs float64 [N, F]. Row i depends on row i only, bit for bit: one fixed-shape
        product each.
        """
        h = np.concatenate([x, self._served["embedding"][rows]], axis=1)[:, None, :]
        for layer in range(self._layers):
            h = np.matmul(h, self._served[f"weight{layer}"]) + self._served[f"bias{layer}"]
            if layer < self._layers - 1:
                h = h / (1 + np.exp(-h))
        result: Floats = h[:, 0, 0]
        return result

    def replay(self, x: Halves, targets: Halves, rows: NDArray[np.int64]) -> None:
        """`steps` gradient steps on the mean absolute error over random batches of the N samples. N >= 1.

        The batches depend on the seed and on the number of replays so far, on nothing else.
        """
        import torch

        rng = np.random.Generator(np.random.Philox(key=[self._seed, 1 + self.rounds]))
        picks = rng.integers(0, len(x), (self._spec.steps, self._spec.batch))
        with _one_thread():
            tensors = {name: torch.from_numpy(array.copy()) for name, array in self.arrays.items()}
            trained = {name: tensors[name].requires_grad_() for name in self.names}
            data = torch.from_numpy(x), torch.from_numpy(targets), torch.from_numpy(rows)
            for pick in torch.from_numpy(picks):
                inputs, wanted, keys = (part[pick] for part in data)
                loss = (self._forward(trained, inputs, keys) - wanted).abs().mean()
                gradients = torch.autograd.grad(loss, list(trained.values()))
                with torch.no_grad():
                    self._descend(tensors, dict(zip(self.names, gradients, strict=True)))
            self.arrays = {name: tensor.detach().numpy().copy() for name, tensor in tensors.items()}
        self.rounds += 1
        self._serve()

    def snapshot(self, prefix: str) -> dict[str, Array]:
        counts = {f"{prefix}.counts": np.array([self.steps, self.rounds], np.int64)}
        return counts | {f"{prefix}.{name}": array.copy() for name, array in self.arrays.items()}

    def restore(self, prefix: str, state: Mapping[str, Array]) -> None:
        """Take over what `snapshot` gave. Raises ValueError where a shape differs."""
        self.steps, self.rounds = (int(count) for count in state[f"{prefix}.counts"])
        for name, old in self.arrays.items():
            array = np.array(state[f"{prefix}.{name}"], np.float32, order="C", copy=True)
            if array.shape[1:] != old.shape[1:] or ("embedding" not in name and array.shape != old.shape):
                raise ValueError(f"{prefix}.{name} has shape {list(array.shape)}, not of this task")
            self.arrays[name] = array
        self._serve()

    def _forward(
        self, weights: Mapping[str, torch.Tensor], x: torch.Tensor, keys: torch.Tensor
    ) -> torch.Tensor:
        import torch

        h = torch.cat([x, torch.nn.functional.embedding(keys, weights["embedding"])], dim=1)
        for layer in range(self._layers):
            h = torch.addmm(weights[f"bias{layer}"], h, weights[f"weight{layer}"])
            if layer < self._layers - 1:
                h = torch.nn.functional.silu(h)
        return h[:, 0]

    def _descend(self, tensors: Mapping[str, torch.Tensor], gradients: Mapping[str, torch.Tensor]) -> None:
        """One step of AdamW (Loshchilov and Hutter 2019, algorithm 2), and of the moving average.

        Not torch.optim: its first use imports torch's compiler, 3.8 CPU seconds. It is the oracle of a test.
        """
        self.steps += 1
        spec, (beta1, beta2) = self._spec, BETAS
        step = spec.rate / (1 - beta1**self.steps)
        keep = min(spec.average, (1 + self.steps) / (10 + self.steps))
        for name, gradient in gradients.items():
            weight, first, second = tensors[name], tensors["first." + name], tensors["second." + name]
            weight.mul_(1 - spec.rate * spec.decay)
            first.lerp_(gradient, 1 - beta1)
            second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            scale = (second.sqrt() / (1 - beta2**self.steps) ** 0.5).add_(EPSILON)
            weight.addcdiv_(first, scale, value=-step)
            tensors["average." + name].lerp_(weight, 1 - keep)

    def _serve(self) -> None:
        self._served = {name: array.astype(np.float64) for name, array in self.served().items()}


def preload() -> None:
    """Import torch, beside other work: the first replay would wait 2.5 CPU seconds for it, after every restart."""
    with suppress(ImportError):  # said where it is needed
        import torch  # noqa: F401


@contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread and deterministic kernels inside; the caller's settings after."""
    import torch

    # set_deterministic_debug_mode does what use_deterministic_algorithms does, without its import of torch's
    # compiler (3.7 CPU seconds)
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.set_num_threads(threads)
