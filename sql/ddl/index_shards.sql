-- One row is a published FAISS file of a generation. Key: generation, category, shard.
CREATE TABLE IF NOT EXISTS index_shards (
  generation         STRING NOT NULL,
  model_version      STRING NOT NULL,
  category           STRING NOT NULL,
  shard              INT NOT NULL,
  path               STRING NOT NULL COMMENT 'relative to the warehouse',
  sha256             STRING NOT NULL,
  n_items            BIGINT NOT NULL,
  factory            STRING NOT NULL COMMENT 'FAISS factory string',
  recall_at_k        DOUBLE COMMENT 'against exact search, on a sample',
  embeddings_version BIGINT COMMENT 'Delta version of item_embeddings that the shard was built from',
  run_id             STRING NOT NULL,
  published_at       TIMESTAMP
)
USING DELTA;
