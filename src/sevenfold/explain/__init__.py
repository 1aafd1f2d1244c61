"""Seeing inside: what a tokenizer, a position or a model does, computed by the real parts and drawn."""
