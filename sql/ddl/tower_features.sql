-- One row is what a frozen tower said of one picture or of one item's texts: what lets a new connector embed without a tower.
-- Key: fingerprint, source_hash. Kept within features.max_gb; nothing is lost with a row but the time to make it again.
CREATE TABLE IF NOT EXISTS tower_features (
  fingerprint STRING NOT NULL COMMENT 'of the tower that said it: weights and preprocessing',
  source_hash STRING NOT NULL COMMENT 'sha256 of the image bytes, or of metadata text, NUL, title',
  tokens      BINARY COMMENT 'float16, little-endian, zstd, after four bytes that hold their number',
  mask        BINARY COMMENT 'of a text: a byte per position, 1 where a token stands',
  pooled      BINARY COMMENT 'float16, little-endian',
  title       BINARY COMMENT 'of a text: the title alone, float16, little-endian',
  bytes       INT,
  run_id      STRING NOT NULL
)
USING DELTA
PARTITIONED BY (fingerprint)
TBLPROPERTIES (
  'delta.deletedFileRetentionDuration' = 'interval 0 hours',
  'delta.dataSkippingStatsColumns' = 'source_hash,bytes,run_id'
);
