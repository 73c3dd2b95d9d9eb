-- One row is an item as it was last seen in the catalog. Key: item_id. Items that leave the catalog become inactive; they are not deleted.
-- source_fingerprint is 'fields:picture', two hashes. The picture is read again only if its hash is new.
CREATE TABLE IF NOT EXISTS catalog_items (
  item_id            STRING NOT NULL,
  title              STRING,
  brand              STRING,
  category           STRING COMMENT 'path, levels joined by " > "',
  attributes         MAP<STRING, STRING>,
  image_uri          STRING COMMENT 'absolute path or URI, null for inline bytes',
  image_size         BIGINT COMMENT 'bytes of the encoded image, 0 without image',
  image_hash         STRING COMMENT 'sha256 of the image bytes, null without image',
  metadata_text      STRING COMMENT 'text that the encoder reads: the fields of metadata.fields, in fixed order, with the refined title and the generated attributes if there are any',
  encoder_title      STRING COMMENT 'title that the encoder reads, empty if metadata.fields leaves it out',
  group_id           STRING,
  variant_id         STRING,
  slices             MAP<STRING, STRING> COMMENT 'source columns of catalog.slice_columns',
  source_fingerprint STRING COMMENT 'changes if the source row or its picture may have changed',
  content_hash       STRING NOT NULL COMMENT 'of image bytes and normalised metadata, changes if the item must be embedded again',
  first_seen         TIMESTAMP,
  last_seen          TIMESTAMP COMMENT 'start of the last run that wrote this row, or for an inactive item of the last run that saw it',
  last_run_id        STRING COMMENT 'last run that wrote this row, which is written only if something changed',
  is_active          BOOLEAN,
  image_bytes        BINARY COMMENT 'only if the source has no URI',
  additional_images  ARRAY<STRING> COMMENT 'further pictures of the item, as found (only the first picture is embedded)',
  refined_title      STRING COMMENT 'title that the enrich step has put in place of the one in the column title, null if the encoder reads that one',
  source_hash        STRING COMMENT 'content_hash before enrichment, by which ingest detects changes, null in rows of earlier versions',
  generated_attributes MAP<STRING, STRING> COMMENT 'attributes that the enrich step has added to those of the column attributes, null if the encoder reads only these'
)
USING DELTA
TBLPROPERTIES (
  'delta.enableDeletionVectors' = 'true',
  'delta.dataSkippingStatsColumns' = 'item_id,category,content_hash,last_run_id'
);
