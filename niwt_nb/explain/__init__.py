"Explanations in pictures and words, and what can be done with them."
