-- Durations of every step over the last 30 runs, the slowest first.
-- Change: last_runs. rows_per_s is of the last run in which the step succeeded.
DECLARE OR REPLACE VARIABLE last_runs INT DEFAULT 30;
WITH runs AS (
  SELECT run_id, row_number() OVER (ORDER BY min(started_at) DESC, run_id DESC) AS age
  FROM pipeline_runs
  GROUP BY run_id
),
steps AS (
  SELECT p.*, timestampdiff(MILLISECOND, p.started_at, p.ended_at) / 1000 AS seconds
  FROM pipeline_runs p
  JOIN runs r ON r.run_id = p.run_id
  WHERE r.age <= last_runs AND p.step <> 'nightly' AND p.ended_at IS NOT NULL
)
SELECT
  step,
  count(*) AS runs,
  count_if(status = 'failed') AS failed,
  round(median(seconds), 1) AS median_s,
  round(max(seconds), 1) AS slowest_s,
  max_by(run_id, seconds) AS slowest_run,
  round(sum(seconds) / sum(sum(seconds)) OVER (), 4) AS share_of_time,
  round(max_by(try_divide(rows_out, seconds), started_at) FILTER (WHERE status = 'done'), 1) AS rows_per_s
FROM steps
GROUP BY step
ORDER BY median_s DESC, step
LIMIT 50;
