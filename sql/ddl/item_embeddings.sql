-- One row is the embedding of an item by a model. Key: item_id, model_version. The vector is the last column and has no statistics.
CREATE TABLE IF NOT EXISTS item_embeddings (
  item_id          STRING NOT NULL,
  model_version    STRING NOT NULL,
  content_hash     STRING NOT NULL,
  category         STRING,
  has_image        BOOLEAN,
  agreement        FLOAT COMMENT 'cosine of image and title, null if one is missing',
  gate_metadata    FLOAT COMMENT 'mean 1 + beta of the metadata gate, in (0, 2)',
  gate_exploratory FLOAT COMMENT 'mean 1 + beta of the exploratory gate, in (0, 2)',
  run_id           STRING NOT NULL,
  embedded_at      TIMESTAMP,
  embedding        ARRAY<FLOAT> COMMENT 'unit length, float32'
)
USING DELTA
TBLPROPERTIES (
  'delta.enableDeletionVectors' = 'true',
  'delta.dataSkippingStatsColumns' = 'item_id,model_version,content_hash,category,run_id'
);
