"""etude trains a language model on its own checked attempts, and compares ways of doing so."""

__version__ = "0.2.0"
