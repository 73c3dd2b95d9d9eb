-- One row is an input that the run that began last could not use, at any stage, with the reason and its own fields.
-- For the people who own the catalog: this is their list of things to mend.
CREATE OR REPLACE VIEW quarantine_latest AS
SELECT q.*
FROM quarantine q
WHERE q.run_id = (SELECT max_by(run_id, started_at) FROM pipeline_runs WHERE step = 'nightly');
