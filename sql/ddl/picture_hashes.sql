-- One row is a picture that was decoded while duplicates.enabled was set. Key: image_hash. A picture has the same row whichever items and models use it.
CREATE TABLE IF NOT EXISTS picture_hashes (
  image_hash      STRING NOT NULL COMMENT 'sha256 of the image bytes',
  perceptual_hash BIGINT NOT NULL COMMENT '64 bits that stay almost the same if the picture is encoded again or resized, 0 for one without structure',
  colour          INT NOT NULL COMMENT 'mean colour of what differs from the corners of the picture, red * 65536 + green * 256 + blue',
  run_id          STRING NOT NULL COMMENT 'run that decoded it'
)
USING DELTA
TBLPROPERTIES (
  'delta.dataSkippingStatsColumns' = 'image_hash,run_id'
);
