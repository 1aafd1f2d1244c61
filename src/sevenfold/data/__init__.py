"""From files to batches: sources read files, views change raw items, the loader orders, packs and collates them."""
