-- Quarantined inputs of the latest run by reason, and the change from the run before it.
-- Change: nothing. The view quarantine_latest shows the rows. Rows of the files of queries have no share, because rows_in counts the catalog's.
WITH runs AS (
  SELECT
    run_id,
    max(rows_in) FILTER (WHERE step = 'ingest') AS rows_in,
    row_number() OVER (ORDER BY min(started_at) DESC, run_id DESC) AS age
  FROM pipeline_runs
  GROUP BY run_id
  HAVING bool_or(step = 'nightly')
)
SELECT
  q.stage,
  q.reason,
  count_if(r.age = 1) AS inputs,
  CASE WHEN q.stage IN ('ingest', 'embed') THEN round(try_divide(count_if(r.age = 1), (SELECT rows_in FROM runs WHERE age = 1)), 4) END AS share_of_rows_in,
  count_if(r.age = 1) - count_if(r.age = 2) AS change,
  min(q.item_id) FILTER (WHERE r.age = 1) AS example_id,
  min_by(q.detail, q.item_id) FILTER (WHERE r.age = 1) AS example_detail
FROM quarantine q
JOIN runs r ON r.run_id = q.run_id
WHERE r.age <= 2
GROUP BY q.stage, q.reason
ORDER BY inputs DESC, stage, reason
LIMIT 100;
