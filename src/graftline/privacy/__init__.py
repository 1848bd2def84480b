"""What a model gives away of the rows it learned from: a bound by differential privacy, and what an attack finds."""
