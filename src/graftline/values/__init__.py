"""Values: what a column of a task's raw data may hold, how it is read, checked, hashed and profiled."""
