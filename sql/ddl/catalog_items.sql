-- One row is an item as it was last seen. Key: item_id. Vanished items become inactive, never deleted.
-- source_fingerprint is 'fields:picture', two hashes: only where the second is new is the picture read again.
CREATE TABLE IF NOT EXISTS catalog_items (
  item_id            STRING NOT NULL,
  title              STRING,
  brand              STRING,
  category           STRING COMMENT 'path, levels joined by " > "',
  attributes         MAP<STRING, STRING>,
  image_uri          STRING COMMENT 'as resolved against the catalog, null for inline bytes',
  image_size         BIGINT COMMENT 'encoded bytes, 0 without image',
  image_hash         STRING COMMENT 'sha256 of the image bytes, null without image',
  metadata_text      STRING COMMENT 'what the encoder reads: fields chosen by metadata.*, in fixed order',
  encoder_title      STRING COMMENT 'the title as the encoder reads it, empty where metadata.fields leaves it out',
  group_id           STRING,
  variant_id         STRING,
  slices             MAP<STRING, STRING> COMMENT 'source columns kept for metric slices',
  source_fingerprint STRING COMMENT 'cheap: decides what is read again',
  content_hash       STRING NOT NULL COMMENT 'image bytes + normalised metadata: decides what is embedded again',
  first_seen         TIMESTAMP,
  last_seen          TIMESTAMP COMMENT 'begin of the last run that wrote this row, or once inactive of the last run that saw it',
  last_run_id        STRING COMMENT 'the last run that wrote this row (active items are in the last snapshot whether it was written or not)',
  is_active          BOOLEAN,
  image_bytes        BINARY COMMENT 'only where the source has no URI',
  additional_images  ARRAY<STRING> COMMENT 'further pictures of the item, as found (only the first picture is embedded)'
)
USING DELTA
TBLPROPERTIES (
  'delta.enableDeletionVectors' = 'true',
  'delta.dataSkippingStatsColumns' = 'item_id,category,content_hash,last_run_id'
);
