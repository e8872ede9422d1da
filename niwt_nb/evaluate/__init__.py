"Rival methods and fair comparison."
