"What the package costs on this machine, beside peers and the least that is possible: `python -m benchmarks`."
