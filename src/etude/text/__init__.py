"""From text to tokens and back: tokenizer and chat template."""
