"""The stacked network: its optimizer against torch's own, its answers row by row, its replays from arrays."""

from __future__ import annotations

import numpy as np
import pytest

from trainers.models import BETAS, EPSILON, Mlp
from trainers.spec import Network

torch = pytest.importorskip("torch")
SPEC = Network(hidden=(8, 8), embedding=3, steps=5, batch=32, decay=0.01)


def samples(count: int = 200, keys: int = 4):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    rows = rng.integers(0, keys, count)
    x = rng.normal(size=(count, 6)).astype(np.float32)
    return x, (x[:, 0] + 0.3 * rows).astype(np.float32), rows


def network(keys: int = 4) -> Mlp:
    mlp = Mlp(SPEC, 6, seed=3)
    mlp.grow(keys)
    return mlp


def test_it_starts_as_the_profile() -> None:
    x, _, rows = samples()
    assert not network().predict(rows, x.astype(np.float64)).any()


def test_replays_learn_and_embeddings_tell_keys_apart() -> None:
    mlp, (x, y, rows) = network(), samples(2000)
    for _ in range(120):
        mlp.replay(x, y, rows)
    assert np.abs(mlp.predict(rows, x.astype(np.float64)) - y).mean() < 0.25
    assert np.abs(np.diff(mlp.served()["embedding"], axis=0)).max() > 0.01


def test_the_optimizer_is_torchs_adamw() -> None:
    mlp, (x, y, rows) = network(), samples()
    weights = {name: torch.from_numpy(mlp.arrays[name].copy()).requires_grad_() for name in mlp.names}
    optimizer = torch.optim.AdamW(
        weights.values(), lr=SPEC.rate, betas=BETAS, eps=EPSILON, weight_decay=SPEC.decay, foreach=False
    )
    for replay in range(3):
        picks = np.random.Generator(np.random.Philox(key=[3, 1 + replay])).integers(0, len(x), (5, 32))
        for pick in picks:
            out = mlp._forward(weights, torch.from_numpy(x[pick]), torch.from_numpy(rows[pick]))
            optimizer.zero_grad()
            (out - torch.from_numpy(y[pick])).abs().mean().backward()
            optimizer.step()
        mlp.replay(x, y, rows)
    for name, weight in weights.items():
        np.testing.assert_allclose(mlp.arrays[name], weight.detach().numpy(), atol=2e-6, err_msg=name)


def test_an_answer_does_not_depend_on_its_neighbours() -> None:
    mlp, (x, y, rows) = network(), samples()
    mlp.replay(x, y, rows)
    wide = x.astype(np.float64)
    whole = mlp.predict(rows, wide)
    for size in (1, 3, 17):
        parts = [mlp.predict(rows[i : i + size], wide[i : i + size]) for i in range(0, len(wide), size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_the_arrays_are_the_whole_state() -> None:
    one, (x, y, rows) = network(), samples()
    one.replay(x, y, rows)
    two = Mlp(SPEC, 6, seed=3)
    two.restore("mlp", one.snapshot("mlp"))
    for mlp in (one, two):
        mlp.grow(9)
        mlp.replay(x, y, rows + 5)
    assert all(one.arrays[name].tobytes() == two.arrays[name].tobytes() for name in one.arrays)


def test_torch_settings_are_given_back() -> None:
    threads = torch.get_num_threads()
    x, y, rows = samples()
    network().replay(x, y, rows)
    assert torch.get_num_threads() == threads
    assert torch.get_deterministic_debug_mode() == 0


def test_the_compiler_is_not_imported() -> None:
    """It costs 3.7 CPU seconds at a trainer's start, for nothing."""
    import subprocess
    import sys

    code = (
        "import sys, numpy as np; from trainers.models import Mlp; from trainers.spec import Network;"
        "m = Mlp(Network(), 3, 0); m.grow(1); assert 'torch' not in sys.modules;"
        "m.replay(np.ones((9, 3), 'f'), np.ones(9, 'f'), np.zeros(9, 'q')); assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
