"""Check-ins on disk and in memory: readers, filters, split, windows, negatives, teacher cache, batches."""
