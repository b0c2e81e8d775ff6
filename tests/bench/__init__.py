"""What measuring costs, against the bare forward pass and against other ways to get the same numbers.

``python -m tests.bench`` from the repository's root runs all of it and prints tables.
"""
