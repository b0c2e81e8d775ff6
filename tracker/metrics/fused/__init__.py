"""All metrics of a layer in one pass over its attention."""
