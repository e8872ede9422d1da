"Data sets: images, labels, classes and what is known about the classes."
