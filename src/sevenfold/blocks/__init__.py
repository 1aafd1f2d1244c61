"""The seven building blocks, one room each: tokenization, position, projection, mixing, nonlinearity, normalization, residual."""
