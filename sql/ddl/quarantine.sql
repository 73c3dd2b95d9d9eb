-- One row is an input that could not be used. Key: run_id, stage, item_id, occurrence.
-- At ingest, source_fingerprint has a third part, a hash of the limits in force. An input with the same fingerprint has the same verdict.
CREATE TABLE IF NOT EXISTS quarantine (
  run_id             STRING NOT NULL,
  stage              STRING NOT NULL COMMENT 'ingest, embed, or of the files of queries: queries, judgments, clicks',
  item_id            STRING NOT NULL COMMENT 'as in the source, "(missing)" if there is none, of the stage queries the id of the query',
  occurrence         INT NOT NULL COMMENT '0, 1, ... if several source rows share the id',
  reason             STRING NOT NULL,
  detail             STRING,
  fields             STRING COMMENT 'the source row as JSON, without image bytes',
  source_fingerprint STRING,
  quarantined_at     TIMESTAMP
)
USING DELTA;
