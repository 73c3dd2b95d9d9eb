-- One row is the value of a metric. Key: run_id, task, model_version, slice, metric, k.
-- model_version is the encoder's, or frozen_image, frozen_text, frozen_concat or bm25 for the baselines of the same run.
CREATE TABLE IF NOT EXISTS retrieval_metrics (
  run_id        STRING NOT NULL,
  model_version STRING NOT NULL,
  slice         STRING NOT NULL COMMENT '"all", or column=value',
  metric        STRING NOT NULL COMMENT 'hit_rate, mrr, ndcg, judged_ndcg, map, recall, in_category_hit_rate, ann_recall, coverage',
  k             INT NOT NULL COMMENT '0 if the metric has no cut-off',
  value         DOUBLE NOT NULL,
  ci_low        DOUBLE,
  ci_high       DOUBLE,
  n_queries     BIGINT,
  pool_size     BIGINT,
  measured_at   TIMESTAMP,
  task          STRING COMMENT 'item_item: items find items, query_item: search queries find items, null in rows of earlier versions: item_item'
)
USING DELTA;
