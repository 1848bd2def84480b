"""An image in, the objects in it out: a box, a class and a probability each, and a mask where the data have masks."""
