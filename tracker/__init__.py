"""tracker: watches transformers grow up, checkpoint by checkpoint."""
