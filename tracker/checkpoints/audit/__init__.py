"""Whether checkpoint weights match their names."""
