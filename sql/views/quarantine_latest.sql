-- One row is an input that the latest run could not use, with the reason and the source row.
-- For the owners of the catalog: these rows need correction.
CREATE OR REPLACE VIEW quarantine_latest AS
SELECT q.*
FROM quarantine q
WHERE q.run_id = (SELECT run_id FROM pipeline_runs WHERE step = 'nightly' ORDER BY started_at DESC LIMIT 1);
