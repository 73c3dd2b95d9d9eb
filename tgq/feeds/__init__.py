"""Feed files as rows: CSV, JSON, Parquet and XML, read so that every row is either whole or refused with its reason."""
