"Networks cut at a layer: loading, training, heads, export."
