"""Cross-entropy on solutions, given or one's own, and on another model's distribution."""
