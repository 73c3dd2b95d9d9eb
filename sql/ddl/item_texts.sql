-- One row is what a refiner made of an item's title. Key: item_id, refiner_version. It holds as long as text_hash is that of the item's texts.
CREATE TABLE IF NOT EXISTS item_texts (
  item_id         STRING NOT NULL,
  refiner_version STRING NOT NULL COMMENT 'of the rules, or a hash of model, prompts and limits',
  text_hash       STRING NOT NULL COMMENT 'of title, brand, category and attributes, as far as the encoder may read them, and of the picture if the refiner sees it',
  verdict         STRING NOT NULL COMMENT 'refined, kept (nothing to change), refused (the answer failed a check) or failed (no answer, a later run asks again)',
  reason          STRING COMMENT 'of refused and failed, e.g. invented_number',
  detail          STRING COMMENT 'one line that explains the reason',
  title           STRING COMMENT 'the refined title, null for any other verdict',
  rounds          INT NOT NULL COMMENT 'titles that a language model proposed, 0 for rules',
  tokens          BIGINT NOT NULL COMMENT 'that a language model read and wrote for it, 0 for rules',
  run_id          STRING NOT NULL COMMENT 'run that refined it',
  refined_at      TIMESTAMP
)
USING DELTA
TBLPROPERTIES (
  'delta.enableDeletionVectors' = 'true',
  'delta.dataSkippingStatsColumns' = 'item_id,refiner_version,text_hash,verdict,run_id'
);
