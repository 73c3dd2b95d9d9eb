-- One row is a pair of items of which the second is relevant to the first. Key: query_item_id, positive_item_id, source.
-- Weight 0 means not judged: neither a hit nor a miss (other views of the same variant).
-- group_id is the query's group, or its item_id if it has none. No item of a test group is in a train pair.
CREATE TABLE IF NOT EXISTS relevance_pairs (
  query_item_id    STRING NOT NULL,
  positive_item_id STRING NOT NULL,
  source           STRING NOT NULL COMMENT 'group, table, or the kind of link',
  weight           FLOAT NOT NULL,
  split            STRING NOT NULL COMMENT 'train or test, by a stable hash of group_id',
  group_id         STRING NOT NULL COMMENT 'unit of the split and the bootstrap',
  event_time       TIMESTAMP
)
USING DELTA;
