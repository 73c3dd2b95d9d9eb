-- One row is what was generated for an attribute that an item lacks. Key: item_id, key, source_version.
-- It holds as long as text_hash and image_hash are those of the item.
CREATE TABLE IF NOT EXISTS item_attributes_generated (
  item_id        STRING NOT NULL,
  key            STRING NOT NULL COMMENT 'name of the attribute, (unknown) for names that a language model was not asked for',
  source_version STRING NOT NULL COMMENT 'of the heads and their threshold, or a hash of language model, prompt and schemas',
  text_hash      STRING NOT NULL COMMENT 'of title, brand, category and attributes, as far as the encoder may read them',
  image_hash     STRING COMMENT 'sha256 of the image bytes, null without image, and if the source sees no images',
  verdict        STRING NOT NULL COMMENT 'said (the value is used), silent (not sure enough), refused (the answer failed a check) or failed (no answer, a later run asks again)',
  reason         STRING COMMENT 'of refused and failed, e.g. invented_number',
  detail         STRING COMMENT 'one line that explains the reason',
  value          STRING COMMENT 'the value, null for any verdict but said and silent, and for what a language model leaves out',
  score          DOUBLE COMMENT 'calibrated probability that the value is right, null for a language model',
  tokens         BIGINT NOT NULL COMMENT 'that a language model read and wrote for the item, on the first of its rows, 0 otherwise',
  run_id         STRING NOT NULL COMMENT 'run that generated it',
  generated_at   TIMESTAMP
)
USING DELTA
TBLPROPERTIES (
  'delta.enableDeletionVectors' = 'true',
  'delta.dataSkippingStatsColumns' = 'item_id,key,source_version,verdict,run_id'
);
