-- One row is an input that the run that began last could not use, at any stage, with the reason and its own fields.
-- For the people who own the catalog: this is their list of things to mend.
CREATE OR REPLACE VIEW quarantine_latest AS
SELECT q.*
FROM quarantine q
WHERE q.run_id = (SELECT run_id FROM pipeline_runs WHERE step = 'nightly' ORDER BY started_at DESC LIMIT 1);
