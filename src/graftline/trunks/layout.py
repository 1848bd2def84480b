"""What the families share that keep their trunks in the Hugging Face layout."""

from __future__ import annotations


def quiet() -> None:
    """Keep transformers' notes and progress bars out of the components' own output; its errors still raise."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
