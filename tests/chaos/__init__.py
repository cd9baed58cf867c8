"""Faults against the real broker while events flow, and an oracle that says what became of each of them."""
