"""What computes: configuration, weights, the forward pass, log-probabilities, loading and saving."""
