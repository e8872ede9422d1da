"Explorers for a notebook."
