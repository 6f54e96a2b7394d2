"""Measurements that the README quotes. Not installed, and never run as tests: a busy machine would fail them."""
