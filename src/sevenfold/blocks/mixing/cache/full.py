"""All keys and values, as they are, in memory that is taken once.

    slot(i) = i                         2 n kv d_h numbers for n tokens

Pope 2022, arXiv:2211.05102 section 3.3 (what is kept, and why grouped queries shrink it). Every decoder.
"""

from __future__ import annotations

from sevenfold.blocks.mixing.cache import Cache


class Full(Cache):
    class Config(Cache.Config):
        pass
