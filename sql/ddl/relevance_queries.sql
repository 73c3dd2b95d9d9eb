-- One row is a query of a search, from a file of queries or from a click log. Key: query_id.
-- The split is by normalised_text, so no text is in both splits, however it was typed and under however many ids.
CREATE TABLE IF NOT EXISTS relevance_queries (
  query_id        STRING NOT NULL COMMENT 'as in the file, or made of the text for a query that only the click log has',
  text            STRING NOT NULL COMMENT 'as typed, without blanks at its edges',
  normalised_text STRING NOT NULL COMMENT 'NFC, case folded, single spaces: unit of the split and the bootstrap',
  split           STRING NOT NULL COMMENT 'train or test, by a stable hash of normalised_text',
  source          STRING NOT NULL COMMENT 'as the file says (human, generated, ...), else file, or clicks for one that only the log has',
  popularity      DOUBLE COMMENT 'how often it is searched: as the file says, else searches in the click log, null if neither knows',
  run_id          STRING NOT NULL COMMENT 'run that wrote the table, which is written only if a query changed'
)
USING DELTA;
