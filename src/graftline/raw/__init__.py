"""Raw data from outside, of any format: one file a format, read in batches of bounded size."""
