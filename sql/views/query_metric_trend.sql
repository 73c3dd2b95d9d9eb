-- One row is a system in a run, with its headline metrics for search queries on the full pool. A system is the encoder or a baseline
-- (frozen_text, bm25). `published` is true if the run was published.
-- For ML engineers and dashboards.
CREATE OR REPLACE VIEW query_metric_trend AS
WITH headline AS (
  SELECT
    run_id,
    model_version,
    max(value) FILTER (WHERE metric = 'ndcg' AND k = 1) AS ndcg_1,
    max(value) FILTER (WHERE metric = 'ndcg' AND k = 10) AS ndcg_10,
    max(ci_low) FILTER (WHERE metric = 'ndcg' AND k = 10) AS ndcg_10_low,
    max(ci_high) FILTER (WHERE metric = 'ndcg' AND k = 10) AS ndcg_10_high,
    max(value) FILTER (WHERE metric = 'judged_ndcg' AND k = 10) AS judged_ndcg_10,
    max(value) FILTER (WHERE metric = 'recall' AND k = 10) AS recall_10,
    max(value) FILTER (WHERE metric = 'recall' AND k = 100) AS recall_100,
    max(value) FILTER (WHERE metric = 'mrr') AS mrr,
    max(value) FILTER (WHERE metric = 'map') AS map,
    max(n_queries) AS n_queries,
    max(pool_size) AS pool_size
  FROM retrieval_metrics
  WHERE slice = 'all' AND task = 'query_item'
  GROUP BY run_id, model_version
),
nights AS (
  SELECT
    run_id,
    min(started_at) FILTER (WHERE step = 'nightly') AS started_at,
    max(status) FILTER (WHERE step = 'nightly') AS status,
    coalesce(bool_or(step = 'publish' AND status = 'done'), false) AS published
  FROM pipeline_runs
  GROUP BY run_id
)
SELECT
  n.started_at,
  h.run_id,
  n.status,
  n.published,
  CASE WHEN left(h.model_version, 7) = 'frozen_' OR h.model_version = 'bm25' THEN h.model_version ELSE 'encoder' END AS system,
  h.* EXCEPT (run_id)
FROM headline h
JOIN nights n ON n.run_id = h.run_id;
