"""Pictures for the checks of a step's products: the figure behind a URL, a thumbnail of it beside the numbers.

Belongs here: which product is shown by which figure. Doesn't: drawing (`validation.figures`).
"""
