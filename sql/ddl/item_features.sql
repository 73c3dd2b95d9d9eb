-- One row is the pooled features of an item by the frozen towers, from which the baselines are computed. Key: item_id, tower_version.
CREATE TABLE IF NOT EXISTS item_features (
  item_id        STRING NOT NULL,
  tower_version  STRING NOT NULL COMMENT 'fingerprint of both towers and their preprocessing',
  content_hash   STRING NOT NULL,
  run_id         STRING NOT NULL,
  image_features BINARY COMMENT 'float16, little-endian, null without image',
  text_features  BINARY COMMENT 'float16, little-endian, null without text'
)
USING DELTA
TBLPROPERTIES (
  'delta.enableDeletionVectors' = 'true',
  'delta.dataSkippingStatsColumns' = 'item_id,tower_version,content_hash'
);
