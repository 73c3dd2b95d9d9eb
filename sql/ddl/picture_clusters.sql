-- One row is a picture that has near-duplicates among the pictures of active items. Key: image_hash. Pictures without any have no row.
-- Written again whenever these pictures or the settings of duplicates have changed.
CREATE TABLE IF NOT EXISTS picture_clusters (
  image_hash     STRING NOT NULL COMMENT 'sha256 of the image bytes',
  canonical_hash STRING NOT NULL COMMENT 'image_hash of the picture that stands for the cluster, the least of the cluster',
  distance       INT NOT NULL COMMENT 'bits in which the perceptual hash differs from that of the canonical picture',
  pictures       BIGINT NOT NULL COMMENT 'pictures of the cluster, this one included',
  run_id         STRING NOT NULL COMMENT 'run that wrote the table'
)
USING DELTA
TBLPROPERTIES (
  'delta.dataSkippingStatsColumns' = 'image_hash,canonical_hash'
);
