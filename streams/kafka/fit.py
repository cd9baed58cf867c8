"""How large a transaction may be, where a quota or a slow disk lets large ones time out."""

from __future__ import annotations


class Fit:
    """`most`: rows a transaction; None as long as none has failed for its size. Without it the same rows would be tried
    again, and fail, for ever.
    """

    def __init__(self, enough: int) -> None:
        """`enough`: no transaction is larger."""
        self._enough = enough
        self.most: int | None = None

    def took(self, rows: int, part: float, done: bool) -> None:
        """A transaction of so many rows took this part of its timeout. After a failure a quarter is tried; twice
        that behind each which fills half of the bound and is quick."""
        if not done and part > 0.5:
            self.most = max(1, rows // 4)
        elif done and self.most is not None and part < 0.25 and rows * 2 >= self.most:
            self.most = self.most * 2 if self.most * 2 < self._enough else None
