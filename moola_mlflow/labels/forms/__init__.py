"""Forms of labels other than parquet: CSV of times, Label Studio, published batches. Each is read and checked alike."""
