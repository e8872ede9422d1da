"Exercises, copies of the lessons, grading."
