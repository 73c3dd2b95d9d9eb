-- One row is a step of a run. Key: run_id, step. The step "nightly" is the run itself. A promotion is a run with the step "promote".
CREATE TABLE IF NOT EXISTS pipeline_runs (
  run_id           STRING NOT NULL,
  step             STRING NOT NULL,
  status           STRING NOT NULL COMMENT 'running, done, failed, refused',
  started_at       TIMESTAMP,
  ended_at         TIMESTAMP,
  rows_in          BIGINT,
  rows_out         BIGINT,
  rows_quarantined BIGINT,
  rows_skipped     BIGINT COMMENT 'unchanged rows',
  versions_read    MAP<STRING, BIGINT> COMMENT 'Delta versions, by table',
  versions_written MAP<STRING, BIGINT> COMMENT 'Delta versions, by table',
  git_commit       STRING,
  config_digest    STRING,
  detail           STRING COMMENT 'JSON: figures of the step, or the error'
)
USING DELTA;
