"""One checkpoint in, one measurement out."""
