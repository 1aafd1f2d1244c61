"""Wiring: blocks into trunks, trunks and heads into a model. Encoders, decoders, towers and fusions are settings here."""
