-- The feature cache. One row is the output of a frozen tower for a picture or for an item's texts. Key: fingerprint, source_hash.
-- A new connector embeds the catalog from it. Its size is limited by features.max_gb. Deleted rows are computed again when needed.
CREATE TABLE IF NOT EXISTS tower_features (
  fingerprint STRING NOT NULL COMMENT 'of the tower, over weights and preprocessing, with -parts- and a version where pictures are kept as parts of composed scenes',
  source_hash STRING NOT NULL COMMENT 'sha256 of the image bytes, or of metadata text, NUL, title',
  tokens      BINARY COMMENT 'four bytes with the number of tokens, then float16, little-endian, zstd',
  mask        BINARY COMMENT 'for texts: a byte per position, 1 for a token and 0 for padding',
  pooled      BINARY COMMENT 'float16, little-endian',
  title       BINARY COMMENT 'for texts: pooled features of the title alone, float16, little-endian',
  bytes       INT,
  run_id      STRING NOT NULL
)
USING DELTA
PARTITIONED BY (fingerprint)
TBLPROPERTIES (
  'delta.deletedFileRetentionDuration' = 'interval 0 hours',
  'delta.dataSkippingStatsColumns' = 'source_hash,bytes,run_id'
);
