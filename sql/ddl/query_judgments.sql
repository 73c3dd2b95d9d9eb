-- One row is how well an item answers a query. Key: query_id, item_id. Pairs without a row are not judged, which does not mean irrelevant.
-- A pair that the judgments and the click log both grade has the grade of the judgments.
CREATE TABLE IF NOT EXISTS query_judgments (
  query_id   STRING NOT NULL COMMENT 'of relevance_queries',
  item_id    STRING NOT NULL COMMENT 'an item that was active when the table was written',
  grade      FLOAT NOT NULL COMMENT '0 (irrelevant) to queries.highest_grade, the mean of several raters',
  weight     FLOAT NOT NULL COMMENT 'as in the file, else 1, and for clicks the share of the grade that is evidence and not the prior',
  source     STRING NOT NULL COMMENT 'judgments or clicks',
  event_time TIMESTAMP COMMENT 'of the latest judgment, if the file has one',
  run_id     STRING NOT NULL COMMENT 'run that wrote the table, which is written only if a judgment changed'
)
USING DELTA;
