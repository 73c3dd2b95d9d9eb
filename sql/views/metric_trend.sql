-- One row is a system in a run, with its headline metrics on the full pool. A system is the encoder or a frozen baseline
-- (frozen_image, frozen_text, frozen_concat). `published` is true if the run was published.
-- Items find items here, query_metric_trend is about search queries. For ML engineers and dashboards.
CREATE OR REPLACE VIEW metric_trend AS
WITH headline AS (
  SELECT
    run_id,
    model_version,
    max(value) FILTER (WHERE metric = 'hit_rate' AND k = 1) AS hit_rate_1,
    max(value) FILTER (WHERE metric = 'hit_rate' AND k = 10) AS hit_rate_10,
    max(ci_low) FILTER (WHERE metric = 'hit_rate' AND k = 10) AS hit_rate_10_low,
    max(ci_high) FILTER (WHERE metric = 'hit_rate' AND k = 10) AS hit_rate_10_high,
    max(value) FILTER (WHERE metric = 'hit_rate' AND k = 100) AS hit_rate_100,
    max(value) FILTER (WHERE metric = 'mrr') AS mrr,
    max(value) FILTER (WHERE metric = 'ndcg' AND k = 10) AS ndcg_10,
    max(value) FILTER (WHERE metric = 'map') AS map,
    max(value) FILTER (WHERE metric = 'ann_recall' AND k = 10) AS ann_recall_10,
    max(value) FILTER (WHERE metric = 'coverage') AS coverage,
    max(n_queries) AS n_queries,
    max(pool_size) AS pool_size
  FROM retrieval_metrics
  WHERE slice = 'all' AND coalesce(task, 'item_item') = 'item_item'
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
  CASE WHEN left(h.model_version, 7) = 'frozen_' THEN h.model_version ELSE 'encoder' END AS system,
  h.* EXCEPT (run_id)
FROM headline h
JOIN nights n ON n.run_id = h.run_id;
