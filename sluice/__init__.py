"""Sluice: the value of a stream gets out, the people in it do not.

Three lines to a verified forecast:

    import sluice
    model = sluice.subscribe("traffic")
    print(model.forecast("d-401190"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.errors import SluiceError

if TYPE_CHECKING:
    from trainers.subscriber import Subscription

__all__ = ["SluiceError", "__version__", "subscribe"]
__version__ = "0.1.0"


def subscribe(task: str, *, home: str | None = None) -> Subscription:
    """Follow the signed models of `task`; see `trainers.subscriber.subscribe` for what is returned and raised.

    The broker and the password come from `SLUICE_*` variables or `$SLUICE_HOME/stack.json`.
    """
    from pathlib import Path

    from sluice.settings import load
    from trainers.subscriber import subscribe as follow

    settings = load(home=Path(home) if home else None)
    return follow(task, settings.connection("subscriber"), home=settings.home)
