"Neuron Importance-Aware Weight Transfer, step by step, and the estimator."
