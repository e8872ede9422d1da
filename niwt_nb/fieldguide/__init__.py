"A drawn world of birds, made by the package, in which everything is known."
