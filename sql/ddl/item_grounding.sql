-- One row is what a detector found in an item's picture, and whether the item was embedded from that part of it. Key: item_id.
-- Written with the embedding if enrich.grounding names a detector. The part that was embedded is the box, enlarged by enrich.grounding.margin.
CREATE TABLE IF NOT EXISTS item_grounding (
  item_id          STRING NOT NULL,
  content_hash     STRING NOT NULL COMMENT 'content of the item that was embedded so, the row is outdated if the item has another one',
  image_hash       STRING NOT NULL COMMENT 'sha256 of the image bytes',
  detector_version STRING COMMENT 'hash of the detector, its settings and what it was asked for, null if it was not asked',
  box              ARRAY<DOUBLE> COMMENT 'x0, y0, x1, y1 that the detector found, as shares of width and height, null if it found nothing',
  score            DOUBLE COMMENT 'confidence of the detector in the box, null if it found nothing',
  kept_whole       BOOLEAN NOT NULL COMMENT 'the whole picture was embedded',
  reason           STRING COMMENT 'why it was kept whole: no_phrase, no_box, low_score, bad_box, detector_failed',
  detail           STRING COMMENT 'one line that explains the reason, if there is more to say',
  run_id           STRING NOT NULL COMMENT 'run that embedded the item so'
)
USING DELTA
TBLPROPERTIES (
  'delta.enableDeletionVectors' = 'true',
  'delta.dataSkippingStatsColumns' = 'item_id,content_hash,image_hash,detector_version,run_id'
);
