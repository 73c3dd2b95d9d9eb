-- One row is an input that could not be used, at any stage. Key: run_id, stage, item_id, occurrence.
-- At ingest, source_fingerprint has a third part, the limits it was judged by: same fingerprint, same verdict.
CREATE TABLE IF NOT EXISTS quarantine (
  run_id             STRING NOT NULL,
  stage              STRING NOT NULL COMMENT 'ingest or embed',
  item_id            STRING NOT NULL COMMENT 'as found, "(missing)" where there was none',
  occurrence         INT NOT NULL COMMENT '0, 1, ... where several rows of one snapshot share the id',
  reason             STRING NOT NULL,
  detail             STRING,
  fields             STRING COMMENT 'the input''s own fields as JSON, without image bytes',
  source_fingerprint STRING,
  quarantined_at     TIMESTAMP
)
USING DELTA
TBLPROPERTIES ('delta.enableDeletionVectors' = 'true');
