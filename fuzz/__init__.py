"""Fuzzers: `make fuzz`."""
