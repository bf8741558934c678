"""A trained model in use: replies as they are sampled, a chat in the terminal, an OpenAI-compatible server."""
